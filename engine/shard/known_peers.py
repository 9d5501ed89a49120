"""What is remembered of peers, kept on disk: a restart does not learn it anew.

Owns: one file, written whole or not at all, and only when something has changed.
Never: decides what is remembered (delivery.peer_memory).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from engine.delivery.peer_memory import PeerMemory
from engine.telemetry.log import Log

log = Log("known_peers")


class KnownPeers:
    """The file of one shard's peer memory."""

    def __init__(self, memory: PeerMemory, file: Path, clock: Callable[[], float]) -> None:
        self._memory = memory
        self._file = file
        self._clock = clock
        self._kept = 0  # changes that are on disk

    def open(self) -> None:
        """Take over what was kept; what can't be read is learnt anew."""
        try:
            self._memory.restore(self._file.read_bytes(), self._clock(), time.time())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.error("kept faults of peers unreadable, learnt anew", file=str(self._file), error=str(error))
        self._kept = self._memory.changes

    def keep(self) -> None:
        """Write what is known, where that has changed."""
        changes = self._memory.changes
        if changes == self._kept:
            return
        temporary = self._file.with_suffix(".new")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as written:
                written.write(self._memory.export(self._clock(), time.time()))
            temporary.replace(self._file)
        except OSError as error:
            log.error("faults of peers not kept", file=str(self._file), error=str(error))
            return
        self._kept = changes
