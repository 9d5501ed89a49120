"""salvaging: what is remembered first, every message once, and a report only when all of it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine.core.envelope import Delivery
from engine.core.errors import StoreFull
from engine.shard.salvaging import AGAIN_S, FULL_PAUSE_S, MAX_BROKEN_OFF, Salvages, read_items
from engine.store.quarantine import list_quarantined
from engine.store.records import encode_body, encode_claim, encode_delivery
from engine.store.remembered import encode_remembered
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import UNIX_START, make_delivery
from tests.fakes.memory_commits import CommittingStore
from tests.fakes.virtual_loop import run_virtually

LOST = {"id": "00" * 12, "delivery": "00" * 14, "why": "gone"}
END = ["end", {"damage": 1, "has_past": False, "messages": 0, "deliveries": 0, "lost": 0}]


def message_item(*deliveries: Delivery) -> list[Any]:
    first = deliveries[0]
    rows = [[each.key, encode_delivery(each)] for each in deliveries]
    return ["message", encode_body(first.message_id, first.envelope, first.message), rows]


class Shard:
    """What a salvage needs of an engine: a store in memory that commits, and who hears of arrivals."""

    def __init__(self, data_dir: Path, runs: list[list[Any]]) -> None:
        self.store = CommittingStore(clock=lambda: UNIX_START)
        self.arrived: list[Delivery] = []
        self.counters = Counters()
        self.runs = runs
        self.data_dir = data_dir
        place = data_dir / "quarantine" / "shard-0-1764000000"
        place.mkdir(parents=True)
        (place / "data.mdb").write_bytes(b"damaged")
        (place / "reason").write_text("why")
        engine: Any = SimpleNamespace(
            loop=asyncio.get_running_loop(),
            shard=0,
            shards=2,
            counters=self.counters,
            store=self.store,
            readahead=SimpleNamespace(arrived=self.arrived.append),
        )
        self.salvages = Salvages(engine, data_dir, self.items)

    async def items(self, _place: Path) -> AsyncIterator[list[Any]]:
        for item in self.runs.pop(0):
            yield item

    @property
    def report(self) -> dict[str, Any] | None:
        return list_quarantined(self.data_dir)[0].report

    def salvaged(self, result: str) -> float:
        return self.counters.counter("mailrail_salvaged_total", result=result)[0]


def run(scenario: Callable[[], Any]) -> None:
    run_virtually(scenario())


def test_memory_is_there_before_the_shard_serves_and_messages_after(tmp_path: Path) -> None:
    async def scenario() -> None:
        delivery = make_delivery()
        claim = encode_claim(b"file.msg", delivery.message_id)
        seen = encode_remembered(b"k" * 14, UNIX_START + 100)
        memory = [["claim", b"file.msg", claim], ["seen", b"k" * 14, seen]]
        shard = Shard(tmp_path, [[*memory, ["memory"], message_item(delivery), ["lost", LOST], END]])
        await shard.salvages.open()
        assert shard.store.claim_of("file.msg") == delivery.message_id
        assert shard.store.remembered(b"k" * 14)
        assert not shard.store.is_stored(delivery.key)
        shard.salvages.begin()
        await asyncio.sleep(0.1)
        assert shard.store.is_stored(delivery.key)
        assert [each.key for each in shard.arrived] == [delivery.key]
        assert shard.report == {"restored": 1, "known": 0, "lost": 1, "damage": 1, "has_past": False}
        assert (shard.salvaged("restored"), shard.salvaged("lost")) == (1, 1)
        assert (tmp_path / "quarantine" / "shard-0-1764000000" / "lost.jsonl").read_text().count("gone") == 1

    run(scenario)


def test_what_is_here_or_was_is_not_put_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        here, gone, fresh = make_delivery(), make_delivery(), make_delivery()
        items = [["memory"], message_item(here), message_item(gone), message_item(fresh), END]
        shard = Shard(tmp_path, [items])
        shard.store.put([here], here.message, lambda _: None)
        shard.store.restore("seen", gone.key, encode_remembered(gone.key, UNIX_START + 100))
        await shard.salvages.open()
        shard.salvages.begin()
        await asyncio.sleep(0.1)
        assert [each.key for each in shard.arrived] == [fresh.key]
        assert (shard.report or {})["known"] == 2

    run(scenario)


def test_reader_that_broke_off_is_begun_again_and_nothing_put_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = make_delivery(), make_delivery()
        whole = [["memory"], message_item(first), message_item(second), END]
        shard = Shard(tmp_path, [whole[:2], whole])
        await shard.salvages.open()
        shard.salvages.begin()
        await asyncio.sleep(AGAIN_S / 2)
        assert shard.report is None
        await asyncio.sleep(AGAIN_S)
        assert [each.key for each in shard.arrived] == [first.key, second.key]
        assert shard.report is not None

    run(scenario)


def test_reader_that_never_comes_to_its_end_is_not_begun_again_for_ever(tmp_path: Path) -> None:
    async def scenario() -> None:
        delivery = make_delivery()
        shard = Shard(tmp_path, [[["memory"], message_item(delivery)] for _ in range(MAX_BROKEN_OFF + 1)])
        await shard.salvages.open()
        shard.salvages.begin()
        await asyncio.sleep(2 * MAX_BROKEN_OFF * AGAIN_S)
        assert len(shard.runs) == 1, "one is left for the next process"
        assert [each.key for each in shard.arrived] == [delivery.key]
        assert shard.report is None

    run(scenario)


def test_full_store_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        delivery = make_delivery()
        shard = Shard(tmp_path, [[["memory"], message_item(delivery), END]])
        shard.store.full_reason = "no room"
        await shard.salvages.open()
        shard.salvages.begin()
        await asyncio.sleep(FULL_PAUSE_S / 2)
        assert shard.report is None
        shard.store.full_reason = ""
        await asyncio.sleep(FULL_PAUSE_S)
        assert shard.report is not None
        assert len(shard.arrived) == 1

    run(scenario)


def test_commit_that_found_no_room_has_it_done_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        delivery = make_delivery()
        items = [["memory"], message_item(delivery), END]
        shard = Shard(tmp_path, [items, list(items)])
        shard.store.refuse_next = StoreFull("no room")
        await shard.salvages.open()
        shard.salvages.begin()
        await asyncio.sleep(AGAIN_S * 1.5)
        assert len(shard.arrived) == 1
        assert shard.report is not None

    run(scenario)


def test_stores_of_other_shards_and_those_that_are_done_are_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        shard = Shard(tmp_path, [[["memory"], END]])
        room = tmp_path / "quarantine"
        (room / "shard-0-1764000000").rename(room / "shard-1-1764000000")
        await shard.salvages.open()
        shard.salvages.begin()
        await asyncio.sleep(0.1)
        assert shard.report is None
        assert len(shard.runs) == 1

    run(scenario)


def test_reader_in_a_process_of_its_own_is_read_to_its_end(tmp_path: Path) -> None:
    async def scenario() -> list[Any]:
        return [item async for item in read_items(tmp_path)]

    assert asyncio.run(scenario()) == [], "there is no file: the process says so and ends"
