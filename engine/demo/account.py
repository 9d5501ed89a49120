"""What the sinks saw, from the lines of their logs: nothing in it comes from the engine.

Owns: every copy of every message, and for each path (source address, destination) the instants of its
messages and how many connections were open when.
Never: reads a file or a clock; judges.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import NamedTuple

import msgspec

from engine.demo.scenario import Scenario


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a sink's log; `t` is monotonic seconds."""

    t: float
    kind: str  # open | message | close
    listen: str
    source: str
    ehlo: str = ""
    rcpt: list[str] = []
    id: str = ""
    taken: bool = False


class Copy(NamedTuple):
    """One copy of a message for one recipient, as it arrived."""

    at: float
    listen: str
    source: str
    ehlo: str


class PathAccount:
    """One source address towards one destination."""

    __slots__ = ("edges", "instants", "now_open", "peak_open")

    def __init__(self) -> None:
        self.instants = array("d")  # of each end-of-message, refused messages included
        self.edges: list[tuple[float, int]] = []  # (instant, connections open from then on)
        self.now_open = self.peak_open = 0

    def change(self, at: float, by: int) -> None:
        """Count a connection that opened or closed."""
        self.now_open += by
        self.peak_open = max(self.peak_open, self.now_open)
        self.edges.append((at, self.now_open))


class Account:
    """The sinks' account of one run."""

    def __init__(self, scenario: Scenario) -> None:
        self._destination_at = scenario.destination_at
        self.paths: dict[tuple[str, str], PathAccount] = {}
        self.copies: dict[tuple[str, str], list[Copy]] = {}  # by (id, recipient)
        self.seen: Counter[tuple[str, str]] = Counter()  # messages taken by (source, EHLO name)
        self.refused = 0

    def add(self, line: Line) -> None:
        """Count one line. Those of one sink come in the order of their instants."""
        path = self.path(line.source, self._destination_at[line.listen].name)
        if line.kind == "open":
            path.change(line.t, 1)
        elif line.kind == "close":
            path.change(line.t, -1)
        else:
            path.instants.append(line.t)
            self._take(line)

    def path(self, source: str, destination: str) -> PathAccount:
        """Return the account of a path, an empty one where nothing came."""
        found = self.paths.get((source, destination))
        if found is None:
            found = self.paths[source, destination] = PathAccount()
        return found

    def _take(self, line: Line) -> None:
        if not line.taken:
            self.refused += 1
            return
        self.seen[line.source, line.ehlo] += 1
        copy = Copy(line.t, line.listen, line.source, line.ehlo)
        for recipient in line.rcpt:
            self.copies.setdefault((line.id, recipient), []).append(copy)
