"""Who may use the directory of a store: one process, by flock on the file `owner`, which holds its number.

Owns: that lock; the kernel gives it back when its process ends, however that is.
Fails: StoreUnhealthy where another process has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from engine.core.errors import StoreUnhealthy

POLL_S = 0.05


class OwnerLock:
    """The lock of one directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "owner"
        self._descriptor = -1

    def take(self, wait_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the lock, waiting for its last owner to end.

        Raises:
            StoreUnhealthy: another process has it.
        """
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for left in range(int(wait_s / POLL_S), -1, -1):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    owner = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
                    self.release()
                    raise StoreUnhealthy(
                        f"{self._path}: another process owns this store (process {owner})"
                    ) from None
                sleep(POLL_S)
        with contextlib.suppress(
            OSError
        ):  # of a full disk, which has to be emptied: the number is for people
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
