"""On record while a spool file is read and offered: which one, and how often a shard died of it.

A shard that starts again takes up the file on which it died, first; if it dies of it once more, the file is
at fault and goes to failed/. A shard that is killed from outside is hardly killed twice within the same
hundred microseconds of the same file.

Owns: one small file for each shard, mapped, so that a record costs no system call.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

MAX_DEATHS = 2  # as of a delivery (design, section 2)

_SIZE_BYTES = 258  # deaths, octets of the name, the name: NAME_MAX is 255
_MAX_NAME_BYTES = _SIZE_BYTES - 2


class SuspectRecord:
    """The file that is being taken right now. `name` and `deaths`: of which the last life died, so often."""

    __slots__ = ("_map", "deaths", "name")

    def __init__(self, path: Path) -> None:
        """Raises: OSError: it can't be made."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _SIZE_BYTES)  # a hole on a full disk would kill (SIGBUS)
            self._map = mmap.mmap(descriptor, _SIZE_BYTES)
        finally:
            os.close(descriptor)
        length = self._map[1]
        self.name = os.fsdecode(self._map[2 : 2 + length])
        self.deaths = self._map[0] + 1 if length else 0
        self.end()

    @property
    def is_guilty(self) -> bool:
        return self.deaths >= MAX_DEATHS

    def begin(self, name: str) -> None:
        """Work on this file begins. HOT."""
        octets = os.fsencode(name)[:_MAX_NAME_BYTES]
        deaths = self.deaths if name == self.name else 0
        self._map[: 2 + len(octets)] = bytes((deaths, len(octets))) + octets

    def end(self) -> None:
        """It is over, and the process lives. HOT."""
        self._map[1] = 0

    def close(self) -> None:
        """Keep no record any more."""
        self._map.close()
