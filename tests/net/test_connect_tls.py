"""connect: what a session shows under each requirement, over real TLS on loopback, under uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.postfix import TUNING, PostfixSetup, is_postfix_here, running_postfix
from engine.core.errors import TlsFailed
from engine.net.connect import OpenSession, OpenTimeouts, open_session
from engine.net.handshake import ClientContexts
from engine.net.sockets import open_socket
from engine.net.tls import TlsOutcome, TlsRequirement
from engine.net.trust import peer_chain
from tests.fakes.authority import Authority
from tests.lacking import lack

OPPORTUNISTIC = TlsRequirement(mode="opportunistic")
REQUIRED = TlsRequirement(mode="required")
VERIFY = TlsRequirement(mode="verify")
LONG = OpenTimeouts(5.0, 5.0, 5.0)
POSTFIX_PORT = 21690
ROOT = Authority("Root")
LEAF = ROOT.issue("mx.example")


class Peer:
    """An SMTP server with STARTTLS; one context for all its connections, so that its tickets open again."""

    def __init__(self, certificate: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.context.sni_callback = self._note_name
        self.names: list[str | None] = []
        self.subjects: list[Any] = []
        self.is_broken = False

    def _note_name(self, _object: Any, name: str | None, _context: Any) -> None:
        self.names.append(name)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx.example ESMTP\r\n")
        await reader.readline()
        writer.write(b"250-mx.example\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go\r\n")
        if self.is_broken:
            await reader.read(1)
            return
        with contextlib.suppress(ssl.SSLError):
            await writer.start_tls(self.context)
            self.subjects.append(writer.get_extra_info("peercert"))
            await reader.readline()
            writer.write(b"250 mx.example\r\n")
            await reader.read()


@pytest.mark.parametrize(
    ("words", "is_certain"),
    [
        (b"", False),
        (b"\x16\x03\x03", False),
        (b"no TLS here\r\n" * 9, True),
        (b"\x15\x03\x03\0\x02\x02\x28", True),
    ],
    ids=["closed", "torn", "no TLS", "alert"],
)
def test_what_a_failed_handshake_proves_of_the_peer(run, peer, contexts, words, is_certain):
    """RFC 8689 section 4.2.1: only what is certain bounces such mail; a lost connection is not."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx.example ESMTP\r\n")
        await reader.readline()
        writer.write(b"250-mx.example\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go\r\n")
        await reader.read(1)
        writer.write(words)
        await writer.drain()

    async def scenario() -> None:
        async with peer(talk) as port:
            with pytest.raises(TlsFailed) as failed:
                await open_to(port, VERIFY, contexts)
            assert failed.value.is_certain == is_certain, failed.value.detail

    run(scenario())


@pytest.fixture
def server(tmp_path: Path) -> Peer:
    return Peer(LEAF.write(tmp_path / "mx.pem"))


@pytest.fixture
def contexts() -> ClientContexts:
    made = ClientContexts()
    made.use("roots.pem", {"roots.pem": ROOT.pem.decode()})
    return made


async def open_to(
    port: int, tls: TlsRequirement, contexts: ClientContexts, host: str = "mx.example"
) -> TlsOutcome:
    """Open a session and close it again; return how TLS ended."""
    sock = await open_socket(None, "127.0.0.1", port, 5.0)
    session = await open_session(
        sock, peer_host=host, helo="mail1.acme.example", timeouts=LONG, tls=tls, contexts=contexts
    )
    assert isinstance(session, OpenSession)
    session.close()
    return session.outcome


async def fail_at(
    port: int, tls: TlsRequirement, contexts: ClientContexts, host: str = "mx.example"
) -> TlsFailed:
    with pytest.raises(TlsFailed) as caught:
        await open_to(port, tls, contexts, host)
    return caught.value


