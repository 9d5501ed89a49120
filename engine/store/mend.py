"""What is doubted about the indexes, looked at once more and put right, within the transaction of a commit.

Whoever reads (`load`, the sweep) only names what it doubts; what is true is decided here, behind the changes
of the same commit, so that nothing that is under way can make a doubt wrong. The records are what counts,
for they have checksums: an entry of the schedule that says otherwise is moved to where its record says, one
that is missing is put, a head is its queue's first.

An entry without a record is damage in the records. The record may stand near by under an altered key, which
its checksum tells: it gets its own back. It may be the entry that was altered: then another delivery of its
message has none, and gets it. Else, where the body names its only recipient, the record is written anew;
otherwise what is left is set aside.

Owns: which of index and record is right.
Never: begins or commits a transaction.
Fails: StoreDamaged where keys are out of order: what is searched for may be there and not be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.core.envelope import MESSAGE_ID_BYTES
from engine.core.errors import StoreDamaged
from engine.store.batch import Batch, Doubt
from engine.store.environment import Tables
from engine.store.index import change_schedule
from engine.store.rebuild import rebuild_delivery
from engine.store.records import (
    POSITION_BYTES,
    DamagedRecord,
    encode_aside,
    encode_delivery,
    head_key,
    is_record_of,
    parse_head_key,
    parse_schedule_key,
    peek_envelope,
    peek_place,
    schedule_key,
    schedule_key_of,
)

NEIGHBORS = 128  # looked at on both sides of a record that is not found; a page holds some 40


def entry_of(key: bytes, record: Any, bodies: Any) -> bytes:
    """Return where a delivery stands in the schedule by its record.

    Args:
        bodies: cursor of the table; used where the record, of an earlier version, does not name the customer.

    Raises:
        DamagedRecord: record or body don't say.
    """
    customer, domain, due = peek_place(key, record)
    if not customer:
        if not bodies.set_key(key[:MESSAGE_ID_BYTES]):
            raise DamagedRecord("body: 0 octets")
        customer = peek_envelope(bodies.value()).customer
    return schedule_key(f"{customer}\0{domain}\0".encode(), due, key)


class Mending:
    """The doubts of one batch, settled in its transaction."""

    def __init__(self, txn: Any, tables: Tables, batch: Batch, unix_now: float) -> None:
        self._txn = txn
        self._tables = tables
        self._batch = batch
        self._unix_now = unix_now
        self._schedule = txn.cursor(db=tables.schedule)
        self._heads = txn.cursor(db=tables.heads)
        self._deliveries = txn.cursor(db=tables.deliveries)
        self._bodies = txn.cursor(db=tables.bodies)
        self._doubted_heads: set[bytes] = set()

    def run(self) -> None:
        """Settle all; what was done is noted in the batch."""
        doubts = sorted(doubt for doubt in self._batch.doubts if doubt.near is None)
        self._settle_strays([doubt for doubt in self._batch.doubts if doubt.near is not None])
        # Entries first: what explains one without a record is a delivery that has no entry yet.
        for doubt in doubts:
            if doubt.kind == "entry":
                self._settle_entry(doubt.key)
        for doubt in doubts:
            if doubt.kind == "delivery":
                self._settle_delivery(doubt.key)
        self._doubted_heads.update(doubt.key for doubt in doubts if doubt.kind == "head")
        for head in sorted(self._doubted_heads):
            self._settle_head(head)

    def _settle_strays(self, strays: list[Doubt]) -> None:
        """Take out what is out of order in an index, found by its neighbors; then put what is right.

        Raises:
            StoreDamaged: nothing is wrong with any of them: the table is beyond mending.
        """
        gone = [stray.key for stray in strays if stray.kind == "entry" and self._take_out_entry(stray)]
        heads = [stray.key for stray in strays if stray.kind == "head" and self._take_out_head(stray)]
        if strays and not gone and not heads:
            raise StoreDamaged(
                f"{' or '.join(stray.key.hex() for stray in strays)} is out of order in an index"
            )
        for entry in gone:
            self._batch.mended.append(f"the schedule had {entry.hex()} out of order")
            queue, due, key = parse_schedule_key(entry)
            self._doubted_heads.add(head_key(due, queue))
            if self._deliveries.set_key(key):
                self._settle_delivery(key)
            elif len(entry) > POSITION_BYTES:
                self._settle_lone_entry(entry, key)
        for head in heads:
            self._batch.mended.append(f"the heads had {head.hex()} out of order")
            self._doubted_heads.add(head)

    def _take_out_entry(self, stray: Doubt) -> bool:
        """Remove an entry from where it stands; False where it is right, or not there."""
        key = parse_schedule_key(stray.key)[2]
        record = self._txn.get(key, db=self._tables.deliveries)
        try:
            if record is not None and entry_of(key, record, self._bodies) == stray.key:
                return False
        except DamagedRecord:
            return False
        return self._take_out(self._schedule, stray)

    def _take_out_head(self, stray: Doubt) -> bool:
        """Remove a head from where it stands; False where it is right, or not there."""
        return stray.key != self._right_head(parse_head_key(stray.key)[1]) and self._take_out(
            self._heads, stray
        )

    def _take_out(self, cursor: Any, stray: Doubt) -> bool:
        for here in _around(cursor, stray.near or b""):
            if here == stray.key:
                cursor.delete()
                return True
        return False

    def _settle_entry(self, entry: bytes) -> None:
        if len(entry) <= POSITION_BYTES:
            raise StoreDamaged(f"{entry.hex()} in the schedule is no entry")
        if not self._schedule.set_key(entry):
            return
        key = parse_schedule_key(entry)[2]
        if not self._deliveries.set_key(key):
            self._settle_lone_entry(entry, key)
            return
        try:
            expected = entry_of(key, self._deliveries.value(), self._bodies)
        except DamagedRecord:
            return  # `load` sets it aside
        if expected != entry:
            self._change({entry: False, expected: True})
            self._batch.mended.append(f"delivery {key.hex()} was in the schedule where it should not be")

    def _settle_delivery(self, key: bytes) -> bool:
        """See to it that a delivery is in the schedule; True if it was not."""
        if not self._deliveries.set_key(key):
            return False
        try:
            expected = entry_of(key, self._deliveries.value(), self._bodies)
        except DamagedRecord:
            return False
        if self._schedule.set_key(expected):
            return False
        self._change({expected: True})
        self._batch.mended.append(f"delivery {key.hex()} was not in the schedule")
        return True

    def _settle_head(self, head: bytes) -> None:
        _, queue = parse_head_key(head)
        right = self._right_head(queue)
        name = queue.replace(b"\0", b"/").decode("utf-8", "replace")
        if head != right and self._heads.set_key(head):
            self._heads.delete()
            self._batch.mended.append(f"a head was not the first of its queue {name}")
        if right and not self._heads.set_key(right):
            self._heads.put(right, b"")
            self._batch.mended.append(f"queue {name} had no head")

    def _right_head(self, queue: bytes) -> bytes:
        """Return the head that a queue should have; b"" where it is empty."""
        first = self._schedule.key() if self._schedule.set_range(queue) else b""
        return head_key(parse_schedule_key(first)[1], queue) if first[:-POSITION_BYTES] == queue else b""

    def _settle_lone_entry(self, entry: bytes, key: bytes) -> None:
        """Find out whose an entry is that has no record."""
        displaced = self._look_around(key)
        if displaced:
            self._move_record(displaced, key)
            self._settle_entry(entry)
            return
        message_id = key[:MESSAGE_ID_BYTES]
        siblings = self._siblings(message_id)
        are_put = [self._settle_delivery(sibling) for sibling in siblings]
        if any(are_put) or not self._bodies.set_key(message_id):
            self._change({entry: False})
            self._batch.mended.append(f"the schedule had an entry of {key.hex()}, which is not stored")
            return
        body = self._bodies.value()
        delivery = None if siblings else rebuild_delivery(message_id, body)
        if delivery is not None:
            delivery.due_at = parse_schedule_key(entry)[1] / 1000
            self._txn.put(delivery.key, encode_delivery(delivery), db=self._tables.deliveries)
            self._change({entry: False, schedule_key_of(delivery): True})
            self._batch.mended.append(
                f"delivery {delivery.key.hex()} had no record; its body names its recipient"
            )
            return
        detail = "delivery: in the schedule, and its record is gone"
        aside = encode_aside(key, detail, self._unix_now, None, None if siblings else body)
        self._txn.put(key, aside, db=self._tables.damaged)
        if not siblings:
            self._txn.delete(message_id, db=self._tables.bodies)
        self._change({entry: False})
        self._batch.lost.append((key, detail))

    def _siblings(self, message_id: bytes) -> list[bytes]:
        cursor, found = self._deliveries, []
        more = cursor.set_range(message_id)
        while more and (key := cursor.key()).startswith(message_id):
            found.append(key)
            more = cursor.next()
        return found

    def _look_around(self, key: bytes) -> bytes:
        """Return under which key near by the record of `key` stands; b"" if it doesn't.

        Raises:
            StoreDamaged: the keys there are out of order, or it does.
        """
        found = before = b""
        for here in _around(self._deliveries, key):
            if here <= before:
                raise StoreDamaged(f"delivery {here.hex()} stands behind {before.hex()}")
            if here == key:
                raise StoreDamaged(f"delivery {key.hex()} is stored where no search finds it")
            before = here
            if is_record_of(key, self._deliveries.value()):
                found = here
        return found

    def _move_record(self, displaced: bytes, key: bytes) -> None:
        """Give a record its own key back."""
        self._deliveries.set_key(displaced)
        record = self._deliveries.value()
        self._deliveries.delete()
        self._txn.put(key, record, db=self._tables.deliveries)
        self._batch.mended.append(f"the record of delivery {key.hex()} stood under {displaced.hex()}")

    def _change(self, changes: dict[bytes, bool]) -> None:
        """Change the schedule, and look at the heads of the queues concerned."""
        change_schedule(self._schedule, self._heads, changes)
        for entry in changes:
            queue, due, _ = parse_schedule_key(entry)
            self._doubted_heads.add(head_key(due, queue))


def _around(cursor: Any, near: bytes) -> Iterator[bytes]:
    """Yield the keys around the place of `near`, the cursor standing on each."""
    if not cursor.set_range(near or b"\0") and not cursor.last():
        return
    for _ in range(NEIGHBORS):
        if not cursor.prev():
            cursor.first()
            break
    for _ in range(2 * NEIGHBORS):
        yield cursor.key()
        if not cursor.next():
            return
