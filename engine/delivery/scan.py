"""The pass over the due queues of a store, repeated without end.

The first pass after a start, or after a reload, is hurried: until it is over nobody knows for whom there is
mail, and where a queue stands in it must not decide when its mail leaves. It goes on at every turn of the
loop. Later passes take one part of a core in SHARE. What becomes due meanwhile is looked at as it does.

Owns: how far the pass has come, and how much of the loop it takes.
Never: decides what becomes of a queue that is due (readahead does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

SLICE = 400  # heads looked at before the loop gets its turn: about 1 ms
HURRIED_SLICE = 1000  # in a hurry: where there is much else to do, its turns take as long
SLICE_S = 0.004  # a slice ends then: the first queue of a site costs thirty times what the next one does
STEP = 40  # heads looked at between two looks at the clock
EVERY_S = 0.1
PAUSE_S = 0.001  # between slices, where there is no hurry
SHARE = 20  # scanning may take one part in so many of a core
THOROUGH_EVERY_S = 10.0  # between passes that look behind the first delivery of each queue


class Heads(Protocol):
    """What the scan needs of the store."""

    def due_queues(self, after: bytes, now_ms: int, limit: int) -> list[tuple[int, bytes]]: ...


class Finder(Protocol):
    """What is done with what the scan finds."""

    @property
    def is_paused(self) -> bool:
        """Nothing is to be looked at for now."""

    def begin_pass(self) -> None:
        """A pass begins."""

    def begin_slice(self) -> None:
        """A slice of a pass begins."""

    def look(self, heads: list[tuple[int, bytes]], now_ms: int) -> None:
        """These queues are due."""

    def look_fresh(self, heads: list[tuple[int, bytes]], now_ms: int) -> None:
        """These have just become due."""

    def end_pass(self) -> None:
        """A pass is over."""


class Scan:
    """Goes over the due queues again and again."""

    def __init__(self, store: Heads, unix_clock: Callable[[], float], finder: Finder) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._unix = unix_clock
        self._finder = finder
        self._after = b""
        self._cost_s = 0.0
        self._timer: asyncio.Handle | None = None
        self._fresh_after = b""
        self._fresh_timer: asyncio.Handle | None = None
        self._thorough_at = 0.0
        self._is_hurried = True
        self.is_thorough = True  # this pass looks behind the first delivery of each queue

    def start(self) -> None:
        """Begin."""
        self._timer = self._loop.call_soon(self._step)
        self._fresh_after = int(self._unix() * 1000).to_bytes(8, "big")
        self._fresh_timer = self._loop.call_later(EVERY_S, self._step_fresh)

    def close(self) -> None:
        """Stop."""
        for timer in (self._timer, self._fresh_timer):
            if timer is not None:
                timer.cancel()

    def restart(self) -> None:
        """Begin again from the first queue, and now: nothing that was found is known any more."""
        self._after = b""
        self.is_thorough = self._is_hurried = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_soon(self._step)

    def be_thorough_soon(self) -> None:
        """Let the next pass be thorough."""
        self._thorough_at = 0.0

    def _step(self) -> None:
        """Look at one slice."""
        if self._finder.is_paused:
            self._timer = self._loop.call_later(EVERY_S, self._step)
            return
        self._finder.begin_slice()
        began = self._loop.time()
        now_ms = int(self._unix() * 1000)
        if not self._after:
            self._finder.begin_pass()
        size = HURRIED_SLICE if self._is_hurried else SLICE
        heads = self._store.due_queues(self._after, now_ms, size)
        done = self._look(heads, now_ms, began + SLICE_S)
        self._cost_s += self._loop.time() - began
        if done == len(heads) < size:
            self._timer = self._loop.call_later(self._end_pass(began), self._step)
            return
        due, queue = heads[done - 1]
        self._after = due.to_bytes(8, "big") + queue
        if self._is_hurried:
            self._timer = self._loop.call_soon(self._step)
        else:
            self._timer = self._loop.call_later(PAUSE_S, self._step)

    def _look(self, heads: list[tuple[int, bytes]], now_ms: int, until: float) -> int:
        """Have these looked at while there is time; return how many were."""
        for begin in range(0, len(heads), STEP):
            self._finder.look(heads[begin : begin + STEP], now_ms)
            if self._loop.time() >= until:
                return min(begin + STEP, len(heads))
        return len(heads)

    def _end_pass(self, now: float) -> float:
        """Make ready for the next pass; return how long until then."""
        self._finder.end_pass()
        self._after = b""
        self._is_hurried = False
        self.is_thorough = now >= self._thorough_at
        if self.is_thorough:
            self._thorough_at = now + THOROUGH_EVERY_S
        pause_s = max(EVERY_S, self._cost_s * SHARE)
        self._cost_s = 0.0
        return pause_s

    def _step_fresh(self) -> None:
        """Look at what has become due since the last look: a pass over a large backlog takes its time."""
        now_ms = int(self._unix() * 1000)
        heads = [] if self._finder.is_paused else self._store.due_queues(self._fresh_after, now_ms, SLICE)
        if heads:
            due, queue = heads[-1]
            self._fresh_after = due.to_bytes(8, "big") + queue
            self._finder.look_fresh(heads, now_ms)
        pause_s = PAUSE_S if len(heads) == SLICE else EVERY_S
        self._fresh_timer = self._loop.call_later(pause_s, self._step_fresh)
