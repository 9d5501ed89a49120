"""What the sink counts, and how it judges limits.

A *flow* is (listening address, source address, recipient domain): what a path looks like from outside.
Instants are monotonic seconds at the reading of end-of-message, refused messages included.

Owns: seen (id, recipient) pairs, arrival instants per flow, simultaneous connections per (listen, source).
Never: reads a clock; the receiver hands instants in.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

KEPT_EXAMPLES = 100  # duplicates named in the report; all of them are counted


class Link:
    """Connections between one listening address and one source address."""

    __slots__ = ("ehlos", "listen", "messages", "now_open", "opened", "peak", "source")

    def __init__(self, listen: str, source: str) -> None:
        self.listen = listen
        self.source = source
        self.now_open = self.peak = self.opened = self.messages = 0
        self.ehlos: Counter[str] = Counter()


class Flow:
    """Messages of one (listen, source, domain), with the instant of each."""

    __slots__ = ("domain", "instants", "listen", "source")

    def __init__(self, listen: str, source: str, domain: str) -> None:
        self.listen = listen
        self.source = source
        self.domain = domain
        self.instants = array("d")


class Tally:
    """The sink's account of everything that reached it."""

    def __init__(self) -> None:
        self.links: dict[tuple[str, str], Link] = {}
        self.flows: dict[tuple[str, str, str], Flow] = {}
        self.seen: set[bytes] = set()
        self.duplicates: list[str] = []
        self.duplicate_count = 0
        self.messages = self.unidentified = self.octets = 0
        self.now_open = self.peak_open = 0
        self.refused: Counter[int] = Counter()
        self.latencies_s = array("d")
        self.first_at = self.last_at = 0.0

    def open_link(self, listen: str, source: str) -> Link:
        """Count an accepted connection."""
        link = self.links.get((listen, source))
        if link is None:
            link = self.links[listen, source] = Link(listen, source)
        link.opened += 1
        link.now_open += 1
        link.peak = max(link.peak, link.now_open)
        self.now_open += 1
        self.peak_open = max(self.peak_open, self.now_open)
        return link

    def close_link(self, link: Link) -> None:
        """Count a connection's end: the peer's EOF or our own close, whichever came first."""
        link.now_open -= 1
        self.now_open -= 1

    def flow(self, listen: str, source: str, domain: str) -> Flow:
        """Return the flow, made on first use."""
        key = (listen, source, domain)
        found = self.flows.get(key)
        if found is None:
            found = self.flows[key] = Flow(listen, source, domain)
        return found

    def take(self, test_id: bytes, recipients: Iterable[bytes], sent_at: float, now: float) -> None:
        """Count an accepted message; each recipient of each id may be seen once."""
        self.messages += 1
        if not self.first_at:
            self.first_at = now
        self.last_at = now
        if not test_id:
            self.unidentified += 1
            return
        if sent_at:
            self.latencies_s.append(now - sent_at)
        seen = self.seen
        for recipient in recipients:
            before = len(seen)
            seen.add(test_id + b" " + recipient)
            if len(seen) == before:
                self._note_duplicate(test_id + b" " + recipient)

    def _note_duplicate(self, key: bytes) -> None:
        self.duplicate_count += 1
        if len(self.duplicates) < KEPT_EXAMPLES:
            self.duplicates.append(key.decode("latin-1"))

    def report(self, windows_s: Sequence[float] = ()) -> dict[str, Any]:
        """Return the account as plain values; `windows_s`: windows in which the highest count is sought."""
        elapsed = self.last_at - self.first_at
        return {
            "messages": self.messages,
            "unique": len(self.seen),
            "duplicates": self.duplicate_count,
            "duplicate_examples": self.duplicates,
            "unidentified": self.unidentified,
            "octets": self.octets,
            "refused": {str(code): count for code, count in self.refused.items()},
            "first_at": self.first_at,
            "last_at": self.last_at,
            "rate_per_s": round((self.messages - 1) / elapsed, 1) if elapsed > 0 else 0.0,
            "connections": {
                "open": self.now_open,
                "peak": self.peak_open,
                "total": sum(link.opened for link in self.links.values()),
            },
            "latency": summarize_latencies(self.latencies_s),
            "links": [_link_row(link) for link in self.links.values()],
            "flows": [_flow_row(flow, windows_s) for flow in self.flows.values()],
            "limits": _limit_rows(self.flows.values(), windows_s),
        }


def summarize_latencies(latencies_s: Sequence[float]) -> dict[str, float]:
    """Return count, p50, p99 and maximum in milliseconds."""
    if not latencies_s:
        return {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    ordered = sorted(latencies_s)
    last = len(ordered) - 1
    return {
        "count": len(ordered),
        "p50_ms": round(ordered[last // 2] * 1000, 2),
        "p99_ms": round(ordered[int(last * 0.99)] * 1000, 2),
        "max_ms": round(ordered[last] * 1000, 2),
    }


def highest_in_window(instants: Sequence[float], window_s: float) -> int:
    """Return the most instants in any half-open window [t, t + window_s). `instants` ascend."""
    highest = first = 0
    for last, instant in enumerate(instants):
        while instant - instants[first] >= window_s:
            first += 1
        highest = max(highest, last - first + 1)
    return highest


def _link_row(link: Link) -> dict[str, Any]:
    return {
        "listen": link.listen,
        "source": link.source,
        "ehlo": dict(link.ehlos),
        "connections": link.opened,
        "open": link.now_open,
        "peak_connections": link.peak,
        "messages": link.messages,
    }


def _flow_row(flow: Flow, windows_s: Sequence[float]) -> dict[str, Any]:
    instants = flow.instants
    return {
        "listen": flow.listen,
        "source": flow.source,
        "domain": flow.domain,
        "messages": len(instants),
        "first_at": instants[0] if instants else 0.0,
        "last_at": instants[-1] if instants else 0.0,
        "peaks": {f"{window:g}": highest_in_window(instants, window) for window in windows_s},
    }


def _limit_rows(flows: Iterable[Flow], windows_s: Sequence[float]) -> list[dict[str, Any]]:
    """Peaks per (listen, source) over all its domains: a path whose destination is a provider or site."""
    if not windows_s:
        return []
    merged: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for flow in flows:
        merged[flow.listen, flow.source].extend(flow.instants)
    return [
        {
            "listen": listen,
            "source": source,
            "messages": len(instants),
            "peaks": {f"{window:g}": highest_in_window(sorted(instants), window) for window in windows_s},
        }
        for (listen, source), instants in merged.items()
    ]
