"""Spans of time in which there was backlog, and what happened within them.

Owns: arithmetic over instants, nothing else.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf

Spans = list[tuple[float, float]]  # half-open, ascending

SETTLE_S = 1.0  # paths may take so long to resolve, connect and greet before their allowance is due


def find_backlog(stays: Iterable[tuple[float, float]], most_held: int) -> Spans:
    """Return the spans in which more than `most_held` messages waited.

    Args:
        stays: (handed over, arrived) of each message.
        most_held: what sessions may hold at once; more than that is backlog.
    """
    events = []
    for handed_over, arrived in stays:
        events += [(handed_over, 1), (max(arrived, handed_over), -1)]
    spans: Spans = []
    waiting = 0
    since: float | None = None
    for at, change in sorted(events):
        waiting += change
        if waiting > most_held and since is None:
            since = at
        elif waiting <= most_held and since is not None:
            spans.append((since, at))
            since = None
    return spans


def drop_start(spans: Spans, settle_s: float = SETTLE_S) -> Spans:
    """Take away what lies within `settle_s` of the first start: paths open then."""
    if not spans:
        return []
    begins = spans[0][0] + settle_s
    return [(max(start, begins), end) for start, end in spans if end > begins]


def drop_short(spans: Spans, shortest_s: float) -> Spans:
    """Take away spans that are too short to judge an allowance in."""
    return [(start, end) for start, end in spans if end - start >= shortest_s]


def length_s(spans: Spans) -> float:
    """Return how long the spans are together."""
    return sum(end - start for start, end in spans)


def count_within(instants: Sequence[float], spans: Spans) -> int:
    """Return how many of the instants, which ascend, lie within the spans."""
    return sum(bisect_left(instants, end) - bisect_left(instants, start) for start, end in spans)


def connection_seconds(edges: Sequence[tuple[float, int]], spans: Spans) -> float:
    """Return connections times seconds within the spans.

    Args:
        edges: (instant, connections open from then on), ascending.
    """
    total = 0.0
    for (at, is_open), (until, _) in pairwise([*edges, (inf, 0)]):
        total += is_open * sum(max(0.0, min(until, end) - max(at, start)) for start, end in spans)
    return total
