"""gauges: what the metrics of state read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.delivery.census import Census
from engine.shard.gauges import Gauges
from engine.telemetry.labels import MAX_HELD_LABELS, DestinationLabels
from tests.fakes.delivery_rig import Rig, make_delivery
from tests.fakes.rig_engine import make_engine, run_shard


class Session:
    """What a gauge looks at."""

    path = SimpleNamespace(vmta="v1", destination="x.example")

    def __init__(self, phase: str) -> None:
        self.phase = phase


class Shard:
    """An engine over a store and peers in memory, looked at by its gauges."""

    def __init__(self) -> None:
        self.rig = rig = Rig(vmtas={"v1": 1})
        room = SimpleNamespace(map_used_bytes=25, map_size_bytes=100, disk_free_bytes=50, disk_size_bytes=100)
        self.room = room
        self.census = Census()
        store: Any = SimpleNamespace(
            count=rig.store.count, room=room, stats=SimpleNamespace(puts=3, operations=8)
        )
        engine = make_engine(
            rig,
            shard=2,
            store=store,
            labels=DestinationLabels(),
            resolver=SimpleNamespace(
                counts={"hit": 5}, sts_counts={"fetched": 2}, dane_counts={"found": 3, "insecure": 1}
            ),
            bouncer=SimpleNamespace(made=4),
            expiry=SimpleNamespace(census=self.census),
        )
        Gauges(engine)

    def read(self, name: str) -> dict[tuple[str, ...], float]:
        snapshot = self.rig.counters.snapshot()
        return {
            tuple(labels): value
            for rows in (snapshot["gauges"], snapshot["counters"])
            for each, labels, value in rows
            if each == name
        }

    def by_last_label(self, name: str) -> dict[str, float]:
        """Sum over vmtas and destinations, whose label is not the point here."""
        found: dict[str, float] = {}
        for labels, value in self.read(name).items():
            found[labels[-1]] = found.get(labels[-1], 0) + value
        return found


def run(scenario: Callable[[Shard], Any]) -> None:
    run_shard(Shard, scenario)


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("mailrail_store_used_bytes", {(): 25}),
        ("mailrail_store_operations_total", {("put",): 3, ("all",): 8}),
        ("mailrail_lookups_total", {("hit",): 5}),
        ("mailrail_sts_fetches_total", {("fetched",): 2}),
        ("mailrail_dane_lookups_total", {("found",): 3, ("insecure",): 1}),
        ("mailrail_bounce_messages_total", {(): 4}),
        ("mailrail_store_free_ratio", {("2",): 0.5}),
    ],
)
def test_what_the_store_and_others_count_is_read_from_them(
    name: str, reading: dict[tuple[str, ...], float]
) -> None:
    async def scenario(shard: Shard) -> None:
        assert shard.read(name) == reading

    run(scenario)


def test_free_is_the_lesser_of_map_and_disk() -> None:
    async def scenario(shard: Shard) -> None:
        shard.room.map_used_bytes = 90
        assert shard.read("mailrail_store_free_ratio") == {("2",): pytest.approx(0.1)}
        shard.room.disk_size_bytes = 0
        assert shard.read("mailrail_store_free_ratio") == {("2",): 0.0}

    run(scenario)


def test_what_waits_is_ready_scheduled_and_in_the_window() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.paths.hold_vmta("v1", "operator", "paused", math.inf)
        shard.rig.accept(*[make_delivery() for _ in range(3)])
        await asyncio.sleep(0.1)
        assert shard.read("mailrail_scheduled") == {("",): 3}  # nobody knows yet whose
        shard.census.count("acme", 2)
        shard.census.count("globex", 1)
        assert shard.read("mailrail_scheduled") == {("acme",): 2, ("globex",): 1}
        assert shard.read("mailrail_window_messages") == {(): 3}
        assert shard.read("mailrail_window_bytes")[()] > 0
        ready = shard.read("mailrail_ready")
        assert list(ready.values()) == [3]
        assert next(iter(ready))[0] == "pool"

    run(scenario)


def test_a_held_path_is_told_with_its_reason_until_it_is_released() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.paths.hold_vmta("v1", "operator", "paused", math.inf)
        shard.rig.accept(make_delivery())
        await asyncio.sleep(0.1)
        assert shard.by_last_label("mailrail_held") == {"paused": 1.0}
        shard.rig.paths.release_vmta("v1", "operator")
        assert shard.read("mailrail_held") == {}

    run(scenario)


def test_held_paths_have_their_names_without_traffic_and_holds_before_back_offs() -> None:
    async def scenario(shard: Shard) -> None:
        rig = shard.rig
        rig.paths.hold_vmta("v1", "operator", "paused", math.inf)
        rig.accept(*[make_delivery(f"d{n}.example") for n in range(MAX_HELD_LABELS + 1)])
        await asyncio.sleep(0.1)
        paths = list(rig.paths.paths.values())
        for path in paths[:-1]:
            path.release("operator")
            for demand in path.sites.values():
                demand.fail(rig.loop.time(), "refused")
        held = shard.read("mailrail_held")
        named = {labels[1] for labels in held} - {"other"}
        assert named == {path.destination for path in (paths[-1], *paths[: MAX_HELD_LABELS - 1])}
        assert held["v1", paths[-1].destination, "paused"] == held["v1", "other", "back-off"] == 1.0

    run(scenario)


def test_a_path_in_back_off_is_told_as_held() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.paths.hold_vmta("v1", "operator", "paused", math.inf)
        shard.rig.accept(make_delivery())
        await asyncio.sleep(0.1)
        (path,) = shard.rig.paths.paths.values()
        path.release("operator")
        for demand in path.sites.values():
            demand.fail(shard.rig.loop.time(), "refused")
        assert shard.by_last_label("mailrail_held") == {"back-off": 1.0}
        await asyncio.sleep(2.0)
        assert shard.read("mailrail_held") == {}

    run(scenario)


def test_sessions_are_told_by_what_they_do() -> None:
    async def scenario(shard: Shard) -> None:
        for phase in ("idle", "quit", "mail", "content"):
            session: Any = Session(phase)
            shard.rig.sessions[session] = None
        assert shard.by_last_label("mailrail_sessions") == {"idle": 1, "closing": 1, "busy": 2}
        shard.rig.sessions.clear()

    run(scenario)


def test_sessions_that_open_are_told_too() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.open_s = 5.0
        shard.rig.accept(make_delivery())
        await asyncio.sleep(0.1)
        assert shard.by_last_label("mailrail_sessions") == {"opening": 1}

    run(scenario)


def test_refusals_are_told_by_reason() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.dispatcher.refusals["held"] = 6
        assert shard.read("mailrail_holds_total")[("held",)] == 6

    run(scenario)
