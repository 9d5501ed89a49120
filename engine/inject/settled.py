"""Claims of spool files that are unlinked, until the store may forget them.

The store keeps a claim as long as its file may be seen again, or a crash between commit and unlink would
send it twice. An unlinked file is seen again after a power cut if its directory was not synced, so claims
are forgotten behind an fsync of the directory, once a second for all.

Owns: which claims are settled and not forgotten.
Never: unlinks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from engine.core.errors import StoreError
from engine.telemetry.log import Log

log = Log("spool")


class ClaimStore(Protocol):
    """What is needed of the store."""

    def claim_of(self, name: str) -> bytes | None: ...
    def list_claims(self, prefix: str, limit: int) -> list[str]: ...
    def forget_claim(self, name: str) -> None: ...
    def when_durable(self, done: Callable[[StoreError | None], None]) -> None: ...


class SettledClaims:
    """The settled claims of one spool in one shard."""

    def __init__(self, store: ClaimStore, sync: Callable[[], None]) -> None:
        """Args: sync: waits until the directory is on disk; called in a thread."""
        self._store = store
        self._sync = sync
        self._fresh: list[str] = []  # since the last sync began
        self._all: set[str] = set()
        self._is_syncing = False
        self._is_closed = False

    def __contains__(self, claim: str) -> bool:
        """Was this claim's file unlinked by us? A file that looks the same is another one then."""
        return claim in self._all

    def add(self, claim: str) -> None:
        """The file of this claim is unlinked."""
        self._fresh.append(claim)
        self._all.add(claim)

    async def forget(self) -> None:
        """Sync the directory and have the store forget what was settled before."""
        if self._is_syncing or not self._fresh:
            return
        claims, self._fresh = self._fresh, []
        self._is_syncing = True
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._sync)
        except OSError as error:
            log.error("spool directory can't be synced", reason=error.strerror)
            self._fresh = claims + self._fresh
            return
        finally:
            self._is_syncing = False
        if self._is_closed:
            return
        for claim in claims:
            self._store.forget_claim(claim)
        self._store.when_durable(lambda _error: self._all.difference_update(claims))

    def close(self) -> None:
        """Tell the store nothing any more."""
        self._is_closed = True
