"""TLSA records of mail hosts: where they stand, and when they count (RFC 7672 section 2)."""

from __future__ import annotations

import asyncio

import pytest

from engine.core.errors import ResolveTemporary
from engine.net.dns import Answer
from engine.net.tlsa import NO_TLSA, TlsaFinder

DATA = "3 1 1 " + "ab" * 32
A = Answer(((0, "192.0.2.1"),), 300.0, is_secure=True, canonical="mx.example")
TLSA = Answer(((0, DATA),), 300.0, is_secure=True)
NODATA = Answer(is_secure=True, canonical="mx.example")


class Questions:
    """DNS from a dict; what is not in it does not exist, and securely so."""

    counts: dict[str, int] = {}

    def __init__(self, script):
        self.script = script
        self.asked = []

    async def ask(self, name, record_type):
        self.asked.append((name, record_type))
        told = self.script.get((name, record_type), Answer(is_missing=True, is_secure=True))
        if isinstance(told, Exception):
            raise told
        return told

    def close(self):
        pass


def find(script, host="mx.example", port=25):
    return asyncio.run(TlsaFinder(Questions(script)).find(host, port))


BOGUS = ResolveTemporary("x", "SERVFAIL")


def test_records_stand_below_port_and_host():
    """RFC 7672 section 2.2.3."""
    found = find(
        {("mx.example", "A"): A, ("mx.example", "AAAA"): NODATA, ("_25._tcp.mx.example", "TLSA"): TLSA}
    )
    assert [str(record) for record in found.records] == [DATA]
    assert found.base == "mx.example"


def test_record_that_is_not_secure_does_not_count():
    insecure = Answer(((0, DATA),), 300.0)
    assert find({("mx.example", "A"): A, ("_25._tcp.mx.example", "TLSA"): insecure}) == NO_TLSA


def test_host_whose_address_is_not_secure_is_not_asked_for_records():
    """RFC 7672 section 2.2.2."""
    questions = Questions({("mx.example", "A"): Answer(((0, "192.0.2.1"),), 300.0)})
    assert asyncio.run(TlsaFinder(questions).find("mx.example", 25)) == NO_TLSA
    assert not [name for name, record_type in questions.asked if record_type == "TLSA"]


def test_secure_absence_is_no_dane():
    assert find({("mx.example", "A"): A}) == NO_TLSA


@pytest.mark.parametrize(
    "script",
    [
        {("mx.example", "A"): A, ("_25._tcp.mx.example", "TLSA"): BOGUS},
        {("mx.example", "A"): BOGUS, ("mx.example", "AAAA"): BOGUS},
        {("mx.example", "A"): BOGUS},
    ],
)
def test_bogus_answer_is_no_absence(script):
    """RFC 7672 section 2.1.2: the host can't be used; mail is deferred."""
    with pytest.raises(ResolveTemporary):
        find(script)


def test_one_family_may_fail_where_the_other_answers():
    script = {("mx.example", "A"): A, ("mx.example", "AAAA"): BOGUS, ("_25._tcp.mx.example", "TLSA"): TLSA}
    assert find(script).base == "mx.example"


def test_alias_has_its_records_at_the_name_behind_it_first():
    """RFC 7672 section 2.2.2: the fully CNAME-expanded name, then the MX host's own."""
    alias = Answer(A.records, 300.0, is_secure=True, canonical="real.example")
    script = {
        ("mx.example", "A"): alias,
        ("_25._tcp.real.example", "TLSA"): TLSA,
        ("_25._tcp.mx.example", "TLSA"): TLSA,
    }
    assert find(script).base == "real.example"
    del script["_25._tcp.real.example", "TLSA"]
    assert find(script).base == "mx.example"


@pytest.mark.parametrize("is_secure", [True, False])
def test_signed_alias_that_leads_out_of_what_is_signed_has_its_own_records(is_secure):
    """RFC 7672 section 2.2.2: the CNAME itself is asked for, and must be secure."""
    script = {
        ("mx.example", "A"): Answer(A.records, 300.0, canonical="mx.plain.example"),
        ("mx.example", "CNAME"): Answer(is_secure=is_secure, canonical="mx.plain.example"),
        ("_25._tcp.mx.example", "TLSA"): TLSA,
        ("_25._tcp.mx.plain.example", "TLSA"): TLSA,
    }
    assert find(script).base == ("mx.example" if is_secure else "")


def test_alias_whose_own_record_is_bogus_is_not_used():
    """RFC 7672 section 2.1.2."""
    with pytest.raises(ResolveTemporary):
        find(
            {
                ("mx.example", "A"): Answer(A.records, 300.0, canonical="mx.plain.example"),
                ("mx.example", "CNAME"): BOGUS,
            }
        )


def test_records_are_kept_within_bounds_of_their_ttl():
    now = 0.0
    questions = Questions({("mx.example", "A"): A, ("_25._tcp.mx.example", "TLSA"): TLSA})
    finder = TlsaFinder(questions, clock=lambda: now)

    async def scenario():
        nonlocal now
        for moment in (0.0, 299.0, 301.0):
            now = moment
            await finder.find("mx.example", 25)

    asyncio.run(scenario())
    assert questions.asked.count(("_25._tcp.mx.example", "TLSA")) == 2


def test_unreadable_record_is_there_and_unusable():
    """RFC 7672 section 2.2: it still makes TLS mandatory."""
    rubbish = Answer(((0, "rubbish"),), 300.0, is_secure=True)
    (record,) = find({("mx.example", "A"): A, ("_25._tcp.mx.example", "TLSA"): rubbish}).records
    assert not record.is_usable


def test_lookups_are_counted_by_result():
    questions = Questions(
        {
            ("mx.example", "A"): A,
            ("_25._tcp.mx.example", "TLSA"): TLSA,
            ("plain.example", "A"): Answer(A.records, 300.0, is_secure=True),
            ("insecure.example", "A"): Answer(((0, "192.0.2.1"),), 300.0),
            ("bogus.example", "A"): BOGUS,
            ("bogus.example", "AAAA"): BOGUS,
        }
    )
    finder = TlsaFinder(questions)

    async def scenario():
        for host in ("mx", "mx", "plain", "insecure"):
            await finder.find(f"{host}.example", 25)
        with pytest.raises(ResolveTemporary):
            await finder.find("bogus.example", 25)

    asyncio.run(scenario())
    assert finder.counts == {"found": 1, "none": 1, "insecure": 1, "failed": 1}
