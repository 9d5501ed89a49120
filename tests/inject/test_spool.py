"""The spool listener: files are noticed, shared between shards, taken within bounds."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.core.reply import make_reply
from engine.inject import spool as spool_module
from engine.inject.flight import MAX_IN_FLIGHT
from engine.inject.spool import SKIPPED_TICKS, SpoolListener
from engine.net import inotify as inotify_module
from engine.settings.model import ListenerSettings
from engine.store.memory import MemoryStore
from engine.telemetry.metrics import Counters

MAIL = b"From: a@acme.example\nTo: b@x.example\n\nbody\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@asynccontextmanager
async def serving(
    path: Path, intake: Any, shard: int = 0, shards: int = 1, **extra: Any
) -> AsyncIterator[Any]:
    settings = ListenerSettings(name="spool", protocol="spool", path=str(path), customer="acme")
    counters = extra.pop("counters", None) or Counters()
    listener = SpoolListener(settings, intake, MemoryStore(), counters, shard, shards, **extra)
    listener.open()
    try:
        yield listener
    finally:
        listener.close()


def put(path: Path, name: str, octets: bytes = MAIL) -> None:
    (path / "tmp" / name).write_bytes(octets)
    (path / "tmp" / name).rename(path / "new" / name)


def count(path: Path) -> int:
    return sum(len(os.listdir(each)) for each in (path / "new", *(path / "claimed").iterdir()))


def test_renamed_file_is_taken(path: Path, intake: Any, run: Callable[..., Any], until: Any) -> None:
    async def scenario() -> None:
        async with serving(path, intake):
            put(path, "m")
            await until(lambda: count(path) == 0)
            assert [taken[1] for taken in intake.taken] == [["b@x.example"]]

    run(scenario())


def test_file_written_in_place_is_taken_when_it_is_closed(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    async def scenario() -> None:
        async with serving(path, intake) as listener:
            with (path / "new" / "m").open("wb", buffering=0) as file:
                file.write(MAIL[:20])
                listener.list_new()
                await asyncio.sleep(0.02)
                assert intake.taken == []
                file.write(MAIL[20:])
            await until(lambda: count(path) == 0)
            assert intake.taken[0][2].endswith(b"body\r\n")

    run(scenario())


def test_files_from_before_the_start_are_taken_in_order(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    async def scenario() -> None:
        for name in ("tmp", "new"):
            (path / name).mkdir(parents=True)
        for number in (3, 1, 2):
            put(path, f"m{number}")
        async with serving(path, intake, unix_clock=lambda: 4e9):
            await until(lambda: count(path) == 0)
        assert [taken[4].peer for taken in intake.taken] == ["m1", "m2", "m3"]

    run(scenario())


def test_claimed_files_of_the_last_life_are_taken(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    async def scenario() -> None:
        (path / "claimed" / "0").mkdir(parents=True)
        (path / "claimed" / "0" / "m").write_bytes(MAIL)
        async with serving(path, intake):
            await until(lambda: count(path) == 0)
        assert len(intake.taken) == 1

    run(scenario())


def test_lost_events_are_made_good_by_the_listing(
    path: Path, intake: Any, run: Callable[..., Any], until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify_module.Inotify, "watch", refuse)

    async def scenario() -> None:
        async with serving(path, intake, unix_clock=lambda: 4e9) as listener:
            put(path, "m")
            listener.list_new()
            await until(lambda: count(path) == 0)

    run(scenario())


def test_overflow_of_the_kernels_queue_is_made_good(
    path: Path, intake: Any, run: Callable[..., Any], until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow = inotify_module.DirectoryEvent(inotify_module.OVERFLOW, "")

    async def scenario() -> None:
        async with serving(path, intake, unix_clock=lambda: 4e9):
            monkeypatch.setattr(
                inotify_module.Inotify, "read", lambda self: (os.read(self._fd, 4096), [overflow])[1]
            )
            put(path, "m")
            await until(lambda: count(path) == 0)

    run(scenario())


def test_two_shards_share_and_take_each_file_once(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    intakes = [type(intake)() for _ in range(2)]

    async def scenario() -> None:
        async with serving(path, intakes[0], 0, 2), serving(path, intakes[1], 1, 2):
            for number in range(200):
                put(path, f"m{number:03}")
            await until(lambda: count(path) == 0)

    run(scenario())
    names = [taken[4].peer for each in intakes for taken in each.taken]
    assert sorted(names) == [f"m{number:03}" for number in range(200)]
    assert min(len(each.taken) for each in intakes) > 50


def test_shard_that_is_paused_leaves_its_files_to_the_other(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    async def scenario() -> None:
        async with serving(path, intake, 0, 2), serving(path, type(intake)(), 1, 2) as other:
            other.pause("overloaded")
            for number in range(20):
                put(path, f"m{number}")
            await until(lambda: count(path) == 0)
        assert len(intake.taken) == 20

    run(scenario())


def test_paused_listener_leaves_files_in_new(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    async def scenario() -> None:
        async with serving(path, intake) as listener:
            listener.pause("overloaded")
            put(path, "m")
            await asyncio.sleep(0.02)
            assert os.listdir(path / "new") == ["m"]
            listener.pause("")
            await until(lambda: count(path) == 0)

    run(scenario())


def test_no_more_are_claimed_than_may_be_in_flight(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    intake.reply = None

    async def scenario() -> None:
        async with serving(path, intake) as listener:
            for number in range(MAX_IN_FLIGHT + 20):
                put(path, f"m{number:05}")
            await until(lambda: len(intake.waiting) == MAX_IN_FLIGHT)
            await asyncio.sleep(0.01)
            assert len(os.listdir(path / "new")) == 20
            assert listener.flight.count == MAX_IN_FLIGHT
            intake.answer()
            await until(lambda: len(intake.waiting) == 20)
            intake.answer()
            assert count(path) == 0

    run(scenario())


def test_full_store_stops_the_claiming(path: Path, intake: Any, run: Callable[..., Any], until: Any) -> None:
    intake.reply = make_reply(452, "4.3.1", "insufficient storage")
    clock = [100.0]

    async def scenario() -> None:
        async with serving(path, intake, clock=lambda: clock[0]) as listener:
            put(path, "a")
            await until(lambda: len(intake.taken) == 1)
            put(path, "b")
            await asyncio.sleep(0.02)
            assert os.listdir(path / "new") == ["b"]
            assert os.listdir(path / "claimed" / "0") == ["a"]
            intake.reply = make_reply(250, "2.0.0", "Ok")
            clock[0] += 20.0
            listener._wake()
            await until(lambda: count(path) == 0)

    run(scenario())


def test_name_used_again_while_its_first_file_is_in_flight(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    intake.reply = None

    async def scenario() -> None:
        async with serving(path, intake):
            put(path, "m", MAIL + b"first\n")
            await until(lambda: len(intake.waiting) == 1)
            put(path, "m", MAIL + b"second\n")
            await asyncio.sleep(0.01)
            assert len(intake.taken) == 1
            intake.answer()
            await until(lambda: len(intake.waiting) == 1)
            intake.answer()
            assert count(path) == 0
        assert [taken[2].split(b"\r\n")[-2] for taken in intake.taken] == [b"first", b"second"]

    run(scenario())


def test_file_that_can_not_be_claimed_is_left_and_counted_once(
    open_directory: Path, unprivileged: None, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    path = open_directory / "spool"
    counters = Counters()
    skipped = counters.counter("mailrail_injections_total", feed="spool", listener="spool", result="skipped")

    async def scenario() -> None:
        async with serving(path, intake, counters=counters, unix_clock=lambda: 4e9) as listener:
            put(path, "m")
            (path / "new").chmod(0o555)
            await until(lambda: skipped == [1])
            for _ in range(SKIPPED_TICKS + 1):
                listener._ticker.cancel()
                listener._tick()
            await asyncio.sleep(0.01)
            assert skipped == [1]
            (path / "new").chmod(0o755)
            put(path, "n")
            await until(lambda: len(intake.taken) == 1)
            for _ in range(SKIPPED_TICKS):
                listener._ticker.cancel()
                listener._tick()
            await until(lambda: count(path) == 0)

    run(scenario())


def test_spool_that_was_replaced_is_opened_anew(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    async def scenario() -> None:
        async with serving(path, intake) as listener:
            path.rename(path.with_name("old"))
            listener._ticker.cancel()
            listener._tick()
            put(path, "m")
            await until(lambda: len(intake.taken) == 1)

    run(scenario())


@pytest.mark.parametrize("name", ["new", "claimed", "failed"])
def test_directory_of_the_spool_that_was_removed_is_made_anew(
    path: Path, intake: Any, run: Callable[..., Any], until: Any, name: str
) -> None:
    async def scenario() -> None:
        async with serving(path, intake) as listener:
            shutil.rmtree(path / name)
            listener._ticker.cancel()
            listener._tick()
            put(path, "m")
            put(path, "bad", b"")
            await until(lambda: len(intake.taken) == 1)
            await until(lambda: sorted(os.listdir(path / "failed")) == ["bad", "bad.reason"])

    run(scenario())


def test_stop_finishes_what_is_in_flight_and_claims_no_more(
    path: Path, intake: Any, run: Callable[..., Any], until: Any
) -> None:
    intake.reply = None

    async def scenario() -> None:
        async with serving(path, intake) as listener:
            put(path, "a")
            await until(lambda: len(intake.waiting) == 1)
            stopping = asyncio.ensure_future(listener.stop(10.0))
            await asyncio.sleep(0)
            put(path, "b")
            intake.answer()
            await stopping
            assert os.listdir(path / "new") == ["b"]
            assert os.listdir(path / "claimed" / "0") == []

    run(scenario())


def test_backlog_larger_than_one_listing_is_taken(
    path: Path, intake: Any, run: Callable[..., Any], until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MAX_LISTED", 10)

    async def scenario() -> None:
        for name in ("tmp", "new"):
            (path / name).mkdir(parents=True)
        for number in range(55):
            put(path, f"m{number}")
        async with serving(path, intake, unix_clock=lambda: 4e9):
            await until(lambda: count(path) == 0)
        assert len(intake.taken) == 55

    run(scenario())


def test_dot_files_are_left_alone(path: Path, intake: Any, run: Callable[..., Any], until: Any) -> None:
    async def scenario() -> None:
        async with serving(path, intake, unix_clock=lambda: 4e9) as listener:
            put(path, ".m.swp")
            put(path, "m")
            listener.list_new()
            await until(lambda: len(intake.taken) == 1)
            await asyncio.sleep(0.01)
            assert os.listdir(path / "new") == [".m.swp"]

    run(scenario())
