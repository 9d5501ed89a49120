"""How many connections a peer lets one source address have, below the policy's limit.

Slow open: a path that has delivered nothing begins with FIRST, and has twice as many whenever each of those
that it may have has delivered one message: a peer that takes nothing is not met by all at once.

After that, as in Postfix's scheduler: each delivery earns 1/N of one more, N being how many may be open, and
trouble costs at once. Trouble is a connection or a handshake that failed, or a 421, while others are open: so
many are known to be let in, and that is the limit then. With none open the site is dead or it is not, which
is not decided here (path.SiteDemand). The next step up comes no sooner than RAISE_EVERY_S later, and twice as
late after each that failed, up to RAISE_LAST_S: each costs a connection that is refused.

Owns: that limit.
Never: reads a clock, counts connections, goes below one.
"""

from __future__ import annotations

from math import inf

FIRST = 5  # Postfix: initial_destination_concurrency
LOWER_EVERY_S = 60.0
RAISE_EVERY_S = 120.0
RAISE_LAST_S = 3600.0
OPENING_S = 15.0  # connections that were being opened when one was refused may still be let in


class Width:
    """The limit on connections of one source address at one peer; 0: none."""

    __slots__ = ("_earned", "_is_step", "_lowered_at", "_raised_at", "_wait_s", "is_slow_open", "limit")

    def __init__(self, limit: int = FIRST, wait_s: float = RAISE_EVERY_S) -> None:
        self.limit = limit
        self.is_slow_open = True
        self._earned = 0  # deliveries since the last change, up to the limit
        self._raised_at = self._lowered_at = -inf
        self._wait_s = wait_s
        self._is_step = False  # the limit is one more than is known to be let in

    @classmethod
    def restore(cls, limit: int, wait_s: float, now: float) -> Width:
        """Return what a process before has learned."""
        width = cls(limit, min(max(wait_s, RAISE_EVERY_S), RAISE_LAST_S))
        width.is_slow_open = False
        width._raised_at = now
        return width

    @property
    def wait_s(self) -> float:
        """How long after a step the next one comes."""
        return self._wait_s

    def taken(self, now: float, most: int) -> bool:
        """A message was delivered: return whether the limit changed. `most`: the policy's. HOT."""
        if not self.limit:
            return False
        self._earned += 1
        if self._earned < self.limit or now < self._raised_at + self._wait_s:
            return False
        self._earned = 0
        if self.is_slow_open:
            self.limit *= 2
        else:
            if self._is_step:
                self._wait_s = RAISE_EVERY_S  # the last one held
            self.limit += 1
            self._raised_at = now
            self._is_step = True
        if self.limit >= most:
            self.limit = 0
        return True

    def troubled(self, now: float, others: int) -> bool:
        """A connection had trouble while so many others were open: return whether the limit changed."""
        if others < 1 or (0 < self.limit <= others and not self.is_slow_open):
            return False  # more than are let in were being opened; that is over
        if self._is_step:
            self._wait_s = min(2 * self._wait_s, RAISE_LAST_S)
            self._is_step = False
        elif now < self._lowered_at + LOWER_EVERY_S:
            return False
        self.is_slow_open = False
        self.limit = others
        self._earned = 0
        self._raised_at = self._lowered_at = now
        return True

    def opened(self, now: float, count: int) -> bool:
        """A connection was let in, and so many are open now: return whether the limit changed."""
        if self.is_slow_open or not 0 < self.limit < count or now > self._lowered_at + OPENING_S:
            return False
        self.limit = count
        return True
