"""Values that are worth keeping for a while, and the look-ups under way for those that are not there.

Owns: what is kept, until when; that a value is looked up once, however many ask for it meanwhile.
Never: knows what the values are; those that stand for a failure are values too.
Fails: whatever a look-up raises goes to all who wait for it, and nothing is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

Make = Callable[[Key], Awaitable[tuple[Value, float]]]  # the value and for how many seconds it holds


class LookupCache(Generic[Key, Value]):
    """A bounded cache with times to live. Full, it forgets what was kept first."""

    def __init__(self, size: int, clock: Callable[[], float], make: Make[Key, Value]) -> None:
        """Args: size: entries; clock: monotonic seconds; make: looks a missing value up."""
        self._size = size
        self._clock = clock
        self._make = make
        self._entries: dict[Key, tuple[float, Value]] = {}
        self._in_flight: dict[Key, asyncio.Task[Value]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Key) -> Value | None:
        """Return a value that is kept and holds, or None. HOT."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > self._clock() else None

    async def fetch(self, key: Key) -> Value:
        """Return the value, looked up where it is not kept; a caller who gives up harms no other."""
        value = self.find(key)
        if value is not None:
            return value
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.get_running_loop().create_task(self._look_up(key))
        return await asyncio.shield(task)

    def keep(self, key: Key, value: Value, ttl_s: float) -> None:
        """Keep a value from now on."""
        self._entries.pop(key, None)  # so that it counts as new
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (self._clock() + ttl_s, value)

    def drop(self, key: Key) -> None:
        """Forget one value."""
        self._entries.pop(key, None)

    def forget(self, is_wrong: Callable[[Key, Value], bool]) -> None:
        """Drop the entries for which this is true."""
        self._entries = {key: entry for key, entry in self._entries.items() if not is_wrong(key, entry[1])}

    def close(self) -> None:
        """Stop the look-ups under way."""
        for task in self._in_flight.values():
            task.cancel()

    async def _look_up(self, key: Key) -> Value:
        try:
            value, ttl_s = await self._make(key)
            self.keep(key, value, ttl_s)
            return value
        finally:
            self._in_flight.pop(key, None)
