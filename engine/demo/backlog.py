"""When a path had backlog, and how much of its allowance it used meanwhile.

A message belongs to one shard from its acceptance, so what a path could have sent is what waited on its
shard: messages of its customer for its destination, handed over already, that later arrived from a source
of that shard. There is backlog while that is more than the sessions of all those paths can hold at once.

Owns: these two definitions.
Never: says how much is enough (verdict does).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

Spans = list[tuple[float, float]]

SETTLE_S = 1.0  # a path may take so long to resolve, connect and greet before its allowance is due


def find_backlog(handed_over: Iterable[float], arrived: Iterable[float], floor: int) -> Spans:
    """Return the spans in which more than `floor` messages had been handed over but had not arrived.

    Args:
        handed_over: instants, one for each message.
        arrived: instants, one for each of the same messages.
        floor: what all sessions together may hold.
    """
    events = sorted([(at, 1) for at in handed_over] + [(at, -1) for at in arrived])
    spans: Spans = []
    waiting, since = 0, None
    for at, change in events:
        waiting += change
        if waiting > floor and since is None:
            since = at
        elif waiting <= floor and since is not None:
            spans.append((since, at))
            since = None
    return spans


def drop_start(spans: Spans, settle_s: float = SETTLE_S) -> Spans:
    """Take the first `settle_s` away from the first span: paths open then."""
    if not spans:
        return []
    begins = spans[0][0] + settle_s
    return [(max(start, begins), end) for start, end in spans if end > begins]


def length_s(spans: Spans) -> float:
    """Return how long the spans are together."""
    return sum(end - start for start, end in spans)


def count_within(instants: Sequence[float], spans: Spans) -> int:
    """Return how many instants, ascending, lie within half-open spans."""
    return sum(bisect_left(instants, end) - bisect_left(instants, start) for start, end in spans)


def connection_seconds(edges: Sequence[tuple[float, int]], spans: Spans) -> float:
    """Return the sum of connections times seconds within the spans.

    Args: edges: (instant, connections open from then on), ascending.
    """
    total = 0.0
    for position, (at, is_open) in enumerate(edges):
        until = edges[position + 1][0] if position + 1 < len(edges) else float("inf")
        for start, end in spans:
            total += is_open * max(0.0, min(until, end) - max(at, start))
    return total
