"""Ids that may be repeated: taken once, whichever shard is asked, and every repeat gets the first answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engine.core.errors import NetworkError
from engine.core.reply import make_reply
from engine.inject.context import FeedContext
from engine.inject.former import RECALL, FormerKeepers
from engine.inject.idempotent import REQUEST, IdempotentIds, keeper_of
from engine.inject.submission import Offer
from engine.store.memory import MemoryStore
from tests.fakes.feeds import Door

NOW = 1_700_000_000.0
ACCEPTED = "0660d9977d9e470061626364"


class Shard:
    """One shard of several, linked with the others by plain calls."""

    def __init__(self, number: int, all_of_them: list[Shard], shards: int) -> None:
        self.now = NOW
        self.is_up = True
        self.is_recounted = False
        self.left: list[MemoryStore] = []
        self.store = MemoryStore(clock=lambda: self.now)
        self.door = Door(self.store, NOW)
        others = [each for each in range(shards) if each != number]
        former = FormerKeepers(others, self.ask, lambda: self.left, lambda: self.is_recounted)
        self.ids = IdempotentIds(number, shards, self.door, self.store, self.ask, former)
        self.told: list[tuple[int, list[str]]] = []
        self.all_of_them = all_of_them

    def ask(
        self, shard: int, kind: str, body: Any, done: Callable[[Any, NetworkError | None], None], size: int
    ) -> None:
        peer = self.all_of_them[shard]
        if not peer.is_up:
            done(None, NetworkError("link", f"shard {shard} is down"))
            return
        if kind == RECALL:
            done(peer.ids.recall(*body), None)
            return
        assert kind == REQUEST
        assert size == len(body)
        future = peer.ids.take(0, body)
        future.add_done_callback(lambda future: done(future.result(), None))

    def submit(self, given_id: str, message: bytes = b"one\r\n", customer: str = "acme") -> None:
        context = FeedContext("socket", "s", customer=customer, idempotency=given_id)
        offer = Offer("a@acme.example", ["b@x.example"], message, False, context)
        self.ids.submit(offer, lambda reply, message_ids: self.told.append((reply.code, message_ids)))


def make_shards(count: int) -> list[Shard]:
    made: list[Shard] = []
    made.extend(Shard(number, made, count) for number in range(count))
    return made


@pytest.fixture
def shard() -> Shard:
    return make_shards(1)[0]


def test_repeat_gets_the_first_answer(shard: Shard) -> None:
    shard.submit("s1")
    shard.store.commit()
    shard.submit("s1", b"two\r\n")
    assert shard.told[0] == shard.told[1]
    assert shard.told[0][0] == 250
    assert shard.door.taken == [b"one\r\n"]


def test_repeat_while_the_first_is_under_way_waits_for_it(shard: Shard) -> None:
    shard.submit("s1")
    shard.submit("s1")
    assert shard.told == []
    shard.store.commit()
    assert len(shard.told) == 2
    assert shard.told[0] == shard.told[1]
    assert len(shard.door.taken) == 1


def test_repeat_of_one_answered_before_its_commit_waits_for_the_commit(shard: Shard) -> None:
    shard.door.is_async = True
    shard.submit("s1")
    assert len(shard.told) == 1
    shard.submit("s1")
    assert len(shard.told) == 1
    shard.store.commit()
    assert len(shard.told) == 2
    assert shard.told[0] == shard.told[1]
    assert len(shard.door.taken) == 1


def test_refused_id_may_be_used_again(shard: Shard) -> None:
    shard.door.refusal = make_reply(452, "4.3.1", "full")
    shard.submit("s1")
    shard.door.refusal = None
    shard.submit("s1")
    shard.store.commit()
    assert [code for code, _ in shard.told] == [452, 250]


def test_id_is_one_customers(shard: Shard) -> None:
    shard.submit("s1", customer="acme")
    shard.submit("s1", customer="beta")
    shard.store.commit()
    assert len(shard.door.taken) == 2


def test_id_is_forgotten_after_a_day(shard: Shard) -> None:
    shard.submit("s1")
    shard.store.commit()
    shard.now += 24 * 3600 - 1
    shard.submit("s1")
    assert len(shard.door.taken) == 1
    shard.now += 2
    shard.submit("s1")
    assert len(shard.door.taken) == 2


def test_ids_are_kept_by_one_shard_whichever_is_asked(run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        shards = make_shards(3)
        for number in range(30):
            for shard in shards:
                shard.submit(f"s{number}")
        for shard in shards:
            shard.store.commit()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for shard in shards:
            assert sorted(shard.told) == sorted(shards[0].told)
            assert len(shard.told) == 30
        for number, shard in enumerate(shards):
            kept = [each for each in range(30) if keeper_of("acme", f"s{each}", 3) == number]
            assert len(shard.door.taken) == len(kept) > 0

    run(scenario())


def test_keeper_that_is_down_is_worth_a_repeat(run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        shards = make_shards(2)
        given_id = next(f"s{n}" for n in range(99) if keeper_of("acme", f"s{n}", 2) == 1)
        shards[1].is_up = False
        shards[0].submit(given_id)
        assert shards[0].told == [(451, [])]
        shards[1].is_up = True
        shards[0].submit(given_id)
        shards[1].store.commit()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [code for code, _ in shards[0].told] == [451, 250]

    run(scenario())


# -- after a change of the number of shards -----------------------------------------------------------


def recount(shards: list[Shard], count: int) -> list[Shard]:
    """Start again with another number of shards; the first looks after the stores that are left."""
    again = make_shards(count)
    for shard in again:
        shard.is_recounted = True
    for old, new in zip(shards, again, strict=False):
        new.store = new.door.store = old.store
        new.ids._store = old.store  # type: ignore[assignment]
    again[0].left = [old.store for old in shards[count:]]
    return again


def take_all(shards: list[Shard], count: int) -> list[tuple[int, list[str]]]:
    for number in range(count):
        shards[keeper_of("acme", f"s{number}", len(shards))].submit(f"s{number}")
    for shard in shards:
        shard.store.commit()
    return sorted(answer for shard in shards for answer in shard.told)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (3, 2), (1, 4)])
def test_ids_outlive_a_change_of_the_number_of_shards(before: int, after: int) -> None:
    shards = make_shards(before)
    first = take_all(shards, 30)
    again = recount(shards, after)
    assert take_all(again, 30) == first
    assert not any(shard.door.taken for shard in again)
    assert len(take_all(again, 31)) == 61
    assert sum(len(shard.door.taken) for shard in again) == 1


def test_while_one_that_may_know_an_id_is_down_nothing_is_said() -> None:
    shards = make_shards(2)
    take_all(shards, 8)
    again = recount(shards, 3)
    lost = next(
        n for n in range(8) if (keeper_of("acme", f"s{n}", 2), keeper_of("acme", f"s{n}", 3)) == (1, 2)
    )
    again[1].is_up = False
    again[2].submit(f"s{lost}")
    assert again[2].told == [(451, [])]
    again[1].is_up = True
    again[2].submit(f"s{lost}")
    assert again[2].told[1][0] == 250
    assert not again[2].door.taken


def test_repeat_while_former_keepers_are_asked_waits_for_them() -> None:
    shard = make_shards(2)[0]
    shard.is_recounted = True
    asked: list[Any] = []
    shard.ids._former._ask = lambda _shard, _kind, _body, done, _size: asked.append(done)
    given_id = next(f"s{n}" for n in range(99) if keeper_of("acme", f"s{n}", 2) == 0)
    shard.submit(given_id)
    shard.submit(given_id, b"two\r\n")
    (answer,) = asked
    answer(None, None)
    shard.store.commit()
    assert shard.door.taken == [b"one\r\n"]
    assert shard.told[0] == shard.told[1]
