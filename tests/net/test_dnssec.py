"""The client of a validating resolver: unbound, with a zone that the test signs."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from engine.core.errors import ResolveTemporary
from engine.net.dnssec import ValidatingClient
from engine.net.resolver import Resolver
from engine.net.site import Host
from engine.net.tlsa import NO_TLSA, TlsaFinder
from tests.fakes.dns import GARBAGE, REFUSED, SERVFAIL, SILENT, TRUNCATED, FakeDNS
from tests.fakes.unbound import serve_zones

DIGEST = hashlib.sha256(b"key").hexdigest()
SIGNED = f"""\
acme            MX    10 mx1
acme            MX    20 mx.plain.example.
mx1             A     198.51.100.1
mx1             AAAA  2001:db8::1
_25._tcp.mx1    TLSA  3 1 1 {DIGEST}
_25._tcp.mx1    TLSA  2 0 2 {hashlib.sha512(b"ca").hexdigest()}
alias           CNAME mx1
nodane          A     198.51.100.2
away            CNAME mx.plain.example.
_25._tcp.away   TLSA  3 1 1 {DIGEST}
bogus           A     198.51.100.66
_25._tcp.bogus  TLSA  3 1 1 {DIGEST}
forged          MX    10 mx1
bare            A     198.51.100.4
_mta-sts.acme   TXT   "v=STSv1; " "id=1;"
"""
PLAIN = f"acme MX 10 mx.signed.example.\nmx A 198.51.100.3\n_25._tcp.mx TLSA 3 1 1 {DIGEST}\n"


def forge(zone: str) -> str:
    """Change data that is signed."""
    assert "198.51.100.66" in zone
    lines = []
    for line in zone.splitlines():
        if line.startswith("_25._tcp.bogus.") and "\tTLSA\t" in line and "RRSIG" not in line:
            line = line.replace(DIGEST, "00" * 32)
        if line.startswith("forged.") and "\tMX\t" in line and "RRSIG" not in line:
            line = line.replace("mx1", "evil")
        lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.fixture
def validating(stranger, tmp_path):
    zones = {"signed.example": SIGNED, "plain.example": PLAIN}
    with serve_zones(stranger, tmp_path, zones, signed=["signed.example"], tamper=forge) as port:
        yield port


@pytest.mark.stranger("unbound")
def test_answers_say_whether_dnssec_vouches_for_them(run, validating):
    """RFC 7672 section 2: MX, CNAME, address, TLSA, and their absence."""

    async def scenario() -> None:
        client = ValidatingClient("127.0.0.1", validating)
        mx = await client.ask("acme.signed.example", "MX")
        assert mx.is_secure
        assert sorted(mx.records) == [(10, "mx1.signed.example"), (20, "mx.plain.example")]
        assert mx.ttl_s == 600
        assert not (await client.ask("acme.plain.example", "MX")).is_secure
        alias = await client.ask("alias.signed.example", "A")
        assert (alias.is_secure, alias.canonical) == (True, "mx1.signed.example")
        assert alias.records == ((0, "198.51.100.1"),)
        away = await client.ask("away.signed.example", "A")  # the last link of the chain is not signed
        assert (away.is_secure, away.records) == (False, ((0, "198.51.100.3"),))
        txt = await client.ask("_mta-sts.acme.signed.example", "TXT")
        assert txt.records == ((0, "v=STSv1; id=1;"),)
        none = await client.ask("nodane.signed.example", "AAAA")
        assert (none.records, none.is_secure, none.is_missing) == ((), True, False)
        missing = await client.ask("gone.signed.example", "A")
        assert (missing.is_missing, missing.is_secure) == (True, True)
        with pytest.raises(ResolveTemporary, match="SERVFAIL"):
            await client.ask("forged.signed.example", "MX")
        assert client.counts == {"found": 5, "temporary": 1, "permanent": 2}

    run(scenario())


@pytest.mark.stranger("unbound")
def test_tlsa_records_count_only_where_every_answer_is_secure(run, validating):
    """RFC 7672 section 2.2."""

    async def scenario() -> None:
        finder = TlsaFinder(ValidatingClient("127.0.0.1", validating))
        found = await finder.find("mx1.signed.example", 25)
        assert found.base == "mx1.signed.example"
        assert sorted(record.usage for record in found.records) == [2, 3]
        assert (await finder.find("alias.signed.example", 25)).base == "mx1.signed.example"
        assert (await finder.find("away.signed.example", 25)).base == "away.signed.example"
        assert await finder.find("nodane.signed.example", 25) == NO_TLSA
        assert await finder.find("mx.plain.example", 25) == NO_TLSA
        assert await finder.find("mx1.signed.example", 587) == NO_TLSA
        with pytest.raises(ResolveTemporary):
            await finder.find("bogus.signed.example", 25)

    run(scenario())


@pytest.mark.stranger("unbound")
def test_resolver_knows_sites_that_dnssec_vouches_for(run, validating):
    async def scenario() -> None:
        resolver = Resolver(routes={}, prohibited=[], dns=ValidatingClient("127.0.0.1", validating))
        assert (await resolver.resolve("acme.signed.example")).is_secure
        assert (await resolver.resolve("bare.signed.example")).is_secure
        assert not (await resolver.resolve("acme.plain.example")).is_secure
        with pytest.raises(ResolveTemporary):
            await resolver.resolve("forged.signed.example")
        addresses = await resolver.addresses(Host("mx1.signed.example"), "prefer_v6")
        assert addresses == ["2001:db8::1", "198.51.100.1"]
        resolver.close()

    run(scenario())


@pytest.mark.parametrize("told", [SERVFAIL, REFUSED, GARBAGE, SILENT])
def test_what_is_no_answer_is_temporary(run, told):
    async def scenario() -> None:
        async with FakeDNS({("mx.example", "A"): told}) as server:
            with pytest.raises(ResolveTemporary):
                await ValidatingClient("127.0.0.1", server.port, timeout_s=0.1).ask("mx.example", "A")

    run(scenario())


def test_answer_without_the_ad_bit_is_not_secure(run):
    """RFC 7672 section 2.1.1: only the resolver's word counts, not that there are records."""

    async def scenario() -> None:
        async with FakeDNS({("mx.example", "A"): ["192.0.2.1"]}) as server:
            answer = await ValidatingClient("127.0.0.1", server.port).ask("mx.example", "A")
            assert (answer.is_secure, answer.records) == (False, ((0, "192.0.2.1"),))

    run(scenario())


def test_long_answer_comes_over_tcp(run):
    async def scenario() -> None:
        key = ("mx.example", "TLSA")
        over_tcp = {key: [f"3 1 1 {DIGEST}"]}
        async with FakeDNS({key: TRUNCATED}, over_tcp=over_tcp) as server:
            answer = await ValidatingClient("127.0.0.1", server.port).ask("mx.example", "TLSA")
            assert len(answer.records) == 1

    run(scenario())


def test_name_that_is_none_does_not_exist(run):
    async def scenario() -> None:
        assert (await ValidatingClient("127.0.0.1", 1).ask("a..b", "A")).is_missing
        assert (await ValidatingClient("127.0.0.1", 1).ask("x" * 64 + ".example", "A")).is_missing

    run(scenario())


def test_many_questions_at_once_are_answered(run):
    async def scenario() -> None:
        script = {(f"mx{number}.example", "A"): ["192.0.2.1"] for number in range(300)}
        async with FakeDNS(script) as server:
            client = ValidatingClient("127.0.0.1", server.port)
            answers = await asyncio.gather(*(client.ask(name, "A") for name, _ in script))
            assert all(answer.records for answer in answers)

    run(scenario())
