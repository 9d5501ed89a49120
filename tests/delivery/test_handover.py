"""handover: a delivery goes to another shard, and is there before it is no longer here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from engine.core.envelope import Delivery
from engine.core.errors import NetworkError
from engine.core.terms import Terms
from engine.delivery.handover import AGAIN_S, MAX_UNDER_WAY, Handover, pack, unpack
from engine.store.memory import MemoryStore
from engine.store.records import Duplicate
from tests.fakes.delivery_rig import MESSAGE, make_delivery
from tests.fakes.virtual_loop import run_virtually

Done = Callable[[Any, NetworkError | None], None]


class Link:
    """The link to other shards: keeps what was sent until the test answers."""

    def __init__(self, keeper: int | None = 2) -> None:
        self.keeper = keeper
        self.sent: list[tuple[int, str, bytes, Done]] = []
        self.gone: list[Delivery] = []
        self.failed: list[tuple[Delivery, int | None]] = []
        self.handover = Handover(
            self.send,
            lambda delivery: self.keeper,
            self.gone.append,
            lambda *failed: self.failed.append(failed),
        )

    def send(self, shard: int, kind: str, octets: bytes, done: Done, size_bytes: int) -> None:
        assert size_bytes == len(octets)
        self.sent.append((shard, kind, octets, done))


def test_a_parcel_arrives_as_it_left() -> None:
    delivery = make_delivery(recipients=3, terms=Terms(notify="DELAY", recipients={"a": ("NEVER", "")}))
    delivery.attempts, delivery.last_reply, delivery.told = 2, "451 later", 1
    envelope, message, (copy,) = unpack(pack(delivery.envelope, delivery.message, [delivery]))
    assert (envelope, message) == (delivery.envelope, MESSAGE)
    assert copy.key == delivery.key
    facts = ("domain", "recipients", "due_at", "attempts", "last_reply", "message", "told")
    assert all(getattr(copy, name) == getattr(delivery, name) for name in facts)
    assert copy.is_remembered
    assert not copy.held


def test_it_leaves_here_once_it_is_stored_there() -> None:
    async def main() -> None:
        link = Link()
        delivery = make_delivery()
        assert link.handover.offer(delivery)
        assert not link.sent  # its caller has yet to note that it is under way
        await asyncio.sleep(0)
        ((shard, kind, octets, done),) = link.sent
        assert (shard, kind) == (2, "handover")
        assert unpack(octets)[2][0].key == delivery.key
        assert not link.gone
        done(None, None)
        assert link.gone == [delivery]

    run_virtually(main())


def test_what_failed_is_still_ours_and_not_offered_again_at_once() -> None:
    async def main() -> None:
        link = Link()
        delivery = make_delivery()
        link.handover.offer(delivery)
        await asyncio.sleep(0)
        link.sent[0][3](None, NetworkError("link", "lost"))
        assert not link.failed
        await asyncio.sleep(AGAIN_S + 0.1)
        assert link.failed == [(delivery, 2)], "which may have it"
        link.handover.offer(delivery)
        await asyncio.sleep(0)
        link.sent[1][3](None, NetworkError("request", "StoreFull: map"))
        await asyncio.sleep(AGAIN_S + 0.1)
        assert link.failed[1] == (delivery, None), "which said that it has not"
        assert not link.gone

    run_virtually(main())


def test_without_a_keeper_nothing_is_taken() -> None:
    async def main() -> None:
        link = Link(keeper=None)
        assert not link.handover.offer(make_delivery())
        await asyncio.sleep(0)
        assert not link.sent

    run_virtually(main())


def test_what_is_under_way_is_bounded() -> None:
    async def main() -> None:
        link = Link()
        taken = [link.handover.offer(make_delivery()) for _ in range(MAX_UNDER_WAY + 1)]
        assert taken == [True] * MAX_UNDER_WAY + [False]
        await asyncio.sleep(0)
        link.sent[0][3](None, None)
        assert link.handover.offer(make_delivery())

    run_virtually(main())


def test_a_parcel_that_comes_twice_is_stored_once_even_after_it_has_left() -> None:
    store = MemoryStore(clock=lambda: 0.0)
    delivery = make_delivery()
    octets = pack(delivery.envelope, delivery.message, [delivery])
    told: list[object] = []
    for _ in range(2):
        _, message, deliveries = unpack(octets)
        store.put(deliveries, message, told.append, is_forwarded=True)
        store.commit()
    assert store.count() == 1
    assert told[0] is None
    assert isinstance(told[1], Duplicate)
    stored = store.load(delivery.key)
    assert stored is not None
    store.remove(stored)
    store.commit()
    store.put(unpack(octets)[2], MESSAGE, told.append, is_forwarded=True)
    assert isinstance(told[2], Duplicate)
