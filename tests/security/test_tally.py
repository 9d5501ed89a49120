"""Counting outcomes of TLS (RFC 8460 sections 4.3 and 4.4)."""

from __future__ import annotations

import pytest

from engine.security import tally as tally_module
from engine.security.tally import NO_POLICY, FailureFacts, PolicyFacts, Tally, day_of, import_tally

STS = PolicyFacts("sts", ("version: STSv1", "mode: testing"), ("mx.example",))
EXPIRED = FailureFacts("certificate-expired", "192.0.2.1", "mx.example", "198.51.100.1")


def counted() -> Tally:
    tally = Tally()
    tally.succeed("example", STS)
    tally.succeed("example", STS)
    tally.fail("example", STS, EXPIRED)
    tally.succeed("other.example", NO_POLICY)
    return tally


def test_sessions_are_counted_by_domain_and_policy():
    tally = counted()
    tally.fail("example", STS, EXPIRED)
    tally.fail("example", STS, FailureFacts("starttls-not-supported"))
    counts = tally.of("example")[STS]
    assert (counts.successes, counts.failures) == (2, 3)
    assert counts.kinds == [(EXPIRED, 2), (FailureFacts("starttls-not-supported"), 1)]
    assert list(tally) == ["example", "other.example"]
    assert tally.of("unknown.example") == {}


def test_shards_add_up():
    total = counted()
    total.merge(counted())
    counts = total.of("example")[STS]
    assert (counts.successes, counts.failures, counts.kinds) == (4, 2, [(EXPIRED, 2)])


def test_what_is_exported_is_read_back():
    tally = import_tally(counted().export())
    assert list(tally) == ["example", "other.example"]
    assert tally.of("example") == counted().of("example")


@pytest.mark.parametrize("octets", [b"", b"\xc1", b"\x91\x01", b"\x81\xa1a\x01"])
def test_what_was_not_exported_is_refused(octets):
    with pytest.raises(ValueError, match="no tally"):
        import_tally(octets)


def test_domains_past_the_bound_are_counted_as_uncounted(monkeypatch):
    monkeypatch.setattr(tally_module, "MAX_DOMAINS", 1)
    tally = counted()
    assert list(tally) == ["example"]
    assert tally.uncounted == 1


def test_kinds_of_failure_past_the_bound_are_only_summed(monkeypatch):
    monkeypatch.setattr(tally_module, "MAX_FAILURES", 1)
    tally = counted()
    tally.fail("example", STS, FailureFacts("starttls-not-supported"))
    counts = tally.of("example")[STS]
    assert (counts.failures, counts.kinds) == (2, [(EXPIRED, 1)])
    counts.merge(counts.__class__(0, 5, [(FailureFacts("x"), 5)]))
    assert counts.failures == 7


def test_a_day_is_a_utc_day():
    assert day_of(86399.9) == 0
    assert day_of(86400.0) == 1
