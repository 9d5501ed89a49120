"""The calls of the store over dicts, for tests of other packages.

Same staging, same order of results, same visibility as `engine.store.lmdb`: a test runs both against each
other. Nothing is durable, and `commit` is called by hand.

Owns: what is stored, until the process ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.core.envelope import MESSAGE_ID_BYTES, Delivery
from engine.core.errors import StoreError, StoreFull
from engine.store.batch import Batch, Done
from engine.store.records import (
    DamagedRecord,
    Duplicate,
    decode_body,
    decode_claim,
    decode_delivery,
    encode_claim,
    head_key,
    parse_schedule_key,
    peek_envelope,
    schedule_key,
)
from engine.store.remembered import REMEMBERED_S, claim_key, decode_remembered, encode_remembered, reply_key

Record = dict[bytes, bytes]


class MemoryStore:
    """A store in memory. `full_reason` may be set by a test; `puts` are told by `commit`."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        on_damaged: Callable[[bytes, str], None] = lambda *_: None,
    ) -> None:
        self.full_reason = ""
        self.failure: StoreError | None = None
        self.bodies: Record = {}
        self.deliveries: Record = {}
        self.schedule: set[bytes] = set()
        self.claims: Record = {}
        self.seen: Record = {}
        self.replies: Record = {}
        self.set_aside: Record = {}
        self._clock = clock
        self._on_damaged = on_damaged
        self._batch = Batch()

    def open(self) -> None:
        """Do nothing; the other store's directory is taken here."""

    def close(self) -> None:
        """Commit what is staged."""
        self.commit()

    @property
    def is_full(self) -> bool:
        return bool(self.full_reason)

    def commit(self, error: StoreError | None = None) -> None:
        """Make what is staged durable and tell it; with `error` refuse the puts as a failed commit would."""
        batch, self._batch = self._batch, Batch()
        told = batch.puts
        if error is not None:
            batch = batch.relieve()
        self._apply(batch)
        for done in told:
            done(error)
        for done in batch.waiting:
            done(None)

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
        """Stage a message with its deliveries."""
        if self.full_reason and not is_own:
            raise StoreFull(self.full_reason)
        if self.failure is not None:
            raise self.failure
        if is_forwarded:
            deliveries = [d for d in deliveries if not self.is_stored(d.key) and not self.remembered(d.key)]
            if not deliveries:
                done(Duplicate("known"))
                return
            for delivery in deliveries:
                delivery.is_remembered = True
        batch = self._batch
        batch.put(deliveries, message)
        if claim:
            batch.claim(claim_key(claim), encode_claim(claim_key(claim), deliveries[0].message_id))
        if idempotency:
            key = reply_key(deliveries[0].envelope.customer, idempotency)
            batch.answer(key, encode_remembered(key, self._clock() + REMEMBERED_S, reply))
        batch.puts.append(done)

    def amend(self, delivery: Delivery, due_at: float) -> None:
        """Stage the present state of a delivery and its move to `due_at`."""
        self._batch.amend(delivery, due_at)

    def remove(self, delivery: Delivery) -> None:
        """Stage the leaving of a delivery."""
        self._batch.remove(delivery)
        if delivery.is_remembered:
            record = encode_remembered(delivery.key, self._clock() + REMEMBERED_S)
            self._batch.remember(delivery.key, record)

    def forget_claim(self, name: str) -> None:
        """Stage the leaving of a claim."""
        self._batch.forget_claim(claim_key(name))

    def restore(self, kind: str, key: bytes, record: bytes) -> None:
        """Stage what another store remembers; what is here stays."""
        records = {"claim": self.claims, "seen": self.seen, "reply": self.replies}[kind]
        if key not in records:
            self._batch.restore(kind, key, record)

    def when_durable(self, done: Done) -> None:
        """Have `done` called by the next `commit`."""
        self._batch.waiting.append(done)

    def load(self, delivery_key: bytes, queue: bytes = b"", due: int = 0) -> Delivery | None:
        """Return a delivery with its message, staged changes seen."""
        message_id = delivery_key[:MESSAGE_ID_BYTES]
        stored = self.deliveries.get(delivery_key)
        record = self._batch.deliveries.get(delivery_key, stored)
        body = self._batch.bodies.get(message_id) or self.bodies.get(message_id, b"")
        try:
            if record is not None:
                return decode_delivery(delivery_key, record, *decode_body(message_id, body))
        except DamagedRecord as error:
            self._batch.set_aside(delivery_key, body)
            self._on_damaged(delivery_key, str(error))
        if queue:
            self._batch.schedule[schedule_key(queue, due, delivery_key)] = False
        return None

    def peek(self, delivery_key: bytes) -> Delivery | None:
        """Return the delivery as committed, without its message; None where it is gone or damaged."""
        record, body = self.deliveries.get(delivery_key), self.bodies.get(delivery_key[:MESSAGE_ID_BYTES])
        if record is None or body is None:
            return None
        try:
            return decode_delivery(delivery_key, record, peek_envelope(body), b"")
        except DamagedRecord:
            return None

    def deliveries_of(self, message_id: bytes) -> list[Delivery]:
        """Return the deliveries of a message that are left, as `peek` does."""
        found = [self.peek(key) for key in sorted(self.deliveries) if key.startswith(message_id)]
        return [delivery for delivery in found if delivery is not None]

    def due_queues(self, after: bytes, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (due in ms, queue) of due queues, earliest first."""
        heads = sorted((due, queue) for queue, due in self.queues(len(self.schedule)))
        return [head for head in heads if head[0] <= now_ms and head_key(*head) > after][:limit]

    def due_keys(self, queue: bytes, after: bytes, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (due in ms, delivery key) of what is due in one queue."""
        found = self.schedule_slice(queue + after, len(self.schedule))
        return [(due, key) for name, due, key in found if name == queue and due <= now_ms][:limit]

    def schedule_slice(self, after: bytes, limit: int) -> list[tuple[bytes, int, bytes]]:
        """Return (queue, due in ms, delivery key) in the order of the schedule."""
        entries = [parse_schedule_key(key) for key in sorted(self.schedule) if key > after]
        return [entry for entry in entries if entry[2] not in self._batch.deliveries][:limit]

    def queues(self, limit: int, after: bytes = b"") -> list[tuple[bytes, int]]:
        """Return (queue, its earliest due in ms) by name."""
        heads: dict[bytes, int] = {}
        for key in sorted(self.schedule):
            queue, due, _ = parse_schedule_key(key)
            heads.setdefault(queue, due)
        return [head for head in heads.items() if head[0] > after][:limit]

    def depth(self, queue: bytes, limit: int) -> int:
        """Count the deliveries of one queue, up to `limit`."""
        return min(limit, sum(key.startswith(queue) for key in self.schedule))

    def count(self) -> int:
        """Return how many deliveries are stored."""
        return len(self.deliveries)

    def is_stored(self, delivery_key: bytes) -> bool:
        """Say whether the delivery is here, staged changes seen."""
        return self._batch.deliveries.get(delivery_key, self.deliveries.get(delivery_key)) is not None

    def remembered(self, delivery_key: bytes) -> bool:
        """Say whether this delivery came from another shard and has left within the last 24 hours."""
        raw = self._batch.seen.get(delivery_key) or self.seen.get(delivery_key)
        return decode_remembered(delivery_key, raw, self._clock()) is not None

    def idempotent(self, customer: str, given_id: str) -> bytes | None:
        """Return the reply that this id got; b"" while its commit is under way; None if it is new."""
        key = reply_key(customer, given_id)
        if key in self._batch.replies:
            return b""
        return decode_remembered(key, self.replies.get(key), self._clock())

    def claim_of(self, name: str) -> bytes | None:
        """Return the id of the message that was stored under this claim."""
        key = claim_key(name)
        raw = self.claims.get(key)
        return decode_claim(key, raw) if raw is not None else None

    def list_claims(self, prefix: str, limit: int) -> list[str]:
        """Return the claims whose names begin with `prefix`."""
        names = [key.decode("utf-8", "surrogateescape") for key in sorted(self.claims)]
        return [name for name in names if name.startswith(prefix)][:limit]

    def check(self, _limit: int) -> bool:
        """Say that all is well: these indexes can't be damaged."""
        return True

    def _apply(self, batch: Batch) -> None:
        self.bodies.update(batch.bodies)
        for changes, records in (
            (batch.deliveries, self.deliveries),
            (batch.claims, self.claims),
            (batch.damaged, self.set_aside),
        ):
            for key, record in changes.items():
                if record is None:
                    records.pop(key, None)
                else:
                    records[key] = record
        self.seen.update(batch.seen)
        self.replies.update(batch.replies)
        for entry, is_put in batch.schedule.items():
            (self.schedule.add if is_put else self.schedule.discard)(entry)
        self._drop_bodies(
            {key[:MESSAGE_ID_BYTES] for key, record in batch.deliveries.items() if record is None}
        )

    def _drop_bodies(self, message_ids: set[bytes]) -> None:
        for message_id in message_ids - {key[:MESSAGE_ID_BYTES] for key in self.deliveries}:
            self.bodies.pop(message_id, None)
