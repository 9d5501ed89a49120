"""What is due, what waits, one delivery: the reading half of the store.

Reads show what is committed, less what has been staged to move or leave; so nothing is taken twice between
a staged `amend` or `remove` and its commit. `load` sees staged changes too. No read transaction outlives
its call.

Owns: nothing; it reads through what the store owns.
Fails: StoreDamaged on a damaged page, once the environment has told; a damaged record is for `load` to
report. What makes no sense in an index is left out, and doubted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lmdb

from engine.core.envelope import MESSAGE_ID_BYTES, Delivery, Envelope
from engine.core.errors import StoreDamaged, StoreUnhealthy
from engine.store.batch import Batch, Doubt
from engine.store.environment import Environment, Tables, translate
from engine.store.records import (
    POSITION_BYTES,
    DamagedRecord,
    decode_body,
    decode_claim,
    decode_delivery,
    is_queue,
    parse_head_key,
    parse_schedule_key,
    peek_envelope,
)
from engine.store.remembered import claim_key, decode_remembered, is_remembered, reply_key


class Snapshot:
    """One read transaction as a `with` block; lmdb's errors become ours."""

    __slots__ = ("_environment", "_has_buffers", "_txn")

    def __init__(self, environment: Environment, has_buffers: bool = False) -> None:
        self._environment = environment
        self._has_buffers = has_buffers

    def __enter__(self) -> Any:
        if self._environment.lmdb is None:
            raise StoreUnhealthy(f"{self._environment.path}: the store is closed")
        try:
            self._txn = self._environment.lmdb.begin(buffers=self._has_buffers)
        except lmdb.Error as error:  # of a commit that failed, which is told elsewhere
            raise translate(error, self._environment.path) from error
        return self._txn

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._txn.abort()
        if isinstance(error, lmdb.Error):
            translated = translate(error, self._environment.path)
            if isinstance(translated, StoreDamaged):
                self._environment.on_damaged(translated)
            raise translated from error


