"""What a host must show before it gets mail: judged, and shown over real TLS on loopback."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core.errors import NetworkError, ResolveTemporary, TlsFailed
from engine.core.reply import make_reply
from engine.core.terms import Terms
from engine.delivery.securing import Secured, Unusable, refuse_unprotected, secure
from engine.net.site import Host, Site, make_site, with_demand
from engine.net.tls import CLEAR, TlsOutcome
from engine.net.tlsa import NO_TLSA, HostTlsa
from engine.policy.model import Policy
from engine.security.dane import TLSARecord
from engine.security.demand import OPTIONAL, PREFERRED, REQUIRED, Demand, HostDemand
from engine.security.sts import StsPolicy
from engine.security.tally import DNSSEC_INVALID
from tests.delivery.test_opening import Rig, on_uvloop, until
from tests.fakes.authority import Authority
from tests.fakes.delivery_rig import make_delivery, make_policies
from tests.fakes.tls_peer import TlsPeer, serve_tls

HOST = Host("mx.example", port=25)


def policy(text: str = "") -> Policy:
    policies = make_policies(text)
    return policies.effective(policies.destination("x.example", "mx.example", ()), "", "")


class Records:
    """TLSA records of every host."""

    def __init__(self, found: HostTlsa | Exception = NO_TLSA) -> None:
        self.found = found
        self.asked: list[tuple[str, int]] = []

    async def tlsa(self, host: Host, port: int) -> HostTlsa:
        self.asked.append((host.name, port))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def judge(demand: Demand, found: HostTlsa | Exception = NO_TLSA, text: str = "") -> Secured | Unusable:
    site = with_demand(make_site([HOST]), demand)
    return asyncio.run(secure(Records(found), site, HOST, 25, policy(text)))


def test_records_that_are_not_to_be_had_defer():
    """RFC 7672 section 2.1.2: a bogus answer is not "no TLSA"; the host can't be used."""
    found = judge(Demand(is_secure=True), ResolveTemporary("_25._tcp.mx.example", "SERVFAIL"))
    assert isinstance(found, Unusable)
    assert (found.reply.code, found.result) == (451, DNSSEC_INVALID)


def test_records_are_not_asked_for_where_the_mx_is_not_secure():
    records = Records()
    site = make_site([HOST])
    asyncio.run(secure(records, site, HOST, 25, policy()))
    assert records.asked == []


def test_host_that_the_sts_policy_does_not_name_is_passed_over():
    """RFC 8461 section 5: 4xx and the next MX."""
    found = judge(Demand(sts=StsPolicy("enforce", ("other.example",), 1)))
    assert isinstance(found, Unusable)
    assert found.reply.code == 451


def test_policy_of_its_own_is_kept_in_the_requirement():
    found = judge(Demand(), text='[default]\ntls = "verify"\ntls_min_version = "1.3"\n')
    assert isinstance(found, Secured)
    assert (found.tls.mode, found.tls.minimum) == ("verify", "1.3")
    assert judge(Demand(), text='[default]\ntls = "none"\n').tls is CLEAR


def test_tls_failure_is_final_only_where_the_sender_asked_for_tls():
    """RFC 8689 section 4.2.1; a time-out proves nothing."""
    reply = make_reply(451, "4.7.5", "handshake failed")
    protected = HostDemand("verify", needs_requiretls=True)
    failed = TlsFailed("certificate-expired", "expired")
    assert refuse_unprotected(reply, failed, HostDemand("verify")) is reply
    assert refuse_unprotected(reply, NetworkError("tls", "no reply in 60 s"), protected) is reply
    refused = refuse_unprotected(reply, failed, protected)
    assert (refused.code, refused.enhanced) == (550, "5.7.10")


# -- over real TLS ------------------------------------------------------------------------------------------


def scene(**options: Any) -> Callable[[Callable[..., Any]], Callable[[Path], None]]:
    """Run a test with a rig, a peer of `options` and the authority that its certificate is from."""

    def wrap(test: Callable[..., Any]) -> Callable[[Path], None]:
        def run(tmp_path: Path) -> None:
            authority = Authority("Test Root")
            certificate = authority.issue(options.get("name", "mx.example"), days=options.get("days", 30))
            peer = TlsPeer(
                certificate.write(tmp_path / "peer.pem") if options.get("has_tls", True) else None,
                offers=options.get("offers", ()),
            )
            with serve_tls(peer, "127.0.0.1", 0) as port:

                async def scenario() -> None:
                    await test(Scene(port, peer, authority, certificate))

                on_uvloop(scenario())

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return wrap


