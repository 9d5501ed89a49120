"""What one commit will change, as the final state of each key.

Staging the same delivery twice leaves one change: the last. A delivery that is put and removed before its
commit began leaves none, so with `durability = "async"` most mail never touches the disk.

Owns: what is staged, and who waits for it.
Never: opens a transaction, looks at what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from engine.core.envelope import DELIVERY_KEY_BYTES, MESSAGE_ID_BYTES, Delivery
from engine.core.errors import StoreError
from engine.store.records import MAX_KEY_BYTES, MAX_QUEUE_BYTES, encode_body, encode_delivery, schedule_key_of

Done = Callable[[StoreError | None], None]  # called once: None, or why nothing was stored

Changes = dict[bytes, bytes | None]  # key to record; None takes the key away


class Doubt(NamedTuple):
    """What may be wrong: `kind` is `entry` (of the schedule), `delivery` or `head` (of a queue).

    `near` is a key in front of it, where it stands out of order, so that no search finds it.
    """

    kind: str
    key: bytes
    near: bytes | None = None


class Batch:
    """Changes by table, and the callables that wait for their commit.

    `fresh` holds, by message id, the delivery keys that are put here and so are not stored yet. `mended` and
    `lost` (delivery key, detail) are what settling the `doubts` has come to.
    """

    __slots__ = (
        "bodies",
        "claims",
        "damaged",
        "deliveries",
        "doubts",
        "fresh",
        "lost",
        "mended",
        "operations",
        "puts",
        "replies",
        "schedule",
        "seen",
        "size_bytes",
        "waiting",
    )

    def __init__(self) -> None:
        self.bodies: dict[bytes, bytes] = {}
        self.deliveries: Changes = {}
        self.schedule: dict[bytes, bool] = {}  # False takes the key away
        self.claims: Changes = {}
        self.seen: dict[bytes, bytes] = {}
        self.replies: dict[bytes, bytes] = {}
        self.damaged: Changes = {}
        self.doubts: set[Doubt] = set()
        self.mended: list[str] = []
        self.lost: list[tuple[bytes, str]] = []
        self.fresh: dict[bytes, set[bytes]] = {}
        self.puts: list[Done] = []  # refused together if the store has no room for what they put
        self.waiting: list[Done] = []  # only told when all of this is durable
        self.operations = 0
        self.size_bytes = 0

    @property
    def is_empty(self) -> bool:
        return not self.operations and not self.waiting and not self.puts

    def put(self, deliveries: list[Delivery], message: bytes) -> set[bytes]:
        """Stage a message and its `deliveries`; return the keys put here for this message id. HOT.

        Raises:
            StoreError: customer and domain are too long for a key; nothing was staged.
        """
        first = deliveries[0]
        entries = [schedule_key_of(delivery) for delivery in deliveries]
        if len(max(entries, key=len)) > MAX_KEY_BYTES:
            raise StoreError(f"customer and domain have more than {MAX_QUEUE_BYTES} octets")
        record = encode_body(first.message_id, first.envelope, message)
        self.bodies[first.message_id] = record
        fresh = self.fresh.setdefault(first.message_id, set())
        for delivery, entry in zip(deliveries, entries, strict=True):
            key = delivery.key
            self.deliveries[key] = encode_delivery(delivery)
            self.schedule[entry] = True
            fresh.add(key)
        self.operations += len(deliveries)
        self.size_bytes += len(record)
        return fresh

    def amend(self, delivery: Delivery, due_at: float) -> bytes:
        """Stage the present state of `delivery` and its move to `due_at`; return its key. HOT."""
        key = delivery.key
        self._unschedule(key, schedule_key_of(delivery))
        delivery.due_at = due_at
        self.schedule[schedule_key_of(delivery)] = True
        self.deliveries[key] = encode_delivery(delivery)
        self.operations += 1
        return key

    def remove(self, delivery: Delivery) -> bool:
        """Stage the leaving of `delivery`; False if it was put here, so that nothing is left to do. HOT."""
        key = delivery.key
        self._unschedule(key, schedule_key_of(delivery))
        if self.is_fresh(key):
            self._take_back(key)
            return False
        self.deliveries[key] = None
        self.operations += 1
        return True

    def is_fresh(self, key: bytes) -> bool:
        """Say whether this delivery is put here, so that it is not stored yet."""
        return key in self.fresh.get(key[:MESSAGE_ID_BYTES], ())

    def claim(self, key: bytes, message_id: bytes) -> None:
        """Stage the claim under which a spool file was taken."""
        self.claims[key] = message_id
        self.operations += 1

    def forget_claim(self, key: bytes) -> None:
        """Stage the leaving of a claim."""
        self.claims[key] = None
        self.operations += 1

    def remember(self, key: bytes, record: bytes) -> None:
        """Stage that a delivery from another shard has been here."""
        self.seen[key] = record
        self.operations += 1

    def answer(self, key: bytes, record: bytes) -> None:
        """Stage the reply to an injector's id."""
        self.replies[key] = record
        self.operations += 1

    def restore(self, kind: str, key: bytes, record: bytes) -> None:
        """Stage what another store remembers: a `claim`, a `seen` id or a `reply`."""
        put = {"claim": self.claim, "seen": self.remember, "reply": self.answer}[kind]
        put(key, record)

    def set_aside(self, key: bytes, record: bytes) -> None:
        """Stage the leaving of a damaged delivery, and what is kept of it."""
        self.damaged[key] = record
        self.deliveries[key] = None
        self.operations += 1

    def doubt(self, doubts: Iterable[Doubt]) -> None:
        """Have something looked at in the commit, behind all changes."""
        self.doubts.update(doubts)
        self.operations += 1

    def join(self, later: Batch) -> None:
        """Stage everything that `later` holds behind what is here."""
        for schedule_key, is_put in later.schedule.items():
            if is_put:
                self.schedule[schedule_key] = True
            else:
                self._unschedule(schedule_key[-DELIVERY_KEY_BYTES:], schedule_key)
        for key, record in later.deliveries.items():
            if record is None and self.is_fresh(key):
                self._take_back(key)
            else:
                self.deliveries[key] = record
        for message_id, keys in later.fresh.items():
            self.fresh.setdefault(message_id, set()).update(keys)
        self._update(later)

    def relieve(self) -> Batch:
        """Take out and return what concerns deliveries already stored; the puts stay here."""
        relief = Batch()
        fresh = self.is_fresh
        relief.schedule = {key: p for key, p in self.schedule.items() if not fresh(key[-DELIVERY_KEY_BYTES:])}
        relief.deliveries = {key: record for key, record in self.deliveries.items() if not fresh(key)}
        relief.claims = {name: record for name, record in self.claims.items() if record is None}
        relief.seen, relief.damaged, relief.doubts = self.seen, self.damaged, self.doubts
        relief.count_operations()
        self.schedule = {key: p for key, p in self.schedule.items() if key not in relief.schedule}
        self.deliveries = {
            key: record for key, record in self.deliveries.items() if key not in relief.deliveries
        }
        self.claims = {name: record for name, record in self.claims.items() if record is not None}
        self.seen, self.damaged, self.doubts = {}, {}, set()
        self.count_operations()
        return relief

    def count_operations(self) -> None:
        """Count anew, where changes went from one batch to another."""
        self.operations = len(self.schedule) + len(self.deliveries)
        self.operations += len(self.claims) + len(self.replies) + len(self.seen) + len(self.doubts)

    def _update(self, later: Batch) -> None:
        self.bodies.update(later.bodies)
        self.claims.update(later.claims)
        self.seen.update(later.seen)
        self.replies.update(later.replies)
        self.damaged.update(later.damaged)
        self.doubts |= later.doubts
        self.puts += later.puts
        self.waiting += later.waiting
        self.size_bytes += later.size_bytes
        self.count_operations()

    def _unschedule(self, key: bytes, schedule_key: bytes) -> None:
        if self.is_fresh(key):
            self.schedule.pop(schedule_key, None)
        else:
            self.schedule[schedule_key] = False

    def _take_back(self, key: bytes) -> None:
        message_id = key[:MESSAGE_ID_BYTES]
        siblings = self.fresh[message_id]
        siblings.discard(key)
        self.deliveries.pop(key, None)
        self.operations -= 1
        if not siblings:
            del self.fresh[message_id]
            self.size_bytes -= len(self.bodies.pop(message_id, b""))
