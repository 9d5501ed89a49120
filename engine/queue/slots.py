"""Connection slots of one path, exact as the peer counts: from accept to EOF.

Owns: how many connections the peer may see, open and closing.
Never: reads a clock, knows a session; the limit comes with every call.
Fails: AssertionError where a slot comes back that nobody had.
"""

from __future__ import annotations

from bisect import insort
from math import inf


class ConnectionSlots:
    """Connections to one destination from one source address.

    A slot that was released with a time in the future is still in use until then.
    """

    __slots__ = ("_closing", "_open", "_quiet_until")

    def __init__(self, quiet_until: float = -inf) -> None:
        """Args: quiet_until: no slot before; a restarted shard waits before it connects."""
        self._open = 0
        self._closing: list[float] = []  # ascending
        self._quiet_until = quiet_until

    def in_use(self, now: float) -> int:
        """Return how many connections the peer may see at `now`."""
        closing = self._closing
        while closing and closing[0] <= now:
            del closing[0]
        return self._open + len(closing)

    def acquire(self, limit: int, now: float) -> bool:
        """Take a slot if fewer than `limit` (0: no limit) are in use."""
        if now < self._quiet_until or 0 < limit <= self.in_use(now):
            return False
        self._open += 1
        return True

    def release(self, now: float) -> None:
        """The peer has closed (EOF, RST, refused): the slot is free now."""
        self.release_at(now, now)

    def release_at(self, now: float, at: float) -> None:
        """The slot is free at `at`: later than now where the close was ours, and may not have been seen."""
        assert self._open > 0, "a slot came back that nobody had"
        self._open -= 1
        if at > now:
            insort(self._closing, at)

    def next_free_at(self, limit: int, now: float) -> float:
        """Return when `acquire` will succeed by time alone; inf where a session must end first."""
        used = self.in_use(now)
        if limit <= 0 or used < limit:
            return max(now, self._quiet_until)
        if self._open >= limit:
            return inf
        return max(self._closing[used - limit], self._quiet_until)