class Scene:
    def __init__(self, port: int, peer: TlsPeer, authority: Authority, certificate: Authority) -> None:
        self.port = port
        self.peer = peer
        self.authority = authority
        self.certificate = certificate
        self.rig = Rig('[domain."x.example"]\ntls = "opportunistic"\nmax_messages_per_connection = 1\n')
        self.rig.opener.contexts.use("ca", {"ca": authority.pem.decode()})
        self.rig.addresses_of = {name: ["127.0.0.1"] for name in ("mx.example", "other.example")}
        self.records = Records()
        self.rig.tlsa = self.records.tlsa  # type: ignore[method-assign]

    def site(self, demand: Demand, *hosts: str) -> Site:
        names = hosts or ("mx.example",)
        found = [Host(name, rank, port=self.port) for rank, name in enumerate(names)]
        return with_demand(make_site(found), demand)

    def send(self, demand: Demand, *hosts: str) -> None:
        delivery = make_delivery()
        if demand.word in (REQUIRED, PREFERRED):
            sender = delivery.envelope.sender if demand.word == REQUIRED else ""
            terms = Terms(requires_tls=True)
            delivery.envelope = msgspec.structs.replace(delivery.envelope, sender=sender, terms=terms)
        self.rig.push(self.site(demand, *hosts), delivery)

    async def delivered(self, count: int = 1) -> None:
        await until(lambda: len(self.rig.settled) == count)

    async def refused(self) -> tuple[int, str]:
        await until(lambda: self.rig.unreachable)
        assert not self.peer.messages
        reply = self.rig.unreachable[-1]
        return reply.code, reply.enhanced


def ee(certificate: Authority) -> HostTlsa:
    record = TLSARecord(3, 1, 1, hashlib.sha256(certificate.key_der).digest())
    return HostTlsa((record,), "mx.example")


def ta(authority: Authority) -> HostTlsa:
    return HostTlsa((TLSARecord(2, 0, 1, hashlib.sha256(authority.der).digest()),), "mx.example")


@scene(name="unrelated.example", days=-1)
async def test_pinned_key_is_enough_for_dane(s: Scene) -> None:
    """RFC 7672 section 3.1.1: neither name nor date of the certificate counts."""
    s.records.found = ee(s.certificate)
    s.send(Demand(is_secure=True))
    await s.delivered()
    assert s.peer.messages[0][0]
    (flight,) = [flight for flight, _ in s.rig.settled]
    assert flight.delivery.domain == "x.example"


@scene()
async def test_another_key_than_the_pinned_one_gets_no_mail(s: Scene) -> None:
    """RFC 7672 section 2.2: no delivery in clear, and none to who can't prove it."""
    s.records.found = ee(s.authority.issue("mx.example"))
    s.send(Demand(is_secure=True))
    assert await s.refused() == (451, "4.7.5")


@scene(has_tls=False)
async def test_dane_host_without_starttls_gets_no_mail(s: Scene) -> None:
    s.records.found = ee(s.certificate)
    s.send(Demand(is_secure=True))
    assert await s.refused() == (451, "4.7.4")


@scene(name="unrelated.example")
async def test_unusable_records_ask_for_any_tls(s: Scene) -> None:
    """RFC 7672 section 2.2: mandatory, unauthenticated."""
    s.records.found = HostTlsa((TLSARecord(1, 1, 1, b"x" * 32),), "mx.example")
    s.send(Demand(is_secure=True))
    await s.delivered()
    assert s.peer.messages[0][0]


@scene(has_tls=False)
async def test_unusable_records_forbid_clear_text(s: Scene) -> None:
    """RFC 7672 section 2.2."""
    s.records.found = HostTlsa((TLSARecord(1, 1, 1, b"x" * 32),), "mx.example")
    s.send(Demand(is_secure=True))
    assert (await s.refused())[0] == 451


@scene()
async def test_trust_anchor_holds_in_a_resumed_session_too(s: Scene) -> None:
    """A resumed session shows no chain: its ticket is from a handshake that the same records proved."""
    s.records.found = ta(s.authority)
    for count in (1, 2, 3):
        s.send(Demand(is_secure=True))
        await s.delivered(count)
    assert all(is_tls for is_tls, _ in s.peer.messages)


@scene(name="x.example")
async def test_trust_anchor_vouches_by_the_domains_name_too(s: Scene) -> None:
    """RFC 7672 section 3.2.2: the certificate names the next-hop domain, and not the host."""
    s.records.found = ta(s.authority)
    s.send(Demand(is_secure=True, names=("x.example",)))
    await s.delivered()


@scene(name="mx.example")
async def test_name_of_an_alias_is_none_where_its_records_stand_elsewhere(s: Scene) -> None:
    """RFC 7672 section 3.2.2: the TLSA base domain, not the name that it was reached by."""
    s.records.found = HostTlsa(ta(s.authority).records, "real.example")
    s.send(Demand(is_secure=True, names=("x.example",)))
    assert await s.refused() == (451, "4.7.5")
    assert "certificate is for none of real.example, x.example" in s.rig.unreachable[-1].text


