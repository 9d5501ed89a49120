"""Names of spool files that wait to be taken by this shard.

All shards hear of every file. Each name has one shard, by its hash, that goes for it at once; the others
wait a little and then help, so that shards share without a word and none waits for one that is down or
full. Names that came together are taken in the order of names.

Owns: the order in which names are tried, a bound on how many are known.
Never: looks at a file, reads a clock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from zlib import crc32

HELP_AFTER_S = 0.1  # a shard that is up and not full takes its own names within a few milliseconds
MAX_NAMES = 20_000  # some 3 MB; the directory itself keeps the rest


class NameQueue:
    """Names, each at most once. `is_partial`: some were dropped, so the directory must be listed again."""

    def __init__(self, shard: int, shards: int) -> None:
        self.is_partial = False
        self._shard = shard
        self._shards = shards
        self._known: set[str] = set()
        self._batch: deque[str] = deque()  # being taken, in order
        self._fresh: list[str] = []  # the next batch
        self._foreign: deque[tuple[float, str]] = deque()  # when to help, earliest first

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def add(self, names: Iterable[str], now: float) -> None:
        """Learn of files."""
        known = self._known
        for name in names:
            if name in known:
                continue
            if len(known) >= MAX_NAMES:
                self.is_partial = True
                return
            known.add(name)
            if self._shards == 1 or keeper_of(name, self._shards) == self._shard:
                self._fresh.append(name)
            else:
                self._foreign.append((now + HELP_AFTER_S, name))

    def pop(self, now: float) -> str | None:
        """Return the next name to try, None if there is none yet."""
        if not self._batch:
            foreign, fresh = self._foreign, self._fresh
            while foreign and foreign[0][0] <= now:
                fresh.append(foreign.popleft()[1])
            self._batch = deque(sorted(fresh))
            self._fresh = []
            if not self._batch:
                return None
        name = self._batch.popleft()
        self._known.discard(name)
        return name

    def next_at(self, now: float) -> float | None:
        """Return when `pop` will have a name; None if nothing is known."""
        if self._batch or self._fresh:
            return now
        return self._foreign[0][0] if self._foreign else None


def keeper_of(name: str, shards: int) -> int:
    """Return the shard that goes for this name at once: the same one for all shards."""
    return crc32(os.fsencode(name)) % shards
