"""How many tries to open sessions begin in one turn of the loop.

After a start the first connections of thousands of sites may go at the same moment. All begun in one turn,
each step of one would wait for the same step of all, and sessions that carry mail would have a turn in 0.1 s.
A few at a time, each is soon through with its steps, in the order in which they were asked for.

Owns: who waits to begin.
Never: opens anything, or counts what is open.
"""

from __future__ import annotations

import asyncio
from collections import deque

AT_ONCE = 16  # tries begun in a turn: about 2 ms, with what follows of each


class Beginnings:
    """Lets tries begin, a few in each turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = AT_ONCE
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    async def wait(self) -> None:
        """Return when one more may begin; at once where few have begun in this turn."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._next_turn)
        if self._left > 0:
            self._left -= 1
            return
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _next_turn(self) -> None:
        self._left = AT_ONCE
        while self._left > 0 and self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():  # cancelled: its vmta went away
                waiting.set_result(None)
                self._left -= 1
        self._is_due = bool(self._waiting)
        if self._is_due:
            self._loop.call_soon(self._next_turn)
