"""On record before a step that may kill: which delivery it was.

A shared mapping of one small file; it outlives the process without a system call per step. The
supervisor reads it when the shard has died (supervisor.poison).
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from engine.core.envelope import DELIVERY_KEY_BYTES

_NOTHING = bytes(DELIVERY_KEY_BYTES)


class StepRecord:
    """The delivery that this shard works on right now."""

    __slots__ = ("_map",)

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, DELIVERY_KEY_BYTES)  # a hole on a full disk would be SIGBUS
            self._map = mmap.mmap(descriptor, DELIVERY_KEY_BYTES)
        finally:
            os.close(descriptor)
        self._map[:] = _NOTHING

    def begin(self, delivery_key: bytes) -> None:
        """Work on this delivery begins. HOT."""
        self._map[:] = delivery_key

    def end(self) -> None:
        """It is over, and the process lives. HOT."""
        self._map[:] = _NOTHING
