"""The store of a shard: what was accepted, until its last disposition.

With `durability = "sync"` a put is told when an fdatasync has covered it; with `"async"` at once, and a
commit, synced, comes each 200 ms: a crash loses at most that.

New mail is refused before map or disk are full, so that deliveries, whose removals need room too, go on.

Owns: one directory, its environment, what is staged for it.
Never: decides what is due, or for whom.
Fails: StoreFull and StoreUnhealthy, at the call or through `done`; StoreDamaged is the latter where trying
again won't help.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.core.envelope import MESSAGE_ID_BYTES, Delivery
from engine.core.errors import StoreError, StoreFull
from engine.store.batch import Batch, Done, Doubt
from engine.store.commit import Journal
from engine.store.environment import Environment, Room, StoreOptions
from engine.store.group import GroupCommit, Stats
from engine.store.reading import Reading, Snapshot
from engine.store.records import (
    DamagedRecord,
    Duplicate,
    due_ms,
    encode_aside,
    encode_claim,
    parse_schedule_key,
    schedule_key,
)
from engine.store.remembered import REMEMBERED_S, claim_key, encode_remembered, reply_key
from engine.store.sweep import Sweep

MAX_STAGED_BYTES = 128 << 20  # what may wait for a disk that hangs; beyond that 452
ROOM_S = 0.25  # how old the measure of room may be: 4 times a second at most, some 20 microseconds each
ROOM_SHARE = 8  # ... or how much was put since: an eighth of the reserve, which large mail fills sooner
ROOM_LEAST_BYTES = 1 << 20  # ... and this much in any case


def _ignore(*_: object) -> None:
    pass


class Store(Reading):
    """One environment with group commit. Every call is on the loop; `done` comes later, on the loop, once."""

    def __init__(  # noqa: PLR0913 (whom it tells what, given once by the shard)
        self,
        path: Path,
        *,
        loop: asyncio.AbstractEventLoop,
        options: StoreOptions | None = None,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.time,
        on_damaged: Callable[[bytes, str], None] = _ignore,
        on_mended: Callable[[list[str]], None] = _ignore,
        on_unhealthy: Callable[[StoreError], None] = _ignore,
        observe_commit_s: Callable[[float], None] = _ignore,
    ) -> None:
        """Nothing is touched until `open`.

        Args:
            clock: Unix UTC seconds.
            on_damaged: delivery key and detail of what was set aside.
            on_mended: what was put right in the indexes.
            on_unhealthy: called once; from then on nothing is committed.
            observe_commit_s: seconds of each commit, journal included.
        """
        self.options = options or StoreOptions()
        environment = Environment(path, self.options)
        self._group = GroupCommit(
            environment,
            loop=loop,
            is_async=self.options.durability == "async",
            journal=journal,
            unix_clock=clock,
            observe_commit_s=observe_commit_s,
            on_unhealthy=on_unhealthy,
            on_mended=self._mended,
        )
        environment.on_damaged = self._group.fail
        super().__init__(environment, self._group.staged, self._group.batches, clock)
        self._loop = loop
        self._on_damaged = on_damaged
        self._on_mended = on_mended
        self._sweep = Sweep(environment)
        self._room_reason = ""
        self._measured_at = 0.0
        self._measured_put_bytes = 0  # put since room was measured
        self._remeasure_bytes = max(self.options.min_free_bytes // ROOM_SHARE, ROOM_LEAST_BYTES)

    def open(self) -> None:
        """Take the directory and open the environment; waits up to `lock_wait_s` for its last owner.

        Raises:
            StoreUnhealthy: another process owns it, or the disk fails.
            StoreDamaged: the file can't be trusted.
        """
        self._environment.open()
        try:
            self._measure()
        except StoreError:
            self._environment.close()
            raise
        self._group.start()

    def close(self) -> None:
        """Commit what is staged, tell everybody, close; waits for the disk. May be called twice."""
        if self._environment.lmdb is not None:
            self._group.stop()
        self._environment.close()

    @property
    def staged_bytes(self) -> int:
        """Octets that wait for a commit."""
        return self._group.staged_bytes

    @property
    def stats(self) -> Stats:
        return self._group.stats

    @property
    def failure(self) -> StoreError | None:
        """Why the store is unhealthy, None while it is not."""
        return self._group.failure

    @property
    def full_reason(self) -> str:
        """Why new mail is refused; "" while there is room."""
        if self._loop.time() - self._measured_at > ROOM_S or self._measured_put_bytes > self._remeasure_bytes:
            self._measure()
        return self._group.no_room or self._room_reason

    @property
    def is_full(self) -> bool:
        return bool(self.full_reason)

    @property
    def room(self) -> Room:
        """How full map and disk are, measured now."""
        return self._environment.room()

    def put(
        self,
        deliveries: list[Delivery],
        message: bytes,
        done: Done,
        *,
        claim: str = "",
        idempotency: str = "",
        reply: bytes = b"",
        is_forwarded: bool = False,
        is_own: bool = False,
    ) -> None:
        """Stage a message with its deliveries: one message id, one envelope. HOT.

        Args:
            claim: name under which a spool file was claimed; kept until `forget_claim`.
            idempotency: id that the injector gave; `reply` is kept for it for 24 hours.
            is_forwarded: from another shard; deliveries known here are left out, `Duplicate` if all are.
            is_own: the engine's own mail (a bounce), for which the room behind the watermark is kept.

        Raises:
            StoreFull: no room, nothing was staged.
            StoreUnhealthy: nothing was staged.
        """
        if not is_own or self._group.failure is not None:
            self._check_can_put()
        if is_forwarded:
            known = self._known(deliveries)
            if len(known) == len(deliveries):
                self._loop.call_soon(done, Duplicate(f"{deliveries[0].message_id.hex()} is known"))
                return
            deliveries = [delivery for delivery in deliveries if delivery.key not in known]
            for delivery in deliveries:
                delivery.is_remembered = True
        group = self._group
        batch = group.batch
        self._measured_put_bytes += len(message)
        for key in batch.put(deliveries, message):
            group.staged[key] = batch
        if claim:
            key = claim_key(claim)
            batch.claim(key, encode_claim(key, deliveries[0].message_id))
        if idempotency:
            key = reply_key(deliveries[0].envelope.customer, idempotency)
            batch.answer(key, encode_remembered(key, self._clock() + REMEMBERED_S, reply))
        group.tell(done)

    def amend(self, delivery: Delivery, due_at: float) -> None:
        """Stage the present state of a delivery and its move to `due_at` (Unix seconds). HOT.

        `delivery.due_at` is where it stands now; afterwards it is `due_at`.
        """
        group = self._group
        group.staged[group.batch.amend(delivery, due_at)] = group.batch
        group.want()

    def remove(self, delivery: Delivery) -> None:
        """Stage the leaving of a delivery; its message leaves with its last delivery. HOT.

        Where `is_remembered` is set its key stays known for 24 hours. One that goes to another shard, which
        may give it back, must have it unset.
        """
        group = self._group
        batch, key = group.batch, delivery.key
        if batch.remove(delivery):
            group.staged[key] = batch
        else:
            group.staged.pop(key, None)
        if delivery.is_remembered:
            batch.remember(key, encode_remembered(key, self._clock() + REMEMBERED_S))
        group.want()

    def forget_claim(self, name: str) -> None:
        """Stage the leaving of a claim: its spool file is unlinked."""
        self._group.batch.forget_claim(claim_key(name))
        self._group.want()

    def restore(self, kind: str, key: bytes, record: bytes) -> None:
        """Stage what another store remembers, a `claim`, a `seen` id or a `reply`; what is here stays."""
        if self._get(key, self._tables.remembering(kind)) is None:
            self._group.batch.restore(kind, key, record)
            self._group.want()

    def when_durable(self, done: Done) -> None:
        """Have `done` called when everything staged and journaled so far is on disk."""
        self._group.tell_durable(done)

    def load(self, delivery_key: bytes, queue: bytes = b"", due: int = 0) -> Delivery | None:
        """Return a delivery with its message, staged changes seen; None if it is gone or was set aside.

        Args:
            queue, due: where the schedule has it (ms). One that should be elsewhere is None: it is put there,
                and comes up in its turn.

        Raises:
            StoreDamaged: a page is damaged.
        """
        try:
            delivery = self._read(delivery_key)
        except DamagedRecord as error:
            self._set_aside(delivery_key, str(error))
            self._on_damaged(delivery_key, str(error))
            if queue:
                self._unschedule(delivery_key, schedule_key(queue, due, delivery_key))
            return None
        if queue and (delivery is None or not 0.0 <= delivery.due_at * 1000 - due < 1.0):
            return self._check_entry(delivery, schedule_key(queue, due, delivery_key))
        return delivery

    def check(self, limit: int) -> bool | None:
        """Compare the next few entries and records of the indexes.

        Returns:
            Whether all have had their turn; None while a commit has to mend something first.

        Args:
            limit: 2.3 microseconds each where they are in memory.

        Raises:
            StoreDamaged: a page is damaged, or an index makes no sense.
        """
        if self._sweep.is_stopped:
            return None
        doubts, is_round = self._sweep.step(limit)
        if doubts:
            self._doubt(doubts)
        return None if self._sweep.is_stopped else is_round

    def idempotent(self, customer: str, given_id: str) -> bytes | None:
        try:
            return super().idempotent(customer, given_id)
        except DamagedRecord as error:
            self._on_damaged(reply_key(customer, given_id), str(error))
            raise

    def _check_can_put(self) -> None:
        group = self._group
        if group.failure is not None:
            raise group.failure
        if reason := self.full_reason:
            raise StoreFull(reason)
        if group.staged_bytes > MAX_STAGED_BYTES:
            raise StoreFull(f"{self._environment.path}: {group.staged_bytes} octets wait for a commit")

    def _known(self, deliveries: list[Delivery]) -> set[bytes]:
        """Return the keys that are stored or remembered here.

        Raises:
            StoreError: one is just being stored, so nothing can be said before that has ended.
        """
        keys = [delivery.key for delivery in deliveries]
        for batch in self._batches:
            if any(batch.is_fresh(key) for key in keys):
                raise StoreError(f"{keys[0][:MESSAGE_ID_BYTES].hex()} is just being stored; ask again")
        return {key for key in keys if self.is_stored(key) or self.remembered(key)}

    def _check_entry(self, delivery: Delivery | None, entry: bytes) -> Delivery | None:
        """Return a delivery if it is due when its entry has it; otherwise the entry is doubted."""
        _, due, key = parse_schedule_key(entry)
        if key in self._staged or (delivery is not None and due_ms(delivery.due_at) == due):
            return delivery
        self._doubt([Doubt("entry", entry)])
        return None

    def _doubt(self, doubts: Iterable[Doubt]) -> None:
        self._group.batch.doubt(doubts)
        self._group.want()

    def _mended(self, batch: Batch) -> None:
        self._sweep.is_stopped = False
        for key, detail in batch.lost:
            self._on_damaged(key, detail)
        if batch.mended:
            self._on_mended(batch.mended)

    def _unschedule(self, delivery_key: bytes, entry: bytes) -> None:
        """Take away a schedule entry that has no delivery, unless a staged change does."""
        batch = self._group.batch
        staged = self._staged.get(delivery_key)
        if staged is None or staged is batch:
            batch.schedule[entry] = False
            batch.operations += 1
            self._group.want()

    def _set_aside(self, delivery_key: bytes, detail: str) -> None:
        tables = self._tables
        with Snapshot(self._environment) as txn:
            record = txn.get(delivery_key, db=tables.deliveries)
            body = txn.get(delivery_key[:MESSAGE_ID_BYTES], db=tables.bodies)
        batch = self._group.batch
        batch.set_aside(delivery_key, encode_aside(delivery_key, detail, self._clock(), record, body))
        self._staged[delivery_key] = batch
        self._group.want()

    def _measure(self) -> None:
        self._measured_at = self._loop.time()
        self._measured_put_bytes = 0
        self._room_reason = self._environment.why_full(self._environment.room())
