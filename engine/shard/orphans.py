"""A store that a larger number of shards has left: emptied into this shard, and after a day set aside.

Its deliveries keep their ids and due times; each is stored here first and removed there when that is on
disk, so a crash in between leaves it in both, and the second copy is refused by its id.

What it remembers for 24 hours, deliveries from other shards and ids of injectors, is asked of it for so long.

Owns: one foreign store until it is set aside.
Never: delivers from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.envelope import Delivery
from engine.core.errors import StoreError
from engine.store.environment import StoreOptions
from engine.store.lmdb import Store
from engine.store.records import Duplicate, schedule_key
from engine.store.remembered import REMEMBERED_S
from engine.telemetry.log import Log

if TYPE_CHECKING:
    from engine.shard.build import Engine

SLICE = 50  # deliveries moved between two turns of the loop
PAUSE_S = 0.01
FULL_PAUSE_S = 5.0
CHECKED = 500  # records compared with the schedule between two turns of the loop: 1 ms
LOOK_S = 3600.0  # how often an empty store is looked at whether it may be set aside

log = Log("orphans")


class OrphanStore:
    """Moves everything from one left store into the shard's own."""

    def __init__(
        self, engine: Engine, number: int, keep_until: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Args: keep_until: Unix UTC; nothing that it remembers is good for longer."""
        self._engine = engine
        self._keep_until = keep_until
        self._clock = clock
        self.number = number
        self._directory = Path(engine.model.settings.engine.data_dir) / f"shard-{number}"
        self._store = Store(
            self._directory,
            loop=engine.loop,
            options=StoreOptions(
                map_size_bytes=engine.model.settings.engine.map_size_bytes,
                min_free_bytes=0,
                min_free_fraction=0.0,
            ),
            clock=clock,
            on_unhealthy=partial(engine.store_trouble.failed, self._directory),
        )
        self._after = b""
        self._under_way = 0
        self.moved = 0
        self._is_empty = False
        self._is_checked = False  # for deliveries that the schedule does not name, which would be set aside
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Open the store and begin; of a damaged one what can be read is salvaged, by this shard."""
        self._engine.store_trouble.open(self._directory, self._store.open)
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

    def knows(self, key: bytes) -> bool:
        """Has that shard this delivery, or has it had it from another shard until it left?"""
        return self._store.is_stored(key) or self._store.remembered(key)

    def remembers(self, key: bytes) -> bool:
        """Has that shard had this delivery from another shard until it left?"""
        return self._store.remembered(key)

    def idempotent(self, customer: str, given_id: str) -> bytes | None:
        """Return what that shard answered to an injector's id."""
        return self._store.idempotent(customer, given_id)

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

    def _go_on(self, error: StoreError | None) -> None:
        """What was found missing in the schedule is in it again."""
        if error is None:
            self._timer = self._engine.loop.call_later(PAUSE_S, self._step)

    def _finish_or_restart(self) -> None:
        if self._after:
            self._after = b""
            self._timer = self._engine.loop.call_later(PAUSE_S, self._step)
            return
        if not self._is_checked and self._store.count_unscheduled():
            self._is_checked = self._store.check(CHECKED) is True
            self._store.when_durable(self._go_on)
            return
        if not self._is_empty:
            self._is_empty = True
            log.info("left store is empty", store=self.number, moved=self.moved)
        left_s = self._keep_until - self._clock()
        if left_s > 0.0:
            self._timer = self._engine.loop.call_later(min(left_s + 1.0, LOOK_S), self._finish_or_restart)
            return
        del self._engine.orphans[self.number]
        self._store.close()
        directory = self._directory
        directory.rename(directory.with_name(f"drained-{self.number}-{int(self._engine.started_at)}"))

    def _move(self, delivery: Delivery) -> bool:
        """Store a delivery here; False where there is no room now."""

        def done(error: StoreError | None) -> None:
            self._under_way -= 1
            if error is None or isinstance(error, Duplicate):
                delivery.is_remembered = False  # here it is remembered from now on
                self._store.remove(delivery)
                self.moved += 1
                if error is None and not moved.held and moved.due_at <= self._clock():
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
            delivery.avoid,
        )
        self._under_way += 1
        try:
            self._engine.store.put([moved], moved.message, done, is_forwarded=True)
        except StoreError:
            self._under_way -= 1
            return False
        return True


class LeftStores(dict[int, OrphanStore]):
    """The stores that this shard drains, by number; for a day after a change of the number of shards."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._recall_until = 0.0

    def adopt(self, numbers: Iterable[int], recounted_at: float) -> None:
        """Drain stores that a larger number of shards has left; `recounted_at`: when (Unix UTC)."""
        self._recall_until = recounted_at + REMEMBERED_S
        for number in numbers:
            if number not in self:
                self[number] = OrphanStore(self._engine, number, self._recall_until)
                self[number].open()
                self._engine.salvages.begin()

    @property
    def may_recall(self) -> bool:
        """Whether another shard may remember what is asked of this one: their number changed of late."""
        return time.time() < self._recall_until

    def know(self, key: bytes) -> bool:
        """Has one of them this delivery, or has it had it from another shard until it left?"""
        return any(orphan.knows(key) for orphan in self.values())

    def remember(self, key: bytes) -> bool:
        """Has one of them had this delivery from another shard until it left?"""
        return any(orphan.remembers(key) for orphan in self.values())
