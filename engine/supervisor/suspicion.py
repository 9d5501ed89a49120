"""Stores on which shards died: after two such deaths in a row the next shard must not trust its store.

A page of the map that is not there is SIGBUS; one that is altered may make liblmdb fail an assertion
(SIGABRT) or go astray (SIGSEGV). The latter two are a delivery's doing where one was on record
(supervisor.poison counts it), and none of the three is anybody's who was ended by us.

Owns: that count.
Never: moves a store (the shard that opens it does, by its mark).
"""

from __future__ import annotations

import signal

DEATHS = 2  # once may be the memory, or a bug; a damaged page is met again
WITHIN_S = 24 * 3600.0

_OF_THE_STORE = {-signal.SIGBUS: True, -signal.SIGABRT: False, -signal.SIGSEGV: False}


class StoreDeaths:
    """Counts deaths by shard."""

    def __init__(self) -> None:
        self._deaths: dict[int, list[float]] = {}

    def note_death(self, shard: int, returncode: int, *, has_step: bool, now: float) -> bool:
        """Count a death; return whether the store must not be trusted any more.

        Args:
            returncode: as subprocess gives it, negative for signals.
            has_step: a delivery was being worked on.
            now: monotonic seconds.
        """
        is_certain = _OF_THE_STORE.get(returncode)
        if is_certain is None or (has_step and not is_certain):
            self._deaths.pop(shard, None)
            return False
        deaths = [at for at in self._deaths.get(shard, ()) if now - at < WITHIN_S] + [now]
        self._deaths[shard] = deaths
        if len(deaths) < DEATHS:
            return False
        del self._deaths[shard]
        return True
