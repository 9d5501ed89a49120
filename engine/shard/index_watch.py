"""The store's indexes, looked over for as long as the shard runs: damage there is mended before it is missed.

It takes at most SLICE_S of every TICK_S, 0.4 % of a core: an ordinary backlog is looked over in one tick or
two, a million deliveries in some 20 minutes.

Owns: when that happens.
Never: holds up a start; the first look is at the first few, like all others.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from engine.core.errors import StoreError
from engine.telemetry.log import Log

TICK_S = 0.5
SLICE_S = 0.002
ROWS = 32  # looked at between two looks at the clock: some 75 microseconds
REST_S = 10.0  # between two rounds

log = Log("index")


class CheckedStore(Protocol):
    """What is needed of the store."""

    def check(self, limit: int) -> bool | None: ...


class IndexWatch:
    """Has the store check its indexes."""

    def __init__(self, store: CheckedStore) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._rest_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        now = self._loop.time()
        if now < self._rest_until:
            return
        try:
            while (is_round := self._store.check(ROWS)) is False:
                if self._loop.time() >= now + SLICE_S:
                    return
        except StoreError as error:  # who owns the store has been told, and ends
            log.error("indexes not checked", error=str(error))
            return
        if is_round:
            self._rest_until = now + REST_S
