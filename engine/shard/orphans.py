"""A store that a larger number of shards has left: emptied into this shard, then set aside.

Its deliveries keep their ids and due times; each is stored here first and removed there when that is on
disk, so a crash in between leaves it in both, and the second copy is refused by its id.

Owns: one foreign store while it is drained.
Never: delivers from it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.envelope import Delivery
from engine.core.errors import StoreError
from engine.store.environment import StoreOptions
from engine.store.lmdb import Store
from engine.store.records import Duplicate, schedule_key
from engine.telemetry.log import Log

if TYPE_CHECKING:
    from engine.shard.build import Engine

SLICE = 50  # deliveries moved between two turns of the loop
PAUSE_S = 0.01
FULL_PAUSE_S = 5.0

log = Log("orphans")


class OrphanStore:
    """Moves everything from one left store into the shard's own."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self.number = number
        directory = Path(engine.model.settings.engine.data_dir) / f"shard-{number}"
        self._store = Store(
            directory,
            loop=engine.loop,
            options=StoreOptions(
                map_size_bytes=engine.model.settings.engine.map_size_bytes,
                min_free_bytes=0,
                min_free_fraction=0.0,
            ),
        )
        self._after = b""
        self._under_way = 0
        self.moved = 0
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Open the store and begin."""
        self._store.open()
        log.info("draining a left store", store=self.number, deliveries=self._store.count())
        self._timer = self._engine.loop.call_later(PAUSE_S, self._step)

    def close(self) -> None:
        """Stop; what was not moved is moved next time."""
        if self._timer is not None:
            self._timer.cancel()
        self._store.close()

    def knows_claim(self, claim: str) -> bool:
        """Did that shard store the message of this spool file?"""
        return self._store.claim_of(claim) is not None

    def _step(self) -> None:
        if self._under_way:
            self._timer = self._engine.loop.call_later(PAUSE_S, self._step)
            return
        rows = self._store.schedule_slice(self._after, SLICE)
        if not rows:
            self._finish_or_restart()
            return
        pause_s = PAUSE_S
        for row in rows:
            delivery = self._store.load(row[2], row[0], row[1])
            if delivery is not None and not self._move(delivery):
                pause_s = FULL_PAUSE_S
                break
            self._after = schedule_key(*row)
        self._timer = self._engine.loop.call_later(pause_s, self._step)

    def _finish_or_restart(self) -> None:
        if self._after:
            self._after = b""
            self._timer = self._engine.loop.call_later(PAUSE_S, self._step)
            return
        self._store.close()
        log.info("left store is empty", store=self.number, moved=self.moved)
        directory = Path(self._engine.model.settings.engine.data_dir) / f"shard-{self.number}"
        directory.rename(directory.with_name(f"drained-{self.number}-{int(self._engine.started_at)}"))

    def _move(self, delivery: Delivery) -> bool:
        """Store a delivery here; False where there is no room now."""

        def done(error: StoreError | None) -> None:
            self._under_way -= 1
            if error is None or isinstance(error, Duplicate):
                self._store.remove(delivery)
                self.moved += 1
                if error is None:
                    self._engine.readahead.arrived(moved)

        moved = Delivery(
            delivery.message_id,
            delivery.index,
            delivery.envelope,
            delivery.domain,
            list(delivery.recipients),
            delivery.due_at,
            delivery.message,
            delivery.attempts,
            delivery.last_reply,
            delivery.held,
            True,
            delivery.told,
        )
        self._under_way += 1
        try:
            self._engine.store.put([moved], moved.message, done, is_forwarded=True)
        except StoreError:
            self._under_way -= 1
            return False
        return True