def scene(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a scenario(port, server, contexts) against the peer."""

    def run_it(run: Any, peer: Any, server: Peer, contexts: ClientContexts) -> None:
        async def scenario() -> None:
            async with peer(server) as port:
                await test(port, server, contexts)

        run(scenario())

    run_it.__name__ = test.__name__
    run_it.__doc__ = test.__doc__
    return run_it


@scene
async def test_the_mx_host_is_named_to_the_peer(port, server, contexts):
    """RFC 6066 section 3 (SNI), with the name of RFC 7672 section 8.1: the MX host."""
    await open_to(port, OPPORTUNISTIC, contexts)
    assert server.names == ["mx.example"]


@scene
async def test_without_verification_it_is_told_who_would_have_passed(port, server, contexts):
    """RFC 7435: opportunistic security goes on with whoever is there."""
    for mode in ("opportunistic", "required"):
        tls = TlsRequirement(mode=mode)
        assert (await open_to(port, tls, contexts)).facts.verification == "verified"
        outcome = await open_to(port, tls, contexts, "other.example")
        assert (outcome.result, outcome.facts.verification) == ("success", "certificate-host-mismatch")


@scene
async def test_verify_takes_the_mx_hosts_certificate_of_a_trusted_root(port, server, contexts):
    outcome = await open_to(port, VERIFY, contexts)
    assert (outcome.result, outcome.facts.verification) == ("success", "verified")


@scene
async def test_verify_fails_where_the_certificate_names_another(port, server, contexts):
    """RFC 9525 section 6: no match, no session."""
    failed = await fail_at(port, VERIFY, contexts, "other.example")
    assert (failed.phase, failed.result) == ("tls", "certificate-host-mismatch")


@scene
async def test_verify_fails_where_no_root_vouches(port, server, contexts):
    contexts.use("roots.pem", {"roots.pem": Authority("Another Root").pem.decode()})
    assert (await fail_at(port, VERIFY, contexts)).result == "certificate-not-trusted"


def test_verify_fails_where_the_certificate_has_expired(run, peer, tmp_path, contexts):
    server = Peer(ROOT.issue("mx.example", days=-1).write(tmp_path / "old.pem"))

    async def scenario() -> None:
        async with peer(server) as port:
            assert (await fail_at(port, VERIFY, contexts)).result == "certificate-expired"
            facts = (await open_to(port, OPPORTUNISTIC, contexts)).facts
            assert facts.verification == "certificate-expired"

    run(scenario())


@scene
async def test_names_of_the_requirement_are_those_that_count(port, server, contexts):
    """RFC 7672 section 3.2.2 and whoever else has names that are not the host's."""
    named = TlsRequirement(mode="verify", names=("example", "mx.example"))
    assert (await open_to(port, named, contexts, "other.example")).facts.is_verified
    other = TlsRequirement(mode="verify", names=("other.example",))
    assert (await fail_at(port, other, contexts)).result == "certificate-host-mismatch"


@scene
async def test_a_peer_older_than_the_minimum_is_refused(port, server, contexts):
    server.context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert (await open_to(port, OPPORTUNISTIC, contexts)).facts.version == "TLSv1.2"
    failed = await fail_at(port, TlsRequirement(mode="required", minimum="1.3"), contexts)
    assert failed.result == "validation-failure"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_asks_sees_our_certificate(run, peer, server, tmp_path, version):
    ours = ROOT.issue("mail1.acme.example")
    server.context.maximum_version = version
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.load_verify_locations(cadata=ROOT.pem.decode())
    contexts = ClientContexts()
    contexts.use("", {"ours.pem": ours.write(tmp_path / "ours.pem").read_text()})

    async def scenario() -> None:
        async with peer(server) as port:
            tls = TlsRequirement(mode="required", certificate="ours.pem", key="ours.pem")
            await open_to(port, tls, contexts)
            assert server.subjects[-1]["subject"] == ((("commonName", "mail1.acme.example"),),)

    run(scenario())


# -- resumption ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("tls", [OPPORTUNISTIC, VERIFY], ids=["opportunistic", "verify"])
def test_the_next_session_to_a_peer_is_resumed(run, peer, server, contexts, version, tls):
    """RFC 8446 section 2.2, RFC 5077: and what the first handshake found is told again."""
    server.context.maximum_version = version

    async def scenario() -> None:
        async with peer(server) as port:
            facts = [(await open_to(port, tls, contexts)).facts for _ in range(3)]
            assert [each.is_resumed for each in facts] == [False, True, True]
            assert {each.verification for each in facts} == {"verified"}
            assert len(contexts.tickets) == 1  # used once each

    run(scenario())


@scene
async def test_sessions_are_resumed_for_the_same_requirement_and_name_only(port, server, contexts):
    await open_to(port, OPPORTUNISTIC, contexts)
    assert not (await open_to(port, VERIFY, contexts)).facts.is_resumed
    assert not (await open_to(port, OPPORTUNISTIC, contexts, "other.example")).facts.is_resumed


@scene
async def test_other_roots_begin_anew(port, server, contexts):
    await open_to(port, VERIFY, contexts)
    contexts.use("", {})
    assert (await fail_at(port, VERIFY, contexts)).result == "certificate-not-trusted"


@scene
async def test_a_failure_with_a_ticket_says_so_and_forgets_the_peers_tickets(port, server, contexts):
    await open_to(port, REQUIRED, contexts)
    server.is_broken = True
    assert (await fail_at(port, REQUIRED, contexts)).was_resuming
    assert not (await fail_at(port, REQUIRED, contexts)).was_resuming


# -- a check of the requirement's own (DANE) -------------------------------------------------------------


@scene
async def test_the_requirements_own_check_sees_each_peer_resumed_or_not(port, server, contexts):
    seen: list[bytes | None] = []

    def check(ssl_object: ssl.SSLObject) -> None:
        seen.append(ssl_object.getpeercert(binary_form=True))

    tls = TlsRequirement(mode="required", verify_peer=check)
    facts = [(await open_to(port, tls, contexts, "other.example")).facts for _ in range(2)]
    assert [(each.is_resumed, each.verification) for each in facts] == [(False, "dane"), (True, "dane")]
    assert seen == [LEAF.der, LEAF.der]


@scene
async def test_another_check_gets_no_ticket_of_what_this_one_proved(port, server, contexts):
    def check(ssl_object: ssl.SSLObject) -> None:
        return None if peer_chain(ssl_object) == [LEAF.der, ROOT.der] else "validation-failure"

    def other(ssl_object: ssl.SSLObject) -> str | None:
        return check(ssl_object)

    for verify_peer in (None, check, other):
        tls = TlsRequirement(mode="required", verify_peer=verify_peer)
        assert not (await open_to(port, tls, contexts)).facts.is_resumed


@scene
async def test_a_peer_that_fails_the_requirements_own_check_gets_no_session(port, server, contexts):
    tls = TlsRequirement(mode="required", verify_peer=lambda ssl_object: ("tlsa-invalid", "no such record"))
    failed = await fail_at(port, tls, contexts)
    assert (failed.phase, failed.result) == ("tls", "tlsa-invalid")


# -- a stranger ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.stranger("postfix")
def test_postfix_is_verified_and_asks_for_our_certificate(run, stranger, tmp_path, contexts):
    stranger("postfix")
    if not is_postfix_here():
        lack("a private Postfix needs root")
    ours = ROOT.issue("mail1.acme.example").write(tmp_path / "ours.pem").read_text()
    contexts.use("roots.pem", {"roots.pem": ROOT.pem.decode(), "ours.pem": ours})
    roots = ROOT.write_certificate(tmp_path / "roots.pem")
    tuning = {
        **TUNING,
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": str(LEAF.write(tmp_path / "mx.pem")),
        "smtpd_tls_CAfile": str(roots),
        "smtpd_tls_ask_ccert": "yes",
        "smtpd_tls_loglevel": "1",
    }
    tls = TlsRequirement(mode="verify", certificate="ours.pem", key="ours.pem")
    with running_postfix(PostfixSetup(POSTFIX_PORT, {}, tuning=tuning)) as postfix:
        facts = [run(open_to(POSTFIX_PORT, tls, contexts)).facts for _ in range(2)]
        log = postfix.log.read_text()
    assert [each.verification for each in facts] == ["verified", "verified"]
    assert "Trusted TLS connection established" in log
