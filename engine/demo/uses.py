"""How each path stood against its limits: the most it ever did, and how much of its allowance it used.

A message belongs to one shard from its acceptance on, so what a path could have sent is what waited on its
shard: messages of its customer for its destination, handed over already, that later arrived from a source
of that shard. There is backlog while that is more than the sessions of all these paths can hold at once,
for a window of the destination's rate at least.

Owns: these definitions.
Never: says how much is enough (verdict does).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from engine.demo.account import Account, PathAccount
from engine.demo.backlog import (
    Spans,
    connection_seconds,
    count_within,
    drop_short,
    drop_start,
    find_backlog,
    length_s,
)
from engine.demo.scenario import Destination, Scenario
from engine.rig.tally import highest_in_window

Key = tuple[str, str]  # (id, recipient) of a message
HandedOver = Mapping[Key, float]  # monotonic instant

SHORTEST_S = 1.0  # of a span of backlog where no rate says a window; shorter ones judge only their edges

_Group = tuple[str, str, int]  # customer, destination, shard


class PathUse(NamedTuple):
    """One path measured against its limits."""

    customer: str
    source: str
    destination: str
    messages: int
    highest_rate: int  # in any window of the destination's rate; 0 where it has none
    highest_open: int
    backlog_s: float
    used: float  # share of the binding allowance while there was backlog


def measure_paths(
    scenario: Scenario, account: Account, handed_over: HandedOver, shards: Mapping[str, int]
) -> list[PathUse]:
    """Return every path that the scenario has or the sinks saw."""
    backlogs = _find_backlogs(scenario, account, handed_over, shards)
    expected = [(source, each.name) for each in scenario.destinations for source in scenario.vmta_at]
    strangers = [key for key in account.paths if key not in set(expected)]
    return [
        _measure(scenario, account.path(*key), key, backlogs.get(_group(scenario, key, shards), []))
        for key in expected + strangers
    ]


def _measure(scenario: Scenario, path: PathAccount, key: tuple[str, str], spans: Spans) -> PathUse:
    source, name = key
    destination = scenario.destination_named[name]
    rate = destination.rate
    owner = scenario.customer_at.get(source)
    return PathUse(
        owner.name if owner else "",
        source,
        name,
        len(path.instants),
        highest_in_window(path.instants, rate.window_s) if rate else 0,
        path.peak_open,
        length_s(spans),
        _share_used(path, destination, spans),
    )


def _share_used(path: PathAccount, destination: Destination, spans: Spans) -> float:
    backlog_s = length_s(spans)
    if not backlog_s:
        return 0.0
    if destination.rate is None:
        allowed = destination.max_connections * backlog_s
        return connection_seconds(path.edges, spans) / allowed
    return count_within(path.instants, spans) / (destination.rate.per_s * backlog_s)


def _find_backlogs(
    scenario: Scenario, account: Account, handed_over: HandedOver, shards: Mapping[str, int]
) -> dict[_Group, Spans]:
    waited: defaultdict[_Group, list[tuple[float, float]]] = defaultdict(list)
    for key, copies in account.copies.items():
        destination = scenario.destination_of.get(key[1].partition("@")[2])
        if destination is not None and key in handed_over:
            group = _group(scenario, (copies[0].source, destination.name), shards)
            waited[group].append((handed_over[key], copies[0].at))
    backlogs = {}
    for group, stays in waited.items():
        spans = drop_start(find_backlog(stays, _most_held(scenario, group, shards)))
        rate = scenario.destination_named[group[1]].rate
        backlogs[group] = drop_short(spans, rate.window_s if rate else SHORTEST_S)
    return backlogs


def _most_held(scenario: Scenario, group: _Group, shards: Mapping[str, int]) -> int:
    """Return how many messages the sessions of a group's paths can hold."""
    customer, destination, shard = group
    paths = sum(
        owner.name == customer and shards.get(source) == shard
        for source, owner in scenario.customer_at.items()
    )
    return paths * scenario.destination_named[destination].max_connections


def _group(scenario: Scenario, key: tuple[str, str], shards: Mapping[str, int]) -> _Group:
    owner = scenario.customer_at.get(key[0])
    return (owner.name if owner else "", key[1], shards.get(key[0], -1))