@scene(name="real.example")
async def test_tlsa_base_domain_is_named_to_the_peer(s: Scene) -> None:
    """RFC 7672 section 8.1: SNI."""
    named: list[str | None] = []
    assert s.peer.context is not None
    s.peer.context.sni_callback = lambda _, name, __: named.append(name)
    s.records.found = HostTlsa(ta(s.authority).records, "real.example")
    s.send(Demand(is_secure=True))
    await s.delivered()
    assert named == ["real.example"]


@pytest.mark.parametrize(
    ("options", "result"),
    [({"days": -1}, "certificate-expired"), ({"name": "stranger.example"}, "certificate-host-mismatch")],
)
def test_report_says_why_dane_failed(tmp_path, options, result):
    """RFC 8460 section 4.3: a date and a name have result types of their own."""

    @scene(**options)
    async def test(s: Scene) -> None:
        told: list[TlsOutcome] = []
        s.rig.opener.on_tls = lambda path, target, tls, outcome: told.append(outcome)
        s.records.found = ta(s.authority)
        s.send(Demand(is_secure=True))
        assert await s.refused() == (451, "4.7.5")
        assert [outcome.result for outcome in told] == [result]
        assert told[0].detail in s.rig.unreachable[-1].text

    test(tmp_path)


@scene()
async def test_session_is_not_resumed_under_other_records(s: Scene) -> None:
    s.records.found = ta(s.authority)
    s.send(Demand(is_secure=True))
    await s.delivered()
    s.records.found = ta(Authority("Another"))
    s.send(Demand(is_secure=True))
    await until(lambda: s.rig.unreachable)
    assert len(s.peer.messages) == 1


@scene()
async def test_enforced_policy_is_met_by_a_valid_certificate(s: Scene) -> None:
    """RFC 8461 section 4.2."""
    s.send(Demand(sts=StsPolicy("enforce", ("mx.example",), 1)))
    await s.delivered()
    assert s.peer.messages[0][0]


@pytest.mark.parametrize("options", [{"name": "other.example"}, {"days": -1}, {"has_tls": False}])
def test_enforced_policy_is_not_met_otherwise(tmp_path, options):
    """RFC 8461 section 5: neither in clear nor to a certificate with another name or date."""

    @scene(**options)
    async def test(s: Scene) -> None:
        s.send(Demand(sts=StsPolicy("enforce", ("mx.example",), 1)))
        assert (await s.refused())[0] == 451

    test(tmp_path)


@scene(name="other.example")
async def test_next_mx_is_tried_where_the_first_is_not_named(s: Scene) -> None:
    """RFC 8461 section 5.1: the candidates that the policy allows, in their order."""
    s.send(Demand(sts=StsPolicy("enforce", ("other.example",), 1)), "mx.example", "other.example")
    await s.delivered()
    assert [line for _, line in s.peer.lines if line.startswith("EHLO")] != []
    assert s.rig.opened()["opened"] == 1


@pytest.mark.parametrize("options", [{"name": "other.example"}, {"has_tls": False}])
def test_policy_in_testing_delivers_all_the_same(tmp_path, options):
    """RFC 8461 section 5."""

    @scene(**options)
    async def test(s: Scene) -> None:
        s.send(Demand(sts=StsPolicy("testing", ("mx.example",), 1)))
        await s.delivered()

    test(tmp_path)


@scene(offers=("REQUIRETLS",))
async def test_requiretls_goes_on_with_the_message(s: Scene) -> None:
    """RFC 8689 section 4.2.1."""
    s.send(Demand(sts=StsPolicy("testing", ("mx.example",), 1), word=REQUIRED))
    await s.delivered()
    assert s.peer.mails[0].endswith(" REQUIRETLS")
    assert s.peer.messages[0][0]


@scene(offers=("REQUIRETLS",), name="unrelated.example")
async def test_requiretls_is_met_by_dane_as_well(s: Scene) -> None:
    s.records.found = ee(s.certificate)
    s.send(Demand(is_secure=True, word=REQUIRED))
    await s.delivered()
    assert s.peer.mails[0].endswith(" REQUIRETLS")


@scene()
async def test_peer_that_does_not_offer_requiretls_gets_no_such_mail(s: Scene) -> None:
    """RFC 8689 section 4.2.1: 5.7.30, after QUIT."""
    s.send(Demand(is_secure=True, word=REQUIRED))
    assert await s.refused() == (550, "5.7.30")
    await until(lambda: s.peer.lines[-1] == (True, "QUIT"))


