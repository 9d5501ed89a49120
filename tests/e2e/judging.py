"""Judges what reached the sink against what was promised. Pure: values in, findings out.

Owns: what "over by one", "used" and "duplicate of a kill" mean, by the sink's clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise

from tests.e2e.sink_process import Arrival, Link


def peak_connections(links: Iterable[Link]) -> dict[tuple[str, str], int]:
    """Return the most connections open at once for each (listen, source), from accept to end of file."""
    now_open: dict[tuple[str, str], int] = defaultdict(int)
    peaks: dict[tuple[str, str], int] = defaultdict(int)
    for link in links:
        key = (link.listen, link.source)
        now_open[key] += link.change
        peaks[key] = max(peaks[key], now_open[key])
    return dict(peaks)


def instants_by_path(arrivals: Iterable[Arrival]) -> dict[tuple[str, str], list[float]]:
    """Return when each (listen, source) read an end-of-message, refused ones included."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for arrival in arrivals:
        found[arrival.listen, arrival.source].append(arrival.at)
    return {key: sorted(instants) for key, instants in found.items()}


def used_share(
    instants: Sequence[float], count: int, window_s: float, spans: Iterable[tuple[float, float]]
) -> float:
    """Return which part of count/window_s was used over the spans in which there was backlog."""
    used = allowed = 0.0
    for begin, end in spans:
        used += sum(begin <= instant < end for instant in instants)
        allowed += (end - begin) * count / window_s
    return used / allowed if allowed else 1.0


def copies(arrivals: Iterable[Arrival]) -> dict[tuple[str, str], list[float]]:
    """Return when each (id, recipient) was taken, ascending."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.is_taken:
            for recipient in arrival.recipients:
                found[arrival.id, recipient].append(arrival.at)
    return {key: sorted(instants) for key, instants in found.items()}


def unexplained_duplicates(
    taken: Mapping[Hashable, Sequence[float]], kills: Sequence[float], within_s: float
) -> list[tuple[Hashable, Sequence[float]]]:
    """Return the messages of which an earlier copy came when no kill followed within `within_s`."""
    return [
        (key, instants)
        for key, instants in taken.items()
        if any(not any(0.0 <= kill - first <= within_s for kill in kills) for first, _ in pairwise(instants))
    ]


def open_share(
    links: Iterable[Link], listen: str, source: str, limit: int, spans: Sequence[tuple[float, float]]
) -> float:
    """Return which part of `limit` connections was open over the spans, on average over time."""
    changes = [(link.at, link.change) for link in links if (link.listen, link.source) == (listen, source)]
    used = 0.0
    for begin, end in spans:
        now_open, since = 0, begin
        for at, change in changes:
            if begin < at < end:
                used += now_open * (at - since)
                since = at
            if at < end:
                now_open += change
        used += now_open * (end - since)
    allowed = limit * sum(end - begin for begin, end in spans)
    return used / allowed if allowed else 1.0
