"""Providers of the simulation: each hides what it allows, and says no more than real ones do.

Owns: the hidden limits, and how many messages a day they let through (`capacity`).
Never: reads a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from engine.core.reply import Reply

DAY_S = 86_400.0
TAKEN = Reply(250, "2.0.0", "ok")
TOO_FAST = Reply(450, "4.7.1", "too many messages from your address, slow down")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "too many connections from your address")
GREYLISTED = Reply(451, "4.7.1", "greylisted, try again later")
TROUBLE = Reply(451, "4.3.0", "temporary system problem, try again later")


class Provider:
    """Takes everything."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s  # what it takes in the long run

    def capacity(self, over_s: float = DAY_S) -> float:
        """Return how many messages it takes in that time."""
        return self.per_s * over_s

    @property
    def recovers_at(self) -> float:
        """From when on the time to recover is counted: the end of the last trouble."""
        return 0.0

    @property
    def window_s(self) -> float:
        """Over how long its limit shows whether it is used."""
        return 600.0

    def let_in(self, now: float, others: int) -> Reply | None:  # noqa: ARG002
        """A connection is made while so many others are open; None: it is greeted."""
        return None

    def take(self, now: float, message: int) -> Reply:  # noqa: ARG002
        """A message has come."""
        return TAKEN


class Windowed(Provider):
    """At most `count` in `window_s`: by the wall clock's windows, or in any that slides."""

    def __init__(self, count: int, window_s: float, *, slides: bool = False) -> None:
        super().__init__(count / window_s)
        self._count = count
        self._window_s = window_s
        self._slides = slides
        self._taken: deque[float] = deque()
        self._number = -1
        self._in_window = 0

    @property
    def window_s(self) -> float:
        return max(600.0, 2 * self._window_s)

    def take(self, now: float, message: int) -> Reply:  # noqa: ARG002
        if self._slides:
            while self._taken and self._taken[0] <= now - self._window_s:
                self._taken.popleft()
            if len(self._taken) >= self._count:
                return TOO_FAST
            self._taken.append(now)
            return TAKEN
        number = int(now / self._window_s)
        if number != self._number:
            self._number, self._in_window = number, 0
        if self._in_window >= self._count:
            return TOO_FAST
        self._in_window += 1
        return TAKEN


class Connections(Provider):
    """At most so many connections; each takes one message in `latency_s`."""

    def __init__(self, most: int, latency_s: float) -> None:
        super().__init__(most / latency_s)
        self._most = most

    def let_in(self, now: float, others: int) -> Reply | None:  # noqa: ARG002
        return TOO_MANY_CONNECTIONS if others >= self._most else None


class Greylisting(Provider):
    """One message in `every` is not taken at its first try, nor before `wait_s` later; else as `inner`."""

    def __init__(self, inner: Provider, every: int = 10, wait_s: float = 120.0) -> None:
        super().__init__(inner.per_s)
        self._inner = inner
        self._every = every
        self._wait_s = wait_s
        self._seen: dict[int, float] = {}

    @property
    def window_s(self) -> float:
        return self._inner.window_s

    def take(self, now: float, message: int) -> Reply:
        if message % self._every == 0 and now < self._seen.setdefault(message, now) + self._wait_s:
            return GREYLISTED
        return self._inner.take(now, message)


class Reputation(Provider):
    """`per_s` at most, paced; over 3 % deferred in ten minutes costs a fifth of that, less earns a tenth."""

    LEAST = 0.05

    def __init__(self, per_s: float) -> None:
        super().__init__(per_s)
        self._standing = 1.0
        self._tokens = 10.0
        self._filled_at = 0.0
        self._number = 0
        self._good = self._bad = 0

    def take(self, now: float, message: int) -> Reply:  # noqa: ARG002
        number = int(now / 600.0)
        if number != self._number:
            share = self._bad / max(1, self._good + self._bad)
            self._standing = (
                max(self.LEAST, self._standing * 0.8) if share > 0.03 else min(1.0, self._standing * 1.1)
            )
            self._number, self._good, self._bad = number, 0, 0
        self._tokens = min(10.0, self._tokens + (now - self._filled_at) * self.per_s * self._standing)
        self._filled_at = now
        if self._tokens < 1.0:
            self._bad += 1
            return TOO_FAST
        self._tokens -= 1.0
        self._good += 1
        return TAKEN


class Span(NamedTuple):
    """A time of trouble."""

    begin: float
    end: float


class Troubled(Provider):
    """As `inner`, but at times it takes nothing; what it says then names no reason, or "too fast"."""

    def __init__(self, inner: Provider, spans: Sequence[Span], said: Reply = TROUBLE) -> None:
        super().__init__(inner.per_s)
        self._inner = inner
        self._spans = spans
        self._said = said

    def capacity(self, over_s: float = DAY_S) -> float:
        lost_s = sum(max(0.0, min(span.end, over_s) - span.begin) for span in self._spans)
        return self.per_s * (over_s - lost_s)

    @property
    def recovers_at(self) -> float:
        return max(span.end for span in self._spans)

    @property
    def window_s(self) -> float:
        return self._inner.window_s

    def take(self, now: float, message: int) -> Reply:
        if any(span.begin <= now < span.end for span in self._spans):
            return self._said
        return self._inner.take(now, message)