@pytest.mark.parametrize("options", [{"name": "other.example"}, {"days": -1}, {"has_tls": False}])
def test_peer_that_is_not_verified_gets_no_requiretls_mail(tmp_path, options):
    """RFC 8689 section 4.2.1: 5.7.10."""

    @scene(offers=("REQUIRETLS",), **options)
    async def test(s: Scene) -> None:
        s.send(Demand(is_secure=True, word=REQUIRED))
        assert await s.refused() == (550, "5.7.10")

    test(tmp_path)


@scene(offers=("REQUIRETLS",))
async def test_requiretls_needs_a_name_that_is_vouched_for(s: Scene) -> None:
    """RFC 8689 section 4.2.1, step 1."""
    s.send(Demand(word=REQUIRED))
    assert await s.refused() == (550, "5.7.10")


@pytest.mark.parametrize(
    ("options", "is_tls", "is_asked"),
    [
        ({"offers": ("REQUIRETLS",)}, True, True),
        ({"offers": ("REQUIRETLS",), "name": "other.example"}, True, True),
        ({}, True, False),
        ({"has_tls": False}, False, False),
    ],
    ids=["offered", "not verified", "not offered", "no tls"],
)
def test_bounce_of_requiretls_mail_goes_as_well_protected_as_it_can(tmp_path, options, is_tls, is_asked):
    """RFC 8689 section 5: with REQUIRETLS where that is offered; not discarded where it is not."""

    @scene(**options)
    async def test(s: Scene) -> None:
        s.rig.paths.replace_policies(make_policies('[default]\naddress_family = "v4"\ntls = "none"\n'))
        s.send(Demand(word=PREFERRED))
        await s.delivered()
        assert s.peer.messages[0][0] == is_tls
        assert s.peer.mails[0].startswith("MAIL FROM:<>")
        assert s.peer.mails[0].endswith(" REQUIRETLS") == is_asked

    test(tmp_path)


class Closing(TlsPeer):
    """Offers STARTTLS, says 220, and is gone, or answers with what is no TLS."""

    def __init__(self, words: bytes) -> None:
        super().__init__(None)
        self.words = words

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx ready\r\n")
        while line := (await reader.readline()).decode().strip():
            self.lines.append((False, line))
            if line.startswith("STARTTLS"):
                writer.write(b"220 go\r\n")
                await reader.read(1)
                writer.write(self.words)
                await writer.drain()
                return
            writer.write(b"250-mx\r\n250 STARTTLS\r\n" if line.startswith("EHLO") else b"250 ok\r\n")


@pytest.mark.parametrize(
    ("words", "expected"), [(b"", (451, "4.7.5")), (b"no TLS here\r\n" * 9, (550, "5.7.10"))]
)
def test_requiretls_mail_bounces_for_what_is_certain_and_waits_where_the_connection_was_lost(words, expected):
    """RFC 8689 section 4.2.1: in neither case does a word of it leave in clear."""
    peer = Closing(words)

    async def scenario(port: int) -> None:
        authority = Authority("Test Root")
        s = Scene(port, peer, authority, authority)
        s.send(Demand(is_secure=True, word=REQUIRED))
        assert await s.refused() == expected
        assert not [line for _, line in peer.lines if line.split(":")[0] in ("MAIL FROM", "RCPT TO", "DATA")]

    with serve_tls(peer, "127.0.0.1", 0) as port:
        on_uvloop(scenario(port))


@scene(has_tls=False)
async def test_tls_required_no_goes_in_clear_where_it_must(s: Scene) -> None:
    """RFC 8689 section 4.2.2."""
    s.records.found = ee(s.certificate)
    s.send(Demand(True, StsPolicy("enforce", ("elsewhere.example",), 1), OPTIONAL))
    await s.delivered()
    assert not s.peer.messages[0][0]


@scene(name="unrelated.example")
async def test_tls_required_no_still_uses_tls_where_it_can(s: Scene) -> None:
    """RFC 8689 section 4.2.2: "SHOULD negotiate STARTTLS with the server if available"."""
    s.send(Demand(sts=StsPolicy("enforce", ("elsewhere.example",), 1), word=OPTIONAL))
    await s.delivered()
    assert s.peer.messages[0][0]


@scene()
async def test_sessions_do_not_carry_mail_that_asks_for_more(s: Scene) -> None:
    """Two domains with one host, one demand more: two sessions, each of its own kind."""
    s.rig.paths.replace_policies(make_policies('[default]\naddress_family = "v4"\n'))
    s.send(Demand())
    await s.delivered()
    s.send(Demand(sts=StsPolicy("enforce", ("mx.example",), 1)))
    await s.delivered(2)
    assert s.rig.opened() == {"opened": 2}
    demands = {session.site_queues[0].site.demand.key for session in s.rig.opener.sessions}
    assert len(demands) == 2
