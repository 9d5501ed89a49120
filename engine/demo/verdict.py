"""The sinks' account against the scenario: each thing that disagrees is a finding in words.

Judged: nothing lost, nothing twice, nothing that was never handed over, nothing refused; each customer's
mail from its own sources, under their EHLO names, at the right sink; no path over its rate in any half-open
window, or over its connections at any instant; each limit that binds used for `ENOUGH` of what it allows
while there is backlog (uses).

Owns: what "agrees" means.
Never: reads a clock or a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.core.units import format_rate
from engine.demo.account import Account, Copy
from engine.demo.scenario import Scenario
from engine.demo.uses import HandedOver, Key, PathUse, measure_paths

EXAMPLES = 3  # of each kind of finding that are named; all are counted
ENOUGH = 0.95  # of each allowance
EDGE_MESSAGES = 1  # a span may begin just after a message and end just before the next


class SourceCount(NamedTuple):
    """What came from one source address under one EHLO name."""

    customer: str  # "" where the address is nobody's
    source: str
    ehlo: str
    messages: int


class Verdict(NamedTuple):
    """What the sinks say about a run."""

    findings: list[str]
    handed_over: int
    arrived: int
    lost: int
    duplicates: int
    sources: list[SourceCount]
    paths: list[PathUse]

    @property
    def is_good(self) -> bool:
        """Do the sinks agree with everything that the engine promised?"""
        return not self.findings


def judge(
    scenario: Scenario, account: Account, handed_over: HandedOver, shards: Mapping[str, int]
) -> Verdict:
    """Return the verdict.

    Args:
        handed_over: when each (id, recipient) was accepted, as the feeds have it on record.
        shards: source address -> the shard that owns its vmta.
    """
    copies = account.copies
    paths = measure_paths(scenario, account, handed_over, shards)
    findings = _compare_fates(scenario, account, handed_over)
    findings += _find_strays(scenario, copies)
    for path in paths:
        findings += _find_excess(scenario, path)
        findings += _find_waste(scenario, path)
    return Verdict(
        findings,
        len(handed_over),
        sum(len(found) for found in copies.values()),
        sum(key not in copies for key in handed_over),
        sum(len(found) - 1 for found in copies.values()),
        _count_sources(scenario, account),
        paths,
    )


def _compare_fates(scenario: Scenario, account: Account, handed_over: HandedOver) -> list[str]:
    """Each message that was handed over arrives once, and nothing else does."""
    copies = account.copies
    findings = [
        *_report("lost", [_name(key) for key in handed_over if key not in copies]),
        *_report("delivered more than once", [_name(key) for key, found in copies.items() if len(found) > 1]),
        *_report("delivered, never handed over", [_name(key) for key in copies if key not in handed_over]),
    ]
    if len(handed_over) != scenario.messages:
        findings.append(f"{len(handed_over):,} of {scenario.messages:,} messages were handed over")
    if account.refused:
        findings.append(f"{account.refused:,} messages refused by the sinks, which refuse nothing")
    return findings


def _find_strays(scenario: Scenario, copies: Mapping[Key, Sequence[Copy]]) -> list[str]:
    """Each copy comes from its customer's sources, under their names, to its domain's sink."""
    sources: list[str] = []
    names: list[str] = []
    sinks: list[str] = []
    for key, found in copies.items():
        customer = key[0].partition("-")[0]
        host = scenario.host_of.get(key[1].partition("@")[2], "")
        for copy in found:
            owner = scenario.customer_at.get(copy.source)
            if owner is None or owner.name != customer:
                sources.append(f"{_name(key)} from {copy.source}")
            elif scenario.vmta_at[copy.source].hostname != copy.ehlo:
                names.append(f"{_name(key)} from {copy.source} as {copy.ehlo!r}")
            if copy.listen != host:
                sinks.append(f"{_name(key)} at {copy.listen}")
    return [
        *_report("from a source that is not its customer's", sources),
        *_report("under a wrong EHLO name", names),
        *_report("delivered at a wrong sink", sinks),
    ]


def _find_excess(scenario: Scenario, path: PathUse) -> list[str]:
    destination = scenario.destination_named[path.destination]
    findings = []
    if destination.rate is not None and path.highest_rate > destination.rate.count:
        findings.append(
            f"{path}: {path.highest_rate} messages in a window of {destination.rate.window_s:g} s, "
            f"allowed {format_rate(destination.rate)}"
        )
    if path.highest_open > destination.max_connections:
        findings.append(f"{path}: {path.highest_open} connections, allowed {destination.max_connections}")
    return findings


def _find_waste(scenario: Scenario, path: PathUse) -> list[str]:
    destination = scenario.destination_named[path.destination]
    if not path.backlog_s:
        return [f"{path}: never had backlog, so that its limit did not bind"]
    edge = 0.0
    if destination.rate is None:
        if path.highest_open < destination.max_connections:
            return [f"{path}: {path.highest_open} of {destination.max_connections} connections at most"]
    else:
        edge = EDGE_MESSAGES / (destination.rate.per_s * path.backlog_s)
    if path.used + edge < ENOUGH:
        return [
            f"{path}: {path.used:.1%} of its allowance used in {path.backlog_s:.1f} s of backlog, "
            f"at least {ENOUGH:.0%} expected"
        ]
    return []


def _count_sources(scenario: Scenario, account: Account) -> list[SourceCount]:
    counts: Counter[SourceCount] = Counter()
    for (source, ehlo), messages in account.seen.items():
        owner = scenario.customer_at.get(source)
        counts[SourceCount(owner.name if owner else "", source, ehlo, messages)] += 1
    return sorted(counts)


def _report(what: str, examples: Sequence[str]) -> list[str]:
    """Return one finding for all examples of a kind; none where there are none."""
    if not examples:
        return []
    more = f" and {len(examples) - EXAMPLES:,} more" if len(examples) > EXAMPLES else ""
    return [f"{len(examples):,} {what}: {', '.join(examples[:EXAMPLES])}{more}"]


def _name(key: Key) -> str:
    return f"{key[0]} for {key[1]}"
