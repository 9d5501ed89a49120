"""Salvaged items into a store that no engine has open.

Deliveries that are there already, or are remembered, are left out; those that are put are remembered for 24
hours after they leave. So it may be cut short and begun again, and nothing goes twice into one store.

Owns: the transactions, of a bounded size.
Fails: StoreError of the target; what was committed before stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lmdb
import msgspec

from engine.core.envelope import MESSAGE_ID_BYTES, Delivery
from engine.store.batch import Batch
from engine.store.commit import Writer
from engine.store.environment import Environment, translate
from engine.store.records import decode_body, decode_delivery
from engine.store.remembered import is_remembered
from engine.store.salvage import Item

MAX_OPERATIONS = 500  # of a transaction, as in group commit
MAX_BATCH_BYTES = 8 << 20


class Restored(msgspec.Struct):
    """What became of the items; `lost` are facts of each.

    `is_complete`: the reader came to the end of the store. `has_past`: mail that had left may be among them.
    """

    messages: int = 0
    deliveries: int = 0
    known: int = 0
    remembered: int = 0
    lost: list[dict[str, Any]] = []
    damage: int = 0
    has_past: bool = False
    is_complete: bool = False


def decode_message(item: Item) -> tuple[list[Delivery], bytes]:
    """Return the deliveries and the message of a `message` item."""
    envelope, message = decode_body(item[2][0][0][:MESSAGE_ID_BYTES], item[1])
    return [decode_delivery(key, record, envelope, message) for key, record in item[2]], message


class Restorer:
    """Takes items for one open environment."""

    def __init__(self, environment: Environment, unix_now: float) -> None:
        self._environment = environment
        self._unix_now = unix_now
        self._writer = Writer(environment.tables)
        self._batch = Batch()
        self.result = Restored()

    def run(self, items: Iterable[Item], tick: Callable[[int], None] = lambda _: None) -> Restored:
        """Take all items. Raises StoreError."""
        for item in items:
            self._take(item)
            batch = self._batch
            if batch.operations >= MAX_OPERATIONS or batch.size_bytes >= MAX_BATCH_BYTES:
                self._commit()
                tick(self.result.deliveries + self.result.known)
        self._commit()
        return self.result

    def _take(self, item: Item) -> None:
        kind, result = item[0], self.result
        if kind == "message":
            self._put(item)
        elif kind in ("claim", "seen", "reply"):
            self._remember(kind, item[1], item[2])
        elif kind == "lost":
            result.lost.append(item[1])
        elif kind == "end":
            result.damage, result.has_past = item[1]["damage"], item[1]["has_past"]
            result.is_complete = True

    def _put(self, item: Item) -> None:
        deliveries, message = decode_message(item)
        fresh = [delivery for delivery in deliveries if not self._is_known(delivery.key)]
        self.result.known += len(deliveries) - len(fresh)
        if not fresh:
            return
        for delivery in fresh:
            delivery.is_remembered = True
        self._batch.put(fresh, message)
        self.result.messages += 1
        self.result.deliveries += len(fresh)

    def _is_known(self, key: bytes) -> bool:
        tables = self._environment.tables
        if self._get(key, tables.deliveries) is not None:
            return True
        return is_remembered(key, self._get(key, tables.seen), self._unix_now)

    def _remember(self, kind: str, key: bytes, record: bytes) -> None:
        if self._get(key, self._environment.tables.remembering(kind)) is None:
            self._batch.restore(kind, key, record)
            self.result.remembered += 1

    def _get(self, key: bytes, table: object) -> bytes | None:
        try:
            with self._environment.lmdb.begin() as txn:
                raw: bytes | None = txn.get(key, db=table)
                return raw
        except lmdb.Error as error:
            raise translate(error, self._environment.path) from error

    def _commit(self) -> None:
        batch, self._batch = self._batch, Batch()
        if not batch.operations:
            return
        try:
            with self._environment.lmdb.begin(write=True) as txn:
                self._writer.write(txn, batch, self._unix_now)
        except lmdb.Error as error:
            raise translate(error, self._environment.path) from error
