"""The indexes compared with the records, a few at a time, without end: what damage there would do for ever.

The schedule and its heads have no checksums. An entry that a flipped bit has moved makes its delivery wait
for years, and one that is gone for good, with nobody to notice; a head that is gone hides its queue. What
comes up is noticed by `load`; what does not is noticed here. Three tables in turn: each head against its
queue, each entry against its record and its queue's head, each record against its entry.

A slice is one read transaction, in which records and indexes agree, so nothing that is under way is doubted.

Owns: how far the sweep has come.
Never: changes anything; what is doubted is settled by `mend`, in a commit.
Fails: StoreDamaged, once the environment has told, where records are out of order, or an index is and mending
does not help.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.core.errors import StoreDamaged
from engine.store.batch import Doubt
from engine.store.environment import Environment
from engine.store.mend import entry_of
from engine.store.reading import Snapshot
from engine.store.records import (
    POSITION_BYTES,
    DamagedRecord,
    head_key,
    parse_head_key,
    parse_schedule_key,
)

TABLES = {"heads": "head", "schedule": "entry", "deliveries": "delivery"}  # and what is doubted of them
MAX_STRAYS = 100  # of one round: more than a few altered bits


class Sweep:
    """Goes over the tables of one open environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._table = 0
        self._after = b""
        self._before = b""  # the key in front of it
        self._queue = b""  # of the last entry of the schedule
        self._strays = 0
        self.is_stopped = False  # at a key out of order, until a commit has mended that

    def step(self, limit: int) -> tuple[set[Doubt], bool]:
        """Look at the next entries; return what is doubted, and whether all tables have been looked at.

        Args:
            limit: how many, of one table.
        """
        doubts: set[Doubt] = set()
        with Snapshot(self._environment, has_buffers=True) as txn:
            check = (self._check_heads, self._check_schedule, self._check_deliveries)[self._table]
            count = check(txn, limit, doubts)
        if count == limit or self.is_stopped:
            return doubts, False
        self._after = self._before = self._queue = b""
        self._table = (self._table + 1) % len(TABLES)
        if self._table == 0:
            self._strays = 0
        return doubts, self._table == 0

    def _rows(self, txn: Any, limit: int, doubts: set[Doubt]) -> Iterator[tuple[bytes, Any]]:
        """Yield the keys behind the last one, and their records; stop at one that is out of order.

        They are gone on with from the key in front of it: a search for one that was altered would be led
        astray, past everything that it stands in front of. Each is searched for from the root as well (a
        cursor would look at its own page first), for the branches above it may have been altered.
        """
        table = getattr(self._environment.tables, self._name)
        cursor = txn.cursor(db=table)
        more = cursor.set_range(self._before) if self._before else cursor.first()
        last = b""
        while more and limit > 0:
            key = bytes(cursor.key())
            if key <= last:
                self._stop(doubts, last, key)
                return
            last = key
            if key > self._after:
                record = txn.get(key, db=table)
                if record is None:
                    self._stop(doubts, key)
                    return
                self._before, self._after = self._after, key
                yield key, record
                limit -= 1
            more = cursor.next()

    @property
    def _name(self) -> str:
        return tuple(TABLES)[self._table]

    def _stop(self, doubts: set[Doubt], *keys: bytes) -> None:
        """Doubt keys of which one at least is where no search finds it."""
        self._strays += 1
        if self._name == "deliveries" or self._strays > MAX_STRAYS:
            self._fail(f"{' or '.join(key.hex() for key in keys)} is out of order in {self._name}")
        doubts.update(Doubt(TABLES[self._name], key, self._before) for key in keys)
        self.is_stopped = True

    def _check_heads(self, txn: Any, limit: int, doubts: set[Doubt]) -> int:
        tables, count = self._environment.tables, 0
        schedule = txn.cursor(db=tables.schedule)
        for head, _ in self._rows(txn, limit, doubts):
            count += 1
            due, queue = parse_head_key(head)
            first = bytes(schedule.key()) if schedule.set_range(queue) else b""
            if first[:-POSITION_BYTES] != queue or parse_schedule_key(first)[1] != due:
                doubts.add(Doubt("head", head))
        return count

    def _check_schedule(self, txn: Any, limit: int, doubts: set[Doubt]) -> int:
        tables, count = self._environment.tables, 0
        heads, bodies = txn.cursor(db=tables.heads), txn.cursor(db=tables.bodies)
        for entry, _ in self._rows(txn, limit, doubts):
            count += 1
            if len(entry) <= POSITION_BYTES:
                self._fail(f"{entry.hex()} in the schedule is no entry")
            queue, due, key = parse_schedule_key(entry)
            if queue != self._queue:
                self._queue = queue
                if not heads.set_key(head := head_key(due, queue)):
                    doubts.add(Doubt("head", head))
            record = txn.get(key, db=tables.deliveries)
            if record is None or _differs(entry, key, record, bodies):
                doubts.add(Doubt("entry", entry))
        return count

    def _check_deliveries(self, txn: Any, limit: int, doubts: set[Doubt]) -> int:
        tables, count = self._environment.tables, 0
        bodies, schedule = txn.cursor(db=tables.bodies), txn.cursor(db=tables.schedule)
        for key, record in self._rows(txn, limit, doubts):
            count += 1
            try:
                entry = entry_of(key, record, bodies)
            except DamagedRecord:
                continue
            if not schedule.set_key(entry):
                doubts.add(Doubt("delivery", key))
        return count

    def _fail(self, why: str) -> None:
        error = StoreDamaged(f"{self._environment.path}: {why}")
        self._environment.on_damaged(error)
        raise error


def _differs(entry: bytes, key: bytes, record: Any, bodies: Any) -> bool:
    """Say whether a record says otherwise than its entry; a damaged one is for `load` to report."""
    try:
        return entry_of(key, record, bodies) != entry
    except DamagedRecord:
        return False