class Reading:
    """The calls that read; `Store` is one. `limit` bounds what a call returns and how long it takes."""

    def __init__(
        self,
        environment: Environment,
        staged: dict[bytes, Batch],
        batches: list[Batch],
        clock: Callable[[], float],
    ) -> None:
        """Args: staged: the batch of each delivery's last change; batches: not committed, oldest first."""
        self._environment = environment
        self._staged = staged
        self._batches = batches
        self._clock = clock

    @property
    def _tables(self) -> Tables:
        return self._environment.tables

    def due_queues(self, after: bytes, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (due in ms, queue) of queues whose earliest delivery is due, earliest first.

        Args:
            after: b"" or `head_key` of the last one returned, to go on from there.
        """
        with Snapshot(self._environment) as txn:
            found: list[tuple[int, bytes]] = []
            cursor = txn.cursor(db=self._tables.heads)
            if not _seek_behind(cursor, after):
                return found
            for key in cursor.iternext(values=False):
                due, queue = parse_head_key(key)
                if due > now_ms:
                    break
                if is_queue(queue):
                    found.append((due, queue))
                    if len(found) == limit:
                        break
                else:
                    self._doubt([Doubt("head", key)])
            return found

    def due_keys(self, queue: bytes, after: bytes, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (due in ms, delivery key) of what is due in one queue, earliest first.

        Args:
            after: b"" or `position` of the last one returned, to go on from there.
        """
        with Snapshot(self._environment) as txn:
            found: list[tuple[int, bytes]] = []
            staged = self._staged
            cursor = txn.cursor(db=self._tables.schedule)
            more = _seek_behind(cursor, queue + after) if after else cursor.set_range(queue)
            while more and len(found) < limit:
                schedule_key = cursor.key()
                if schedule_key[:-POSITION_BYTES] != queue:
                    break
                _, due, key = parse_schedule_key(schedule_key)
                if due > now_ms:
                    break
                if key not in staged:
                    found.append((due, key))
                more = cursor.next()
            return found

    def schedule_slice(self, after: bytes, limit: int) -> list[tuple[bytes, int, bytes]]:
        """Return (queue, due in ms, delivery key) in the order of the schedule: for sweeps over everything.

        Args:
            after: b"" or `schedule_key` of the last one returned. An empty result is the end.
        """
        with Snapshot(self._environment) as txn:
            found: list[tuple[bytes, int, bytes]] = []
            staged = self._staged
            cursor = txn.cursor(db=self._tables.schedule)
            more = _seek_behind(cursor, after)
            while more and len(found) < limit:
                entry = parse_schedule_key(cursor.key())
                if not is_queue(entry[0]):
                    self._doubt([Doubt("entry", cursor.key())])
                elif entry[2] not in staged:
                    found.append(entry)
                more = cursor.next()
            return found

    def _doubt(self, doubts: Iterable[Doubt]) -> None:
        """Have what is read of the indexes looked at again: they have no checksums. For `Store` to do."""
        raise NotImplementedError

    def queues(self, limit: int, after: bytes = b"") -> list[tuple[bytes, int]]:
        """Return (queue, its earliest due in ms) by name, behind the queue `after`."""
        with Snapshot(self._environment) as txn:
            found: list[tuple[bytes, int]] = []
            cursor = txn.cursor(db=self._tables.schedule)
            more = cursor.set_range(_behind_queue(after)) if after else cursor.first()
            while more and len(found) < limit:
                queue, due, _ = parse_schedule_key(cursor.key())
                if not is_queue(queue):  # and nothing can be sought behind it
                    more = cursor.next()
                    continue
                if queue <= after:  # out of order: it would go round for ever
                    break
                found.append((queue, due))
                after = queue
                more = cursor.set_range(_behind_queue(queue))
            return found

    def depth(self, queue: bytes, limit: int) -> int:
        """Count the deliveries of one queue, up to `limit`."""
        with Snapshot(self._environment) as txn:
            cursor = txn.cursor(db=self._tables.schedule)
            count, more = 0, cursor.set_range(queue)
            while more and count < limit and cursor.key()[:-POSITION_BYTES] == queue:
                count += 1
                more = cursor.next()
            return count

    def count(self) -> int:
        """Return how many deliveries are stored."""
        with Snapshot(self._environment) as txn:
            return int(txn.stat(db=self._tables.deliveries)["entries"])

    def count_unscheduled(self) -> int:
        """Return how many more deliveries are stored than are scheduled: 0 unless there is damage."""
        with Snapshot(self._environment) as txn:
            deliveries, schedule = (txn.stat(db=t) for t in (self._tables.deliveries, self._tables.schedule))
            return max(0, int(deliveries["entries"]) - int(schedule["entries"]))

    def damaged(self, limit: int, after: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Return (delivery key, what was set aside: for `decode_aside`)."""
        with Snapshot(self._environment) as txn:
            cursor = txn.cursor(db=self._tables.damaged)
            found: list[tuple[bytes, bytes]] = []
            more = _seek_behind(cursor, after)
            while more and len(found) < limit:
                found.append(cursor.item())
                more = cursor.next()
            return found

    def is_stored(self, delivery_key: bytes) -> bool:
        """Say whether the delivery is here, staged changes seen."""
        batch = self._staged.get(delivery_key)
        if batch is not None:
            return batch.deliveries.get(delivery_key) is not None
        with Snapshot(self._environment, has_buffers=True) as txn:
            return txn.get(delivery_key, db=self._tables.deliveries) is not None

    def remembered(self, delivery_key: bytes) -> bool:
        """Say whether this delivery came from another shard and has left within the last 24 hours."""
        for batch in self._batches:
            if delivery_key in batch.seen:
                return True
        return is_remembered(delivery_key, self._get(delivery_key, self._tables.seen), self._clock())

    def idempotent(self, customer: str, given_id: str) -> bytes | None:
        """Return the reply that this id got; b"" while its commit is under way; None if it is new.

        Raises:
            DamagedRecord: it may have been answered, and it can't be read with what.
        """
        key = reply_key(customer, given_id)
        for batch in self._batches:
            if key in batch.replies:
                return b""
        return decode_remembered(key, self._get(key, self._tables.replies), self._clock())

    def claim_of(self, name: str) -> bytes | None:
        """Return the id of the message that was stored under this claim, staged ones not seen.

        None where the record is damaged, which may be another file's: this one is taken again then.
        """
        key = claim_key(name)
        raw = self._get(key, self._tables.claims)
        try:
            return decode_claim(key, raw) if raw is not None else None
        except DamagedRecord:
            return None

    def list_claims(self, prefix: str, limit: int) -> list[str]:
        """Return the claims whose names begin with `prefix`, staged ones not seen."""
        octets = prefix.encode()
        with Snapshot(self._environment) as txn:
            cursor = txn.cursor(db=self._tables.claims)
            found: list[str] = []
            more = cursor.set_range(octets)
            while more and len(found) < limit and cursor.key().startswith(octets):
                found.append(cursor.key().decode("utf-8", "surrogateescape"))
                more = cursor.next()
            return found

    def peek(self, delivery_key: bytes) -> Delivery | None:
        """Return the delivery as committed, without its message, which is not checked: for people.

        None where it is gone, or damaged, which `load` reports.
        """
        with Snapshot(self._environment, has_buffers=True) as txn:
            return self._peek(txn, delivery_key)

    def deliveries_of(self, message_id: bytes) -> list[Delivery]:
        """Return the deliveries of a message that are left, as `peek` does."""
        with Snapshot(self._environment, has_buffers=True) as txn:
            found: list[Delivery] = []
            cursor = txn.cursor(db=self._tables.deliveries)
            more = cursor.set_range(message_id)
            while more and (key := bytes(cursor.key())).startswith(message_id):
                if (delivery := self._peek(txn, key)) is not None:
                    found.append(delivery)
                more = cursor.next()
            return found

    def _peek(self, txn: Any, delivery_key: bytes) -> Delivery | None:
        record = txn.get(delivery_key, db=self._tables.deliveries)
        body = txn.get(delivery_key[:MESSAGE_ID_BYTES], db=self._tables.bodies)
        if record is None or body is None:
            return None
        try:
            return decode_delivery(delivery_key, record, peek_envelope(body), b"")
        except DamagedRecord:
            return None

    def _get(self, key: bytes, table: object) -> bytes | None:
        with Snapshot(self._environment) as txn:
            raw: bytes | None = txn.get(key, db=table)
            return raw

    def _read(self, delivery_key: bytes) -> Delivery | None:
        """Return the delivery with its message, staged changes seen; raises DamagedRecord."""
        staged = self._staged.get(delivery_key)
        if staged is not None and staged.deliveries.get(delivery_key) is None:
            return None
        with Snapshot(self._environment, has_buffers=True) as txn:
            if staged is not None:
                record = staged.deliveries[delivery_key]
            else:
                record = txn.get(delivery_key, db=self._tables.deliveries)
            if record is None:
                return None
            envelope, message = self._read_body(txn, delivery_key[:MESSAGE_ID_BYTES])
            return decode_delivery(delivery_key, record, envelope, message)

    def _read_body(self, txn: Any, message_id: bytes) -> tuple[Envelope, bytes]:
        for batch in self._batches:
            if message_id in batch.bodies:
                return decode_body(message_id, batch.bodies[message_id])
        return decode_body(message_id, txn.get(message_id, db=self._tables.bodies) or b"")


def _seek_behind(cursor: Any, after: bytes) -> bool:
    """Stand on the first key behind `after`; b"" is the beginning."""
    if not after:
        return bool(cursor.first())
    if not cursor.set_range(after):
        return False
    return bool(cursor.next()) if cursor.key() == after else True


def _behind_queue(queue: bytes) -> bytes:
    """Return the least key that is behind all keys of `queue`: names end with NUL."""
    return queue[:-1] + b"\x01"
