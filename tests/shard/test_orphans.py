"""orphans: a store that was left is emptied into the shard's own, once each, and set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.core.envelope import Delivery
from engine.core.errors import StoreFull
from engine.shard.orphans import FULL_PAUSE_S, LOOK_S, PAUSE_S, SLICE, OrphanStore
from engine.store.environment import StoreOptions
from engine.store.lmdb import Store
from engine.store.memory import MemoryStore
from engine.store.records import schedule_key_of
from engine.store.remembered import REMEMBERED_S
from tests.fakes.delivery_rig import UNIX_START, make_delivery
from tests.fakes.virtual_loop import run_virtually

LEFT = 3
MAP_SIZE_BYTES = 64 << 20
OPTIONS = StoreOptions(map_size_bytes=MAP_SIZE_BYTES, min_free_bytes=0, min_free_fraction=0.0)


class Shard:
    """What the move needs of an engine: its own store, in memory, and who hears of arrivals."""

    def __init__(self, data_dir: Path, keep_until: float = 0.0) -> None:
        self.now = UNIX_START
        self.orphans: dict[int, OrphanStore] = {}
        self.store = MemoryStore(clock=lambda: UNIX_START)
        self.arrived: list[Delivery] = []
        self.failed: list[Exception] = []
        settings = SimpleNamespace(data_dir=str(data_dir), map_size_bytes=MAP_SIZE_BYTES)
        engine: Any = SimpleNamespace(
            loop=asyncio.get_running_loop(),
            model=SimpleNamespace(settings=SimpleNamespace(engine=settings)),
            store=self.store,
            readahead=SimpleNamespace(arrived=self.arrived.append),
            started_at=UNIX_START + 0.5,
            orphans=self.orphans,
            store_trouble=SimpleNamespace(
                open=lambda _directory, open_it: open_it(),
                failed=lambda _directory, error: self.failed.append(error),
            ),
        )
        self.orphan = self.orphans[LEFT] = OrphanStore(engine, LEFT, keep_until, lambda: self.now)

    async def run(self, seconds: float) -> None:
        """Let time pass; commit what is staged here at each step."""
        for _ in range(round(seconds / PAUSE_S)):
            await asyncio.sleep(PAUSE_S)
            self.store.commit()


async def fill(data_dir: Path, deliveries: list[Delivery], claim: str = "") -> None:
    """Leave a store behind."""
    store = Store(data_dir / f"shard-{LEFT}", loop=asyncio.get_running_loop(), options=OPTIONS)
    store.open()
    for delivery in deliveries:
        store.put([delivery], delivery.message, lambda _: None, claim=claim)
    store.close()


def test_delivery_that_the_schedule_does_not_name_is_moved_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        left = [make_delivery(f"d{number}.example") for number in range(5)]
        await fill(tmp_path, left)
        store = Store(tmp_path / f"shard-{LEFT}", loop=asyncio.get_running_loop(), options=OPTIONS)
        store.open()
        with store._environment.lmdb.begin(write=True) as txn:
            for delivery in left[1:3]:
                txn.delete(schedule_key_of(delivery), db=store._tables.schedule)
        store.close()
        shard = Shard(tmp_path)
        shard.orphan.open()
        while shard.orphans:
            await shard.run(PAUSE_S)
        assert {each.key for each in shard.arrived} == {each.key for each in left}
        assert not (tmp_path / f"shard-{LEFT}").exists()

    asyncio.run(asyncio.wait_for(scenario(), 30.0))


def run(scenario: Callable[[], Any]) -> None:
    run_virtually(scenario())


def test_everything_is_moved_and_the_directory_renamed(tmp_path: Path) -> None:
    async def scenario() -> None:
        left = [make_delivery(f"d{number % 7}.example") for number in range(2 * SLICE + 5)]
        left[3].attempts, left[3].last_reply, left[4].held = 4, "451 later", "poison"
        left[5].due_at += 60.0
        left[5].told = 1
        await fill(tmp_path, left)
        shard = Shard(tmp_path)
        shard.orphan.open()
        await shard.run(1.0)
        assert shard.orphan.moved == len(left)
        waiting = {left[4].key, left[5].key}
        assert {each.key for each in shard.arrived} == {each.key for each in left} - waiting
        for delivery in left:
            kept = shard.store.load(delivery.key)
            assert kept is not None
            facts = (
                "envelope",
                "domain",
                "recipients",
                "due_at",
                "message",
                "attempts",
                "last_reply",
                "told",
            )
            for fact in facts:
                assert getattr(kept, fact) == getattr(delivery, fact)
            assert (kept.held, kept.is_remembered) == (delivery.held, True)
        assert [path.name for path in tmp_path.iterdir()] == [f"drained-{LEFT}-{int(UNIX_START)}"]

    run(scenario)


def test_an_empty_store_is_set_aside_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path, [])
        shard = Shard(tmp_path)
        shard.orphan.open()
        await shard.run(5 * PAUSE_S)
        assert not (tmp_path / f"shard-{LEFT}").exists()

    run(scenario)


def test_nothing_is_removed_there_before_it_is_on_disk_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        left = [make_delivery() for _ in range(3)]
        await fill(tmp_path, left)
        shard = Shard(tmp_path)
        shard.orphan.open()
        await asyncio.sleep(10 * PAUSE_S)  # no commit here
        assert (shard.orphan.moved, shard.arrived) == (0, [])
        shard.orphan.close()  # and this shard dies
        again = Shard(tmp_path)
        again.orphan.open()
        await again.run(1.0)
        assert again.orphan.moved == 3

    run(scenario)


def test_what_is_known_here_already_is_removed_there_and_arrives_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        known, new = make_delivery(), make_delivery()
        await fill(tmp_path, [known, new])
        shard = Shard(tmp_path)
        shard.store.put([known], known.message, lambda _: None, is_forwarded=True)
        shard.store.commit()
        shard.orphan.open()
        await shard.run(1.0)
        assert [delivery.key for delivery in shard.arrived] == [new.key]
        assert (shard.orphan.moved, shard.store.count()) == (2, 2)
        assert not (tmp_path / f"shard-{LEFT}").exists()

    run(scenario)


def test_where_there_is_no_room_it_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path, [make_delivery() for _ in range(3)])
        shard = Shard(tmp_path)
        shard.store.full_reason = "map"
        shard.orphan.open()
        await shard.run(1.0)
        shard.store.full_reason = ""
        await shard.run(FULL_PAUSE_S - 1.5)
        assert shard.orphan.moved == 0
        await shard.run(1.5)
        assert shard.orphan.moved == 3

    run(scenario)


def test_a_commit_that_fails_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path, [make_delivery()])
        shard = Shard(tmp_path)
        shard.orphan.open()
        await asyncio.sleep(2.5 * PAUSE_S)
        shard.store.commit(StoreFull("disk"))
        assert shard.orphan.moved == 0
        await shard.run(1.0)
        assert (shard.orphan.moved, shard.store.count()) == (1, 1)

    run(scenario)


def test_it_knows_the_claims_of_its_spool_files(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path, [make_delivery()], claim="c-1")
        shard = Shard(tmp_path)
        shard.orphan.open()
        assert shard.orphan.knows_claim("c-1")
        assert not shard.orphan.knows_claim("c-2")
        shard.orphan.close()

    run(scenario)


def test_a_shard_may_end_while_something_is_on_its_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path, [make_delivery()])
        shard = Shard(tmp_path)
        shard.orphan.open()
        await asyncio.sleep(3 * PAUSE_S)
        shard.orphan.close()
        shard.store.close()  # tells what is staged, as the engine's own does when it ends
        await asyncio.sleep(1.0)

    run(scenario)


def test_an_empty_store_is_asked_what_it_remembers_for_a_day(tmp_path: Path) -> None:
    async def scenario() -> None:
        delivered, waiting = make_delivery(), make_delivery()
        store = Store(
            tmp_path / f"shard-{LEFT}",
            loop=asyncio.get_running_loop(),
            options=OPTIONS,
            clock=lambda: UNIX_START,
        )
        store.open()
        for delivery in (delivered, waiting):
            store.put([delivery], delivery.message, lambda _: None, is_forwarded=True)
        own = make_delivery()
        store.put([own], own.message, lambda _: None, idempotency="s1", reply=b"answer")
        store.remove(delivered)
        store.remove(own)
        store.close()
        shard = Shard(tmp_path, keep_until=UNIX_START + REMEMBERED_S)
        shard.orphan.open()
        assert shard.orphan.knows(waiting.key)
        await shard.run(1.0)
        assert shard.orphan.moved == 1
        assert shard.orphan.knows(delivered.key)
        assert not shard.orphan.knows(waiting.key), "it may be given back to this shard, which has it now"
        assert shard.orphan.idempotent("acme", "s1") == b"answer"
        assert shard.orphan.idempotent("acme", "s2") is None
        shard.now += REMEMBERED_S
        await asyncio.sleep(LOOK_S + 1.0)
        assert shard.orphans == {}
        assert [path.name for path in tmp_path.iterdir()] == [f"drained-{LEFT}-{int(UNIX_START)}"]

    run(scenario)
