"""attempt: what becomes of TLS that fails, host by host, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from engine.delivery import attempt
from engine.delivery.attempt import Target
from engine.net.handshake import ClientContexts
from engine.net.tls import TlsOutcome, TlsRequirement
from engine.queue.path import Path as EnginePath
from tests.delivery.test_opening import Peer, Rig, on_uvloop, site_of, until
from tests.fakes.authority import Authority
from tests.fakes.delivery_rig import make_delivery, make_policies

ROOT = Authority("Root")


class TlsPeer(Peer):
    """Offers STARTTLS; closes behind its 220 as often as `breaks` says; notes what came under TLS."""

    def __init__(self, certificate: Path | None, *, breaks: float = 0, greeting: bytes = b"") -> None:
        super().__init__(greeting or b"220 mx ready\r\n")
        self.breaks = breaks
        self.mail: list[bool] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if certificate is not None:
            self.context.load_cert_chain(certificate)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.greeting)
        is_secured = False
        while line := (await reader.readline()).decode().strip():
            verb = line[:4].upper()
            if verb == "EHLO":
                writer.write(b"250-mx\r\n250 STARTTLS\r\n" if not is_secured else b"250-mx\r\n250 SIZE\r\n")
            elif verb == "STAR":
                writer.write(b"220 go\r\n")
                if self.breaks:
                    self.breaks -= 1
                    await reader.read(1)
                    return
                with contextlib.suppress(ssl.SSLError):
                    await writer.start_tls(self.context)
                    is_secured = True
            elif verb == "DATA":
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                self.mail.append(is_secured)
                writer.write(b"250 2.0.0 taken\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")


class TlsRig(Rig):
    """Notes how TLS ended, each time."""

    def __init__(self, policy: str) -> None:
        super().__init__(policy)
        self.outcomes: list[TlsOutcome] = []
        self.opener.on_tls = self.note_tls
        self.opener.contexts.use("roots.pem", {"roots.pem": ROOT.pem.decode()})

    def note_tls(
        self, path: EnginePath, target: Target, requirement: TlsRequirement, outcome: TlsOutcome
    ) -> None:
        self.outcomes.append(outcome)

    def knows(self, address: str = "127.0.0.1") -> bool:
        return any(fault.peer.startswith(address) for fault in self.opener.memory.faults(self.loop.time()))

    async def end(self) -> None:
        for session in list(self.opener.sessions):
            session.quit()
        await until(lambda: not self.opener.sessions)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return ROOT.issue("mx").write(tmp_path / "mx.pem")


def rig_for(tls: str, *more: str) -> TlsRig:
    rig = TlsRig("")
    lines = ["[default]", 'address_family = "v4"', f'tls = "{tls}"', *more]
    rig.paths.replace_policies(make_policies("\n".join(lines)))
    return rig


def test_a_failed_handshake_goes_on_in_clear_at_once_and_is_remembered(certificate):
    """RFC 7435 section 3."""

    async def scenario() -> None:
        peer = TlsPeer(None, breaks=float("inf"))
        async with peer.listen("127.0.0.1") as port:
            rig = rig_for("opportunistic", 'tls_failure_ttl = "1h"')
            rig.addresses_of["mx"] = ["127.0.0.1"]
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: rig.settled)
            assert (len(peer.clients), peer.mail, rig.unreachable) == (2, [False], [])
            assert rig.opened() == {"tls": 1, "opened": 1}
            assert [each.result for each in rig.outcomes] == ["validation-failure", ""]
            (fault,) = rig.opener.memory.faults(rig.loop.time())
            assert (fault.peer, fault.fault) == (f"127.0.0.1:{port}", "tls")
            assert (fault.terms, bool(fault.detail)) == ("as mx, TLS 1.2 or newer", True)
            assert 3500 < fault.until - rig.loop.time() <= 3600
            await rig.end()

            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: len(rig.settled) == 2)
            assert len(peer.clients) == 3  # straight in clear
            # RFC 8460 section 4.4: another session without TLS is another failure.
            assert [each.result for each in rig.outcomes[2:]] == ["", "validation-failure"]
            assert rig.outcomes[3].detail == attempt.NOT_TRIED
            await rig.end()

    on_uvloop(scenario())


def test_a_failed_handshake_binds_neither_another_policy_nor_another_port_nor_another_name(certificate):
    """RFC 7435 section 3: opportunistic TLS offers what it can; what failed was one offer to one server."""

    async def scenario() -> None:
        peer, other = TlsPeer(certificate), TlsPeer(certificate)
        peer.context.maximum_version = other.context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with peer.listen("127.0.0.1") as port, other.listen("127.0.0.1") as other_port:
            rig = rig_for("opportunistic", 'tls_min_version = "1.3"')
            rig.addresses_of = {"mx": ["127.0.0.1"], "mx2": ["127.0.0.1"]}
            for _ in range(2):
                rig.push(site_of("mx", port=port), make_delivery())
                await until(lambda: rig.settled)
                await rig.end()
                rig.settled.clear()
            assert (peer.mail, len(peer.clients)) == ([False, False], 3)
            rig.paths.replace_policies(
                make_policies('[default]\naddress_family = "v4"\ntls = "opportunistic"')
            )
            for site in (site_of("mx", port=port), site_of("mx2", port=port), site_of("mx", port=other_port)):
                rig.push(site, make_delivery())
                await until(lambda: rig.settled)
                await rig.end()
                rig.settled.clear()
            assert (peer.mail, other.mail) == ([False, False, True, True], [True])

    on_uvloop(scenario())


def test_a_renewed_certificate_of_ours_is_offered_to_a_peer_that_refused_the_last(certificate):
    """RFC 7435 section 3: another offer is another chance."""
    contexts = ClientContexts(lambda: 0.0)
    asked = TlsRequirement(mode="opportunistic", certificate="ours.pem", key="ours.key")
    contexts.use("", {"ours.pem": "old", "ours.key": "key"})
    before = contexts.describe_offer(asked, "mx")
    contexts.use("", {"ours.pem": "new", "ours.key": "key"})
    after = contexts.describe_offer(asked, "mx")
    assert before != after
    assert after.startswith("as mx, TLS 1.2 or newer, with ours.pem (")
    assert contexts.describe_offer(TlsRequirement(mode="opportunistic"), "mx") != after


def test_where_clear_text_fails_too_it_was_not_tls(certificate):
    async def scenario() -> None:
        peer = TlsPeer(None, breaks=1)
        async with peer.listen("127.0.0.1") as port:
            rig = rig_for("opportunistic")
            rig.addresses_of["mx"] = ["127.0.0.1"]
            rig.opener.on_tls = lambda *_: setattr(peer, "greeting", b"421 4.3.2 going down\r\n")
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: rig.unreachable)
            assert rig.unreachable[0].code == 421
            assert not rig.knows()

    on_uvloop(scenario())


def test_where_no_slot_is_left_the_next_try_goes_on_in_clear(monkeypatch):
    """The failed handshake is no attempt: nothing is reported, and nothing backs off."""
    monkeypatch.setattr(attempt, "SLOT_AFTER_OUR_CLOSE_S", 0.2)
    monkeypatch.setattr(attempt, "NEXT_ADDRESS_WAIT_S", 0.0)

    async def scenario() -> None:
        peer = TlsPeer(None, breaks=float("inf"))
        async with peer.listen("127.0.0.1") as port:
            rig = rig_for("opportunistic", "max_connections = 1")
            rig.addresses_of["mx"] = ["127.0.0.1"]
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: rig.settled)
            assert (rig.unreachable, rig.opened()) == ([], {"tls": 1, "opened": 1})
            assert (len(peer.clients), peer.mail) == (2, [False])
            await rig.end()

    on_uvloop(scenario())


@pytest.mark.parametrize("tls", ["required", "verify"])
def test_in_clear_never_but_at_the_next_host(certificate, tls):
    async def scenario() -> None:
        bad, good = TlsPeer(None, breaks=float("inf")), TlsPeer(certificate)
        async with bad.listen("127.0.0.2") as port, good.listen("127.0.0.3", port):
            rig = rig_for(tls)
            terms = "as mx, TLS 1.2 or newer"  # says nothing here:
            rig.opener.memory.remember(f"127.0.0.3:{port}", "tls", float("inf"), "", terms)
            rig.addresses_of = {"mx1": ["127.0.0.2"], "mx": ["127.0.0.3"]}
            rig.push(site_of("mx1", "mx", port=port), make_delivery())
            await until(lambda: rig.settled)
            assert (len(bad.clients), bad.mail, good.mail) == (1, [], [True])
            (session,) = rig.opener.sessions
            assert session.facts.tls.startswith("TLSv1.3 TLS_")
            assert (session.facts.tls_verification, session.facts.tls_resumed) == ("verified", False)
            assert not rig.knows("127.0.0.2")
            await rig.end()

    on_uvloop(scenario())


@pytest.mark.parametrize("tls", ["required", "verify"])
def test_a_handshake_that_fails_everywhere_defers_with_4_7_5(certificate, tls):
    """RFC 3463 section 3.8, X.7.5: cryptographic failure."""

    async def scenario() -> None:
        peer = TlsPeer(None, breaks=float("inf"))
        async with peer.listen("127.0.0.1") as port:
            rig = rig_for(tls)
            rig.addresses_of["mx"] = ["127.0.0.1"]
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: rig.unreachable)
            (reply,) = rig.unreachable
            assert (reply.code, reply.enhanced, peer.mail) == (451, "4.7.5", [])
            assert reply.text.startswith("mx[127.0.0.1] TLS is required: ")

    on_uvloop(scenario())


def test_a_certificate_that_names_another_host_defers_with_4_7_5(certificate):
    async def scenario() -> None:
        peer = TlsPeer(certificate)
        async with peer.listen("127.0.0.1") as port:
            rig = rig_for("verify")
            rig.addresses_of["other"] = ["127.0.0.1"]
            rig.push(site_of("other", port=port), make_delivery())
            await until(lambda: rig.unreachable)
            assert rig.unreachable[0].enhanced == "4.7.5"
            assert [each.result for each in rig.outcomes] == ["certificate-host-mismatch"]

    on_uvloop(scenario())


@pytest.mark.parametrize("tls", ["required", "verify"])
def test_a_host_that_does_not_offer_tls_defers_with_4_7_4(tls):
    """RFC 3463 section 3.8, X.7.4: security features not supported."""

    async def scenario() -> None:
        peer = Peer()
        async with peer.listen("127.0.0.1") as port:
            rig = rig_for(tls)
            rig.addresses_of["mx"] = ["127.0.0.1"]
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: rig.unreachable)
            assert (rig.unreachable[0].code, rig.unreachable[0].enhanced) == (451, "4.7.4")
            assert [each.result for each in rig.outcomes] == ["starttls-not-supported"]

    on_uvloop(scenario())


def test_a_peer_that_fails_on_a_ticket_gets_a_whole_handshake_before_anything_else(certificate):
    async def scenario() -> None:
        peer = TlsPeer(certificate)
        async with peer.listen("127.0.0.1") as port:
            rig = rig_for("opportunistic")
            rig.addresses_of["mx"] = ["127.0.0.1"]
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: rig.settled)
            await rig.end()
            peer.breaks = 1
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: len(rig.settled) == 2)
            assert (len(peer.clients), peer.mail) == (3, [True, True])
            assert not rig.knows()
            await rig.end()

    on_uvloop(scenario())


def test_without_a_ttl_nothing_is_remembered(certificate):
    async def scenario() -> None:
        peer = TlsPeer(None, breaks=float("inf"))
        async with peer.listen("127.0.0.1") as port:
            rig = rig_for("opportunistic", 'tls_failure_ttl = "0s"')
            rig.addresses_of["mx"] = ["127.0.0.1"]
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: rig.settled)
            assert (peer.mail, rig.knows()) == ([False], False)
            await rig.end()

    on_uvloop(scenario())
