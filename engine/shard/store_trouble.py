"""Bad news of a store: a record or an environment is damaged, or nothing can be promised any more.

Owns: what is counted and logged of it, what the next process is told, and that this one dies of it.
Never: repairs (store.quarantine, shard.salvaging).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from engine.core.errors import StoreDamaged, StoreError
from engine.store.environment import is_of_the_disk
from engine.store.quarantine import mark_damaged, mark_suspect, open_trusted
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

log = Log("shard")


class StoreTrouble:
    """Hears what goes wrong with the stores that one shard has open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self._loop = loop
        self._counters = counters

    def open(self, directory: Path, open_it: Callable[[], None]) -> None:
        """Open a store, or a fresh one where it is damaged."""
        moved = open_trusted(directory, open_it, time.time())
        if moved is not None:
            self._counters.counter("mailrail_store_quarantines_total")[0] += 1
            log.error("damaged store moved to quarantine, a fresh one is used", store=str(moved))

    def damaged(self, key: bytes, detail: str) -> None:
        """A record was set aside."""
        self._counters.counter("mailrail_damaged_records_total")[0] += 1
        log.error("damaged record set aside", delivery=key.hex(), reason=detail)

    def mended(self, what: list[str]) -> None:
        """Entries of the indexes were put right."""
        self._counters.counter("mailrail_index_mended_total")[0] += len(what)
        log.error("damaged index mended", count=len(what), first=what[0])

    def failed(self, directory: Path, error: StoreError) -> None:
        """Nothing can be promised or settled any more: the next process opens it anew, or a fresh one."""
        log.error("store failed", store=str(directory), error=str(error))
        if not is_of_the_disk(error):
            try:
                (mark_damaged if isinstance(error, StoreDamaged) else mark_suspect)(directory, str(error))
            except OSError as refusal:  # the next process meets the damage by itself
                log.error("store not marked", store=str(directory), error=str(refusal))
        self._loop.call_soon(_die_of, error)


def _die_of(error: StoreError) -> None:
    raise AssertionError(f"the store failed: {error}")
