"""The permits of the last T, as the peer may have read them.

A permit is held to have been read at the latest at its `end` plus the guard, and holds others back
until T after that. Permits whose ends differ by less than T/256 share a cell, which has the latest
of them: the memory is bounded for any N, at a cost of at most 0.4 % of the allowance.

Owns: how many permits still count, and when the next may follow.
Never: paces, knows a threshold beyond the call (queue.limits does both).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf

GUARD_SHARE = 0.02  # of T (design section 5): leaves 98 % of the allowance
GUARD_MIN_S = 0.020  # a loaded host's scheduling delay; still 98 % of T = 1 s
CELLS = 256  # permits within T/256 share one record: costs at most 0.4 % of the allowance


class PermitWindow:
    """The permits of the last T: cells of (latest time a permit in it was read, less guard; count)."""

    __slots__ = (
        "cell_s",
        "cell_start",
        "counts",
        "ends",
        "forgotten",
        "guard_s",
        "head",
        "period_s",
        "since",
        "total",
        "window_s",
    )

    def __init__(self, window_s: float, since: float) -> None:
        self.window_s = window_s
        self.guard_s = max(window_s * GUARD_SHARE, GUARD_MIN_S)
        self.period_s = window_s + self.guard_s
        self.cell_s = window_s / CELLS
        self.since = since  # what was spent before is unknown
        self.ends: list[float] = []  # ascending; below `head` forgotten
        self.counts: list[int] = []
        self.head = 0
        self.total = 0
        self.cell_start = -inf
        self.forgotten = -inf  # permits up to this time may have been forgotten

    def forget(self, now: float) -> None:
        """Drop the cells that no longer hold anybody back."""
        ends, head, last = self.ends, self.head, now - self.period_s
        size = len(ends)
        while head < size and ends[head] <= last:
            self.forgotten = max(self.forgotten, ends[head])
            self.total -= self.counts[head]
            head += 1
        if head > CELLS:
            del ends[:head], self.counts[:head]
            head = 0
        self.head = head

    def free_at(self, limit: int, ahead: int) -> float:
        """Return when one more permit fits behind `ahead` others; -inf for any time."""
        if ahead >= limit:
            return self.free_at(limit, ahead % limit) + ahead // limit * self.period_s
        excess = self.total + ahead + 1 - limit
        if excess <= 0:
            return -inf
        ends, counts = self.ends, self.counts
        for i in range(self.head, len(ends)):
            excess -= counts[i]
            if excess <= 0:
                return ends[i] + self.period_s
        return (ends[-1] if len(ends) > self.head else self.forgotten) + self.period_s

    def due_at(self, limit: int, now: float) -> float:
        """Return when a permit whose time has come may be written; -inf for now.

        Counts what was written by now, without this permit, whatever is planned behind it.
        """
        ends, counts = self.ends, self.counts
        behind = bisect_right(ends, now + self.cell_s, self.head)
        excess = self.total - sum(counts[behind:]) - limit
        if excess <= 0:
            return -inf
        for i in range(self.head, behind):
            excess -= counts[i]
            if excess <= 0:
                return ends[i] + self.period_s
        return -inf

    def add(self, at: float) -> None:
        """Count a permit."""
        ends = self.ends
        if len(ends) > self.head and ends[-1] > at:
            self._insert(at)
        elif at - self.cell_start < self.cell_s and len(ends) > self.head:
            ends[-1] = at
            self.counts[-1] += 1
            self.total += 1
        else:
            self.cell_start = at
            ends.append(at)
            self.counts.append(1)
            self.total += 1

    def move(self, at: float, end: float) -> None:
        """Let the permit of time `at` count as read at `end`.

        The first cell not before `at` may be another permit's, if this one was moved before; then
        this one stays later than that, to the safe side.
        """
        ends, counts = self.ends, self.counts
        if at > self.forgotten:
            i = bisect_left(ends, at, self.head)
            if i == len(ends) or ends[i] >= end:
                return
            counts[i] -= 1
            self.total -= 1
            if not counts[i]:
                del ends[i], counts[i]
        self._insert(end)

    def _insert(self, end: float) -> None:
        """Count a permit among the cells, in one that ends hardly later if there is one."""
        ends, counts = self.ends, self.counts
        self.total += 1
        i = bisect_left(ends, end, self.head)
        if i < len(ends) and ends[i] - end < self.cell_s:
            counts[i] += 1
            return
        if i == len(ends):
            self.cell_start = -inf  # the last cell is not the one that `add` had begun
        ends.insert(i, end)
        counts.insert(i, 1)
