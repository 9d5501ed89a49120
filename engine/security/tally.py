"""Outcomes of TLS, counted for the reports that recipient domains ask for.

A *day* is a whole UTC day, as days since 1970. What is counted is sessions: one that carried mail of three
domains counts once for each of them.

Owns: what is counted under what, and the bounds on it; adding up what several shards have counted.
Never: keeps it on disk, knows who wants a report.
Source: RFC 8460 sections 4.3 and 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

MAX_DOMAINS = 50_000  # with what each counts, some 50 MB at worst; further domains go uncounted that day
MAX_FAILURES = 100  # kinds of failure of one policy; further ones are only added to its sum

DAY_S = 86400

# Result types of RFC 8460 sections 4.3.2.1 and 4.3.2.2; those of any session are in net.tls.
DNSSEC_INVALID = "dnssec-invalid"
STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
STS_POLICY_INVALID = "sts-policy-invalid"
STS_WEBPKI_INVALID = "sts-webpki-invalid"
TLSA_INVALID = "tlsa-invalid"  # records, and none that could be used


class PolicyFacts(msgspec.Struct, frozen=True, array_like=True):
    """The policy that a session was held to, as a report tells it."""

    kind: str  # tlsa | sts | no-policy-found
    lines: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()  # the patterns of an sts policy


NO_POLICY = PolicyFacts("no-policy-found")


class FailureFacts(msgspec.Struct, frozen=True, array_like=True):
    """One kind of failure."""

    result: str  # a result type
    source: str = ""  # our address
    host: str = ""  # the MX host
    address: str = ""
    reason: str = ""


class PolicyCounts(msgspec.Struct, array_like=True):
    """What happened under one policy of one domain on one day."""

    successes: int = 0
    failures: int = 0
    kinds: list[tuple[FailureFacts, int]] = []

    def add_failure(self, facts: FailureFacts, count: int = 1) -> None:
        """Count failures of one kind."""
        self.failures += count
        for index, (known, so_far) in enumerate(self.kinds):
            if known == facts:
                self.kinds[index] = (known, so_far + count)
                return
        if len(self.kinds) < MAX_FAILURES:
            self.kinds.append((facts, count))

    def merge(self, other: PolicyCounts) -> None:
        """Add what another shard has counted."""
        self.successes += other.successes
        self.failures += other.failures
        for facts, count in other.kinds:
            self.failures -= count
            self.add_failure(facts, count)


DomainCounts = dict[PolicyFacts, PolicyCounts]


class _Row(msgspec.Struct, array_like=True):
    domain: str
    policy: PolicyFacts
    counts: PolicyCounts


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Row]).decode


class Tally:
    """The counts of one day."""

    def __init__(self) -> None:
        self._domains: dict[str, DomainCounts] = {}
        self.changes = 0
        self.uncounted = 0  # sessions of domains that there was no room for

    def __len__(self) -> int:
        return len(self._domains)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._domains))

    def of(self, domain: str) -> DomainCounts:
        """Return what was counted for a domain."""
        return self._domains.get(domain, {})

    def succeed(self, domain: str, policy: PolicyFacts) -> None:
        """Count a session whose TLS was what the domain asks for."""
        counts = self._counts(domain, policy)
        if counts is not None:
            counts.successes += 1

    def fail(self, domain: str, policy: PolicyFacts, facts: FailureFacts) -> None:
        """Count a session whose TLS was not."""
        counts = self._counts(domain, policy)
        if counts is not None:
            counts.add_failure(facts)

    def merge(self, other: Tally) -> None:
        """Add what another shard has counted of the same day."""
        for domain, policies in other._domains.items():
            for policy, counts in policies.items():
                ours = self._counts(domain, policy)
                if ours is not None:
                    ours.merge(counts)

    def export(self) -> bytes:
        """Return all of it as octets."""
        return _encode(
            [
                _Row(domain, policy, counts)
                for domain, policies in self._domains.items()
                for policy, counts in policies.items()
            ]
        )

    def _counts(self, domain: str, policy: PolicyFacts) -> PolicyCounts | None:
        self.changes += 1
        policies = self._domains.get(domain)
        if policies is None:
            if len(self._domains) >= MAX_DOMAINS:
                self.uncounted += 1
                return None
            policies = self._domains[domain] = {}
        return policies.setdefault(policy, PolicyCounts())


def import_tally(octets: bytes) -> Tally:
    """Return the tally that `export` made octets of.

    Raises:
        ValueError: they are none.
    """
    tally = Tally()
    try:
        rows: Iterable[_Row] = _decode(octets)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no tally: {error}") from error
    for row in rows:
        tally._domains.setdefault(row.domain, {})[row.policy] = row.counts
    return tally


def day_of(unix: float) -> int:
    """Return the UTC day of an instant."""
    return int(unix) // DAY_S
