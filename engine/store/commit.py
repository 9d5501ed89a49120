"""One batch into one transaction, and the thread that commits it.

The changes are made on the loop: they are a few microseconds a message and take nothing from the disk. Only
what waits for the disk (the event lines, then LMDB's own commit) runs in the thread, which holds the
interpreter for some ten microseconds a commit. `bench/store_commit.py` has the figures of the ways that
lost.

Owns: the order event lines, then transaction; and the commit thread.
Never: decides when to commit, or what to do when it failed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

from engine.core.envelope import MESSAGE_ID_BYTES
from engine.store.batch import Batch
from engine.store.environment import Tables
from engine.store.index import change_schedule
from engine.store.mend import Mending
from engine.store.records import DamagedRecord, parse_schedule_key, peek_place, schedule_key
from engine.store.remembered import LOOKS_PER_RECORD, Circle

SWITCH_INTERVAL_S = 0.00002  # bench/store_commit.py

Finished = Callable[[Exception | None, float], None]  # why it failed, seconds that it took


class Journal(Protocol):
    """What must be on disk before the removals that it tells of: the event log."""

    def take(self) -> Any:
        """Return the lines added since the last call, None if there are none; called on the loop."""

    def write(self, chunk: Any) -> None:
        """Write and sync what `take` returned; called in the commit thread."""


class Writer:
    """Makes the changes of batches in write transactions."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._seen_circle = Circle(tables.seen)
        self._replies_circle = Circle(tables.replies)

    def write(self, txn: Any, batch: Batch, unix_now: float) -> None:
        """Make all changes of `batch` in `txn`. HOT."""
        tables = self._tables
        if batch.bodies:
            txn.cursor(db=tables.bodies).putmulti(sorted(batch.bodies.items()))
        self._change_schedule(txn, batch.schedule)
        self._change_deliveries(txn, batch)
        for changes, table in ((batch.claims, tables.claims), (batch.damaged, tables.damaged)):
            for key, record in changes.items():
                if record is None:
                    txn.delete(key, db=table)
                else:
                    txn.put(key, record, db=table)
        if batch.seen:
            txn.cursor(db=tables.seen).putmulti(sorted(batch.seen.items()))
            self._seen_circle.sweep(txn, LOOKS_PER_RECORD * len(batch.seen), unix_now)
        if batch.replies:
            txn.cursor(db=tables.replies).putmulti(sorted(batch.replies.items()))
            self._replies_circle.sweep(txn, LOOKS_PER_RECORD * len(batch.replies), unix_now)
        if batch.doubts:
            batch.mended, batch.lost = [], []  # of a transaction that was aborted
            Mending(txn, tables, batch, unix_now).run()

    def _change_schedule(self, txn: Any, changes: dict[bytes, bool]) -> None:
        schedule, heads = txn.cursor(db=self._tables.schedule), txn.cursor(db=self._tables.heads)
        missing = change_schedule(schedule, heads, changes)
        places = [self._where(txn, key) for key in missing]
        stale = [place for place in places if place and not changes.get(place)]
        if stale:
            change_schedule(schedule, heads, dict.fromkeys(stale, False))

    def _where(self, txn: Any, missing: bytes) -> bytes:
        """Return where the delivery stands whose schedule key was not there; b"" if it is not stored."""
        queue, _, key = parse_schedule_key(missing)
        raw = txn.get(key, db=self._tables.deliveries)
        try:
            found = schedule_key(queue, peek_place(key, raw)[2], key) if raw else b""
        except DamagedRecord:
            return b""
        return found if found != missing else b""

    def _change_deliveries(self, txn: Any, batch: Batch) -> None:
        removed: list[bytes] = []
        put: list[tuple[bytes, bytes]] = []
        for key, record in batch.deliveries.items():
            if record is None:
                removed.append(key)
            else:
                put.append((key, record))
        cursor = txn.cursor(db=self._tables.deliveries)
        if put:
            put.sort()
            cursor.putmulti(put)
        bodies = self._tables.bodies
        for key in sorted(removed):
            message_id = key[:MESSAGE_ID_BYTES]
            if _remove_delivery(cursor, key, message_id):
                txn.delete(message_id, db=bodies)


def _remove_delivery(cursor: Any, key: bytes, message_id: bytes) -> bool:
    """Remove a delivery; True if its message has none left. HOT.

    Lower siblings of the same batch were removed before, so whoever goes last sees an empty message.
    """
    if not cursor.set_range(message_id):
        return True
    first = cursor.key()
    if first == key:
        cursor.delete()
        return not cursor.key().startswith(message_id)
    if first.startswith(message_id):
        if cursor.set_key(key):
            cursor.delete()
        return False
    return True


class CommitThread:
    """Commits transactions one after the other, beside the loop."""

    def __init__(self, finished: Finished) -> None:
        """Args: finished: called in the thread; hands over to the loop."""
        self._finished = finished
        self._jobs: SimpleQueue[tuple[Any, Journal | None, Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-commit", daemon=True)

    def start(self) -> None:
        """Begin to work, and shorten the interpreter's switch interval, which is the whole process's.

        A loop that is never idle gives the interpreter up and takes it back at each of its turns. Each time
        the thread that waits is woken in vain and its interval begins anew, so unless that is shorter than a
        turn, it never gets to ask for its own: a commit took up to a second.
        """
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._thread.start()

    def submit(self, txn: Any, journal: Journal | None, chunk: Any) -> None:
        """Write `chunk` by `journal` if it is not None, then commit `txn`."""
        self._jobs.put((txn, journal, chunk))

    def stop(self) -> None:
        """Finish what was submitted and end."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            began = time.perf_counter()
            error = commit(*job)
            self._finished(error, time.perf_counter() - began)


def commit(txn: Any, journal: Journal | None, chunk: Any) -> Exception | None:
    """Write the lines, then commit; return what went wrong. A failed transaction is aborted."""
    try:
        if journal is not None and chunk is not None:
            journal.write(chunk)
        if txn is not None:
            txn.commit()
    except Exception as error:  # every one reaches the loop, which decides
        if txn is not None:
            txn.abort()
        return error
    return None
