"""index_watch: the indexes are looked over in small slices, round after round, and told of when mended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.core.errors import StoreDamaged
from engine.shard.index_watch import REST_S, ROWS, TICK_S, IndexWatch
from engine.shard.store_trouble import StoreTrouble
from engine.store.environment import StoreOptions
from engine.store.lmdb import Store
from engine.store.records import queue_name, schedule_key, schedule_key_of
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import make_delivery
from tests.fakes.virtual_loop import run_virtually

OPTIONS = StoreOptions(map_size_bytes=64 << 20, min_free_bytes=0, min_free_fraction=0.0)


class Checked:
    """Answers what a test says, and counts."""

    def __init__(self, *answers: bool | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    def check(self, limit: int) -> bool | None:
        self.asked.append(limit)
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer


def open_store(directory: Path, counters: Counters) -> Store:
    loop = asyncio.get_running_loop()
    trouble = StoreTrouble(loop, counters)
    store = Store(directory, loop=loop, options=OPTIONS, on_mended=trouble.mended)
    store.open()
    return store


def run(scenario: Callable[[], Any]) -> None:
    run_virtually(scenario())


def test_slices_follow_each_other_until_the_round_is_over_and_then_it_rests() -> None:
    async def scenario() -> None:
        store = Checked(False, False, True)
        watch = IndexWatch(store)
        watch.start()
        await asyncio.sleep(TICK_S * 1.5)
        assert store.asked == [ROWS] * 3
        await asyncio.sleep(REST_S - 2 * TICK_S)
        assert len(store.asked) == 3
        await asyncio.sleep(3 * TICK_S)
        assert len(store.asked) == 4
        watch.close()
        await asyncio.sleep(2 * REST_S)
        assert len(store.asked) == 4

    run(scenario)


def test_what_has_to_be_mended_first_is_waited_for_until_the_next_tick() -> None:
    async def scenario() -> None:
        store = Checked(False, None, False, True)
        watch = IndexWatch(store)
        watch.start()
        await asyncio.sleep(TICK_S * 1.5)
        assert len(store.asked) == 2
        await asyncio.sleep(TICK_S)
        assert len(store.asked) == 4
        watch.close()

    run(scenario)


def test_a_damaged_store_is_its_owners_to_end() -> None:
    async def scenario() -> None:
        watch = IndexWatch(Checked(StoreDamaged("a page")))
        watch.start()
        await asyncio.sleep(TICK_S * 1.5)
        watch.close()

    run(scenario)


def test_a_delivery_that_no_index_names_is_due_again_without_anybody_asking(tmp_path: Path) -> None:
    async def scenario() -> None:
        counters = Counters()
        store = open_store(tmp_path, counters)
        lost, late = make_delivery("a.example"), make_delivery("b.example")
        for delivery in (lost, late):
            store.put([delivery], delivery.message, lambda _: None)
        store.close()
        store = open_store(tmp_path, counters)
        with store._environment.lmdb.begin(write=True) as txn:
            txn.delete(schedule_key_of(lost), db=store._tables.schedule)
            txn.delete(schedule_key_of(late), db=store._tables.schedule)
            far = schedule_key(queue_name("acme", "b.example"), 1 << 50, late.key)
            txn.put(far, b"", db=store._tables.schedule)
        watch = IndexWatch(store)
        watch.start()
        await asyncio.sleep(TICK_S * 1.5)
        watch.close()
        store.close()
        assert counters.counter("mailrail_index_mended_total")[0] >= 2
        store = open_store(tmp_path, counters)
        assert {row[2]: row[1] for row in store.schedule_slice(b"", 10)} == {
            each.key: int(each.due_at * 1000) for each in (lost, late)
        }
        store.close()

    run(scenario)
