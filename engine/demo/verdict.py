"""The sinks' account against the scenario: each thing that disagrees is a finding in words.

Judged: nothing lost, nothing twice, nothing that was never handed over, nothing refused; each customer's
mail from its own sources, under their EHLO names, at the right sink; no path over its rate in any half-open
window, or over its connections at any instant; each limit that binds used for `ENOUGH` of what it allows
while there is backlog (uses).

Owns: what "agrees" means.
Never: reads a clock or a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.core.units import format_rate
from engine.demo.account import Account, Copy
from engine.demo.scenario import Destination, Scenario
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
    for destination in scenario.destinations:
        findings += _find_breaches(
            destination, [path for path in paths if path.destination == destination.name]
        )
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


def _find_breaches(destination: Destination, paths: Sequence[PathUse]) -> list[str]:
    """No path does more than the limits of a destination say, and each does nearly all of it."""
    rate, most = destination.rate, destination.max_connections
    findings = _report(
        f"paths over max_connections = {most} of {destination.name}",
        [f"{path.source} had {path.highest_open}" for path in paths if path.highest_open > most],
    )
    if rate is None:
        unfilled = [f"{path.source} had {path.highest_open}" for path in paths if path.highest_open < most]
        findings += _report(f"paths that never had the {most} connections of {destination.name}", unfilled)
    else:
        over = [f"{path.source} sent {path.highest_rate}" for path in paths if path.highest_rate > rate.count]
        findings += _report(f"paths over {format_rate(rate)} of {destination.name}", over)
    wasteful = [
        f"{path.source} used {path.used:.1%} in {path.backlog_s:.1f} s of backlog"
        for path in paths
        if path.used + _edge(destination, path) < ENOUGH
    ]
    return findings + _report(f"paths used less than {ENOUGH:.0%} of {destination.name}", wasteful)


def _edge(destination: Destination, path: PathUse) -> float:
    """Return what one message at the edges of a span is worth."""
    if destination.rate is None or not path.backlog_s:
        return 0.0
    return EDGE_MESSAGES / (destination.rate.per_s * path.backlog_s)


def _count_sources(scenario: Scenario, account: Account) -> list[SourceCount]:
    rows = []
    for (source, ehlo), messages in account.seen.items():
        owner = scenario.customer_at.get(source)
        rows.append(SourceCount(owner.name if owner else "", source, ehlo, messages))
    return sorted(rows)


def _report(what: str, examples: Sequence[str]) -> list[str]:
    """Return one finding for all examples of a kind; none where there are none."""
    if not examples:
        return []
    more = f" and {len(examples) - EXAMPLES:,} more" if len(examples) > EXAMPLES else ""
    return [f"{len(examples):,} {what}: {', '.join(examples[:EXAMPLES])}{more}"]


def _name(key: Key) -> str:
    return f"{key[0]} for {key[1]}"
