"""upkeep: the quiet time after a start, what is kept of long windows, what is handed over if stuck."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.envelope import Delivery
from engine.delivery.peer_memory import PeerMemory
from engine.queue.path import Hold
from engine.shard.upkeep import (
    EVERY_S,
    FORGET_EVERY_S,
    MARKER,
    QUIET_S,
    STUCK_S,
    STUCK_SLICE,
    Upkeep,
    quiet_s,
)
from tests.fakes.delivery_rig import Rig, make_delivery
from tests.fakes.rig_engine import make_engine
from tests.fakes.virtual_loop import run_virtually

UNIX_NOW = 1_700_000_000.0

LONG = """
[default]
max_message_rate = "1/h"
"""


def mark(data_dir: Path, shard: int, at: float) -> None:
    marker = data_dir / f"shard-{shard}" / MARKER
    marker.parent.mkdir(exist_ok=True)
    marker.touch()
    os.utime(marker, (at, at))


# -- the quiet time -----------------------------------------------------------------------------------


def test_where_no_shard_had_sessions_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "shard-0").mkdir()
    assert quiet_s(tmp_path, UNIX_NOW) == 0.0
    assert quiet_s(tmp_path / "new", UNIX_NOW) == 0.0


def test_a_fresh_marker_of_any_shard_is_waited_for(tmp_path: Path) -> None:
    mark(tmp_path, 0, UNIX_NOW - 1000.0)
    mark(tmp_path, 1, UNIX_NOW - EVERY_S - QUIET_S + 0.1)
    assert quiet_s(tmp_path, UNIX_NOW) == QUIET_S


def test_an_old_marker_is_not(tmp_path: Path) -> None:
    mark(tmp_path, 0, UNIX_NOW - EVERY_S - QUIET_S)
    assert quiet_s(tmp_path, UNIX_NOW) == 0.0


def test_where_the_clock_was_set_back_the_marker_counts_as_fresh(tmp_path: Path) -> None:
    mark(tmp_path, 0, UNIX_NOW + 3600.0)
    assert quiet_s(tmp_path, UNIX_NOW) == QUIET_S


def test_a_marker_that_goes_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [self / "shard-0" / MARKER])
    assert quiet_s(tmp_path, UNIX_NOW) == 0.0


# -- what it does while the shard runs ------------------------------------------------------------------


class Exchange:
    """Knows one other shard for each pool, or none."""

    def __init__(self) -> None:
        self.owner: int | None = 1

    def owner_of(self, pool: str) -> int | None:
        return self.owner


class Shard:
    """What upkeep needs of an engine; deliveries, paths and sites are real."""

    def __init__(self, directory: Path, policy: str = "") -> None:
        self.rig = Rig(policy)
        self.exchange = Exchange()
        self.offered: list[Delivery] = []
        self.is_room = True
        self.opener = SimpleNamespace(sessions={}, memory=PeerMemory())
        engine = make_engine(
            self.rig,
            opener=self.opener,
            exchange=self.exchange,
            lending=SimpleNamespace(give=self._offer),
        )
        self.upkeep = Upkeep(engine, directory)

    def _offer(self, delivery: Delivery) -> bool:
        if self.is_room:
            self.offered.append(delivery)
        return self.is_room

    def close(self) -> None:
        self.upkeep.close()
        self.rig.close()

    def spend(self) -> None:
        """One message leaves under a long window."""
        path = self.path
        started = path.reserve_message(path.message_ready_at(self.rig.loop.time()))
        path.redeem_message(started, started)

    @property
    def path(self) -> Any:
        destination = self.rig.paths.policies.destination("x.example", "mx.x.example", ("mx.x.example",))
        return self.rig.paths.path("v1", destination, "")


def run(tmp_path: Path, scenario: Callable[[Shard], Any], policy: str = "") -> None:
    async def begin() -> None:
        (tmp_path / "shard-0").mkdir(exist_ok=True)
        shard = Shard(tmp_path / "shard-0", policy)
        await scenario(shard)
        shard.close()

    run_virtually(begin())


def test_the_marker_is_kept_fresh_while_there_are_sessions_and_only_then(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        marker = tmp_path / "shard-0" / MARKER
        shard.upkeep.open()
        await asyncio.sleep(EVERY_S + 0.1)
        assert not marker.exists()
        shard.opener.sessions["one"] = None
        await asyncio.sleep(EVERY_S)
        os.utime(marker, (0, 0))
        await asyncio.sleep(EVERY_S)
        assert marker.stat().st_mtime > 0
        os.utime(marker, (0, 0))
        shard.opener.sessions.clear()
        await asyncio.sleep(EVERY_S)
        assert marker.stat().st_mtime == 0

    run(tmp_path, scenario)


def test_a_shard_that_ends_without_sessions_leaves_no_marker(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        shard.upkeep.open()
        shard.upkeep.mark()

    run(tmp_path, scenario)
    assert not (tmp_path / "shard-0" / MARKER).exists()


def test_a_shard_that_ends_with_sessions_leaves_its_marker(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        shard.upkeep.open()
        shard.upkeep.mark()
        shard.opener.sessions["one"] = None

    run(tmp_path, scenario)
    assert (tmp_path / "shard-0" / MARKER).exists()


def test_a_shard_that_cut_sessions_off_leaves_its_marker_too(tmp_path: Path) -> None:
    """Their peers may count them for a while yet."""

    async def scenario(shard: Shard) -> None:
        shard.upkeep.open()
        shard.upkeep.mark()
        await asyncio.sleep(10.0)
        now = shard.rig.loop.time()
        assert shard.path.try_connect(now)
        shard.path.limits.slots.release_at(now, now + 5.0)

    run(tmp_path, scenario)
    assert (tmp_path / "shard-0" / MARKER).exists()


def test_what_was_spent_of_a_long_window_outlives_the_process(tmp_path: Path) -> None:
    async def first(shard: Shard) -> None:
        shard.upkeep.open()
        await asyncio.sleep(4000.0)
        shard.spend()
        await asyncio.sleep(EVERY_S + 0.1)  # and it dies without closing
        kept.append((tmp_path / "shard-0" / "limits").read_bytes())

    async def second(shard: Shard) -> None:
        (tmp_path / "shard-0" / "limits").write_bytes(kept[0])
        shard.upkeep.open()
        assert shard.path.message_ready_at(shard.rig.loop.time()) > shard.rig.loop.time() + 1800.0

    kept: list[bytes] = []
    run(tmp_path, first, LONG)
    run(tmp_path, second, LONG)
    assert not (tmp_path / "shard-0" / "limits.new").exists()
    assert (tmp_path / "shard-0" / "limits").stat().st_mode & 0o777 == 0o600


def test_unreadable_limits_are_begun_anew(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        shard.upkeep.open()

    (tmp_path / "shard-0").mkdir()
    (tmp_path / "shard-0" / "limits").write_bytes(b"\xc1 no msgpack")
    run(tmp_path, scenario)
    assert (tmp_path / "shard-0" / "limits").read_bytes() != b"\xc1 no msgpack"


def test_limits_are_written_when_they_changed(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        shard.upkeep.open()
        await asyncio.sleep(EVERY_S + 0.1)
        (tmp_path / "shard-0" / "limits").unlink()
        await asyncio.sleep(EVERY_S)
        assert not (tmp_path / "shard-0" / "limits").exists()

    run(tmp_path, scenario)


def test_idle_paths_are_forgotten(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        assert shard.path
        assert len(shard.rig.paths.paths) == 1
        shard.upkeep.open()
        await asyncio.sleep(FORGET_EVERY_S + 2 * EVERY_S)
        assert shard.rig.paths.paths == {}

    run(tmp_path, scenario)


# -- what is stuck --------------------------------------------------------------------------------------


async def wait_stuck(shard: Shard, count: int, until: float = math.inf) -> None:
    """Deliveries wait for a vmta that is held."""
    shard.rig.paths.hold_vmta("v1", "operator", "paused", until)
    shard.rig.accept(*[make_delivery() for _ in range(count)])
    shard.upkeep.open()
    await asyncio.sleep(STUCK_S + 0.5)


def test_what_waits_for_held_vmtas_is_handed_over_a_slice_at_a_time(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        await wait_stuck(shard, STUCK_SLICE + 3)
        assert shard.offered == []
        await asyncio.sleep(EVERY_S)
        assert len(shard.offered) == STUCK_SLICE
        await asyncio.sleep(EVERY_S)
        assert len(shard.offered) == STUCK_SLICE + 3
        assert not any(site_queue.queue for site_queue in shard.rig.sites)

    run(tmp_path, scenario)


def test_what_came_from_another_shard_stays(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        stays, goes = make_delivery(), make_delivery()
        stays.is_remembered = True
        shard.rig.accept(stays, goes)
        await wait_stuck(shard, 0)
        await asyncio.sleep(2 * EVERY_S)
        assert [delivery.key for delivery in shard.offered] == [goes.key]

    run(tmp_path, scenario)


def test_a_hold_that_ends_soon_is_waited_for(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        await wait_stuck(shard, 1, shard.rig.loop.time() + STUCK_S)
        await asyncio.sleep(2 * EVERY_S)
        assert shard.offered == []

    run(tmp_path, scenario)


def test_the_time_begins_anew_where_one_vmta_could_go_meanwhile(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.dispatcher.is_paused = True  # nothing leaves while the path is free
        await wait_stuck(shard, 1)
        path = next(iter(shard.rig.sites)).paths[0]
        hold = path.holds.pop("operator")
        await asyncio.sleep(EVERY_S)
        path.holds["operator"] = Hold(*hold)
        await asyncio.sleep(STUCK_S - EVERY_S)
        assert shard.offered == []
        await asyncio.sleep(3 * EVERY_S)
        assert len(shard.offered) == 1

    run(tmp_path, scenario)


def test_where_no_other_shard_can_take_it_everything_stays_ready(tmp_path: Path) -> None:
    async def scenario(shard: Shard) -> None:
        shard.exchange.owner = None
        await wait_stuck(shard, 2)
        await asyncio.sleep(2 * EVERY_S)
        shard.exchange.owner, shard.is_room = 1, False
        await asyncio.sleep(2 * EVERY_S)
        assert shard.offered == []
        assert sum(len(site_queue.queue) for site_queue in shard.rig.sites) == 2

    run(tmp_path, scenario)


def test_faults_of_peers_outlive_the_process(tmp_path: Path) -> None:
    async def first(shard: Shard) -> None:
        shard.upkeep.open()
        await asyncio.sleep(EVERY_S + 0.1)
        assert not (tmp_path / "shard-0" / "peers").exists()
        shard.opener.memory.remember("192.0.2.1", "tls", shard.rig.loop.time() + 1000.0, "why", "as mx")
        await asyncio.sleep(EVERY_S)
        assert (tmp_path / "shard-0" / "peers").stat().st_mode & 0o777 == 0o600
        shard.opener.memory.remember("192.0.2.2", "tls", shard.rig.loop.time() + 1000.0, "why", "as mx")

    async def second(shard: Shard) -> None:
        shard.upkeep.open()
        found = shard.opener.memory.faults(shard.rig.loop.time())
        assert [each.peer for each in found] == ["192.0.2.1", "192.0.2.2"]

    run(tmp_path, first)
    run(tmp_path, second)


def test_unreadable_faults_are_learnt_anew(tmp_path: Path) -> None:
    (tmp_path / "shard-0").mkdir()
    (tmp_path / "shard-0" / "peers").write_bytes(b"\xc1")

    async def scenario(shard: Shard) -> None:
        shard.upkeep.open()
        assert not shard.opener.memory.faults(0.0)

    run(tmp_path, scenario)
