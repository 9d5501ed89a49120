"""The store in memory behaves as the one on disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.core.envelope import Delivery, Envelope
from engine.core.errors import StoreFull
from engine.store.memory import MemoryStore
from engine.store.records import Duplicate, queue_name

UNIX_START = 1_700_000_000.0
DOMAINS = ["x", "y", "x.y"]
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.integers(0, 5),
            st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
        ),
        st.tuples(
            st.just("forward"), st.integers(0, 5), st.lists(st.integers(0, 2), min_size=1, unique=True)
        ),
        st.tuples(st.just("amend"), st.integers(0, 40), st.integers(0, 5)),
        st.tuples(st.just("remove"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("load"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("commit"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


class Pair:
    """The same calls on both stores, with deliveries of their own."""

    def __init__(self, disk) -> None:
        self.disk = disk
        self.memory = MemoryStore(clock=lambda: UNIX_START)
        self.memory_told: list[object] = []
        self.alive: dict[bytes, tuple[Delivery, Delivery]] = {}
        self.is_durable = True
        self.count = 0

    def make(self, number: int, indexes: list[int]) -> list[Delivery]:
        message = b"m" * (number * 1000)
        envelope = Envelope("s@a.example", "acme", "pool", UNIX_START, len(message), "smtp")
        message_id = (number + 1000).to_bytes(12, "big")
        return [
            Delivery(message_id, index, envelope, DOMAINS[index], ["u"], UNIX_START + number, message)
            for index in indexes
        ]

    def put(self, number: int, indexes: list[int], is_forwarded: bool) -> None:
        if not is_forwarded:
            self.count += 1
            number += 10 * self.count
        else:
            self.commit()
        ours, theirs = self.make(number, indexes), self.make(number, indexes)
        message = ours[0].message
        known = {d.key for d in ours if self.memory.is_stored(d.key) or self.memory.remembered(d.key)}
        self.disk.put(*ours, is_forwarded=is_forwarded)
        self.memory.put(theirs, message, self.memory_told.append, is_forwarded=is_forwarded)
        self.alive |= {d.key: (d, e) for d, e in zip(ours, theirs, strict=True) if d.key not in known}

    def nth(self, number: int) -> tuple[Delivery, Delivery] | None:
        return list(self.alive.values())[number % len(self.alive)] if self.alive else None

    def step(self, kind: str, number: int, extra) -> None:
        if kind in {"put", "forward"}:
            self.put(number, extra, kind == "forward")
        elif kind == "commit":
            self.commit()
        elif (pair := self.nth(number)) is not None:
            self.change(kind, *pair, extra)

    def change(self, kind: str, ours: Delivery, theirs: Delivery, extra: int) -> None:
        if kind == "amend":
            for store, delivery in ((self.disk.store, ours), (self.memory, theirs)):
                delivery.attempts += 1
                store.amend(delivery, UNIX_START + extra)
        elif kind == "remove":
            self.disk.store.remove(ours)
            self.memory.remove(theirs)
            del self.alive[ours.key]
        assert plain(self.disk.store.load(ours.key)) == plain(self.memory.load(theirs.key))

    def commit(self) -> None:
        self.disk.commit()
        self.memory.commit()

    def compare(self) -> None:
        disk, memory = self.disk.store, self.memory
        assert [type(error) for error in self.disk.told] == [type(error) for error in self.memory_told]
        assert disk.count() == memory.count() == len(self.alive)
        assert disk.queues(100) == memory.queues(100)
        assert disk.due_queues(b"", 1 << 62, 100) == memory.due_queues(b"", 1 << 62, 100)
        assert disk.schedule_slice(b"", 100) == memory.schedule_slice(b"", 100)
        for key in self.alive:
            assert plain(disk.peek(key)) == plain(memory.peek(key)) is not None
            ours, theirs = disk.deliveries_of(key[:12]), memory.deliveries_of(key[:12])
            assert [plain(delivery) for delivery in ours] == [plain(delivery) for delivery in theirs]
        for domain in DOMAINS:
            queue = queue_name("acme", domain)
            assert disk.due_keys(queue, b"", 1 << 62, 3) == memory.due_keys(queue, b"", 1 << 62, 3)
            assert disk.depth(queue, 2) == memory.depth(queue, 2)
        with disk._environment.lmdb.begin() as txn:
            bodies = [key for key, _ in txn.cursor(disk._tables.bodies)]
        assert bodies == sorted(memory.bodies)


def plain(delivery: Delivery | None) -> object:
    return None if delivery is None else msgspec.to_builtins(delivery)


@settings(max_examples=60, deadline=None)
@given(STEPS)
@example(steps=[("put", 0, [0]), ("amend", 0, 0), ("commit", 0, 0), ("amend", 0, 1), ("amend", 0, 0)])
def test_memory_and_disk_agree_after_every_commit(harness_type, steps):
    path = Path(tempfile.mkdtemp())
    pair = Pair(harness_type(path / "store"))
    try:
        for kind, number, extra in steps:
            pair.step(kind, number, extra)
            if kind == "commit":
                pair.compare()
        pair.commit()
        pair.compare()
    finally:
        pair.disk.store.close()
        shutil.rmtree(path)


def test_failed_commit_refuses_puts_and_keeps_removals(make):
    store, told = MemoryStore(), []
    stored, refused = make(), make()
    store.put([stored], b"m", told.append)
    store.commit()
    store.remove(stored)
    store.put([refused], b"m", told.append)
    error = StoreFull("test")
    store.commit(error)
    assert told == [None, error]
    assert store.count() == 0


def test_full_store_refuses_at_the_call(make):
    store = MemoryStore()
    store.full_reason = "test"
    with pytest.raises(StoreFull, match="test"):
        store.put([make()], b"m", print)


def test_claims_and_replies_and_damage(make):
    damaged: list[bytes] = []
    store, told = MemoryStore(on_damaged=lambda key, detail: damaged.append(key)), []
    delivery = make()
    store.put([delivery], b"m", told.append, claim="a.eml", idempotency="1", reply=b"250")
    assert store.idempotent("acme", "1") == b""
    store.commit()
    assert store.claim_of("a.eml") == delivery.message_id
    assert store.idempotent("acme", "1") == b"250"
    store.forget_claim("a.eml")
    store.put([delivery], b"m", told.append, is_forwarded=True)
    assert isinstance(told[-1], Duplicate)
    store.bodies[delivery.message_id] = b"?"
    assert store.load(delivery.key, queue_name("acme", "x.example"), int(delivery.due_at * 1000)) is None
    store.commit()
    assert (damaged, store.count(), len(store.set_aside)) == ([delivery.key], 0, 1)
    assert store.claim_of("a.eml") is None
    assert store.queues(10) == []
