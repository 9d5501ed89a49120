"""How many questions DNS is asked at once: few that have just been asked, many that wait for their answer.

What is answered at all is mostly answered at once. So a burst is paced by a few places, each of which is
free again after a moment, answered or not: names that nobody answers for delay no others. A question that
grew old costs a few kilobytes and no more traffic than its tries; of these there are many, and where there
are too many the oldest is given up.

Owns: who may ask now, and how long anybody waits.
Never: asks.
Fails: TimeoutError from `run`, with how long it waited: until the deadline, or given up before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

YOUNG_S = 0.25  # resolvers answer from their cache in 1 ms, and most of what they have to ask for in 100 ms


class Lanes:
    """Places for questions, young and old."""

    def __init__(self, max_young: int, max_old: int, deadline_s: float) -> None:
        self._places = asyncio.Semaphore(max_young)
        self._max_old = max_old
        self._deadline_s = deadline_s
        self._young: set[asyncio.Timeout] = set()
        self._old: dict[asyncio.Timeout, None] = {}  # in the order in which they grew old

    async def run(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Ask when there is a place for it; the deadline counts from then.

        Raises:
            TimeoutError: no answer; says after how long.
        """
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = asyncio.timeout(self._deadline_s)
        self._young.add(deadline)
        timer = loop.call_later(YOUNG_S, self._grow_old, deadline)
        try:
            async with deadline:
                return await ask()
        except TimeoutError:
            raise TimeoutError(f"no answer in {round(loop.time() - began, 2):g} s") from None
        finally:
            if deadline in self._young:
                timer.cancel()
                self._leave_young(deadline)
            self._old.pop(deadline, None)

    def _leave_young(self, deadline: asyncio.Timeout) -> None:
        self._young.remove(deadline)
        self._places.release()

    def _grow_old(self, deadline: asyncio.Timeout) -> None:
        self._leave_young(deadline)
        if len(self._old) >= self._max_old:
            oldest = next(iter(self._old))
            del self._old[oldest]
            if not oldest.expired():  # else it is on its way out
                oldest.reschedule(0.0)
        self._old[deadline] = None
