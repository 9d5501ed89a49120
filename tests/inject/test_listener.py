"""The life of a listener, whatever its feed: the tick, the end with its grace, what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from engine.inject.listener import FeedSession, Listener
from engine.settings.model import ListenerSettings
from engine.telemetry.metrics import Counters
from tests.fakes.feeds import SOCKET_SETTINGS, listening_socket


class PlainListener(Listener):
    """A feed that knows nothing of its settings."""

    def use(self, settings: ListenerSettings) -> None:
        super().use(settings)


class PlainSession(FeedSession):
    """Remembers what it was told; ends when a test says so."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self.told: list[str] = []
        listener.sessions.add(self)

    def tick(self) -> None:
        self.told.append("tick")

    def shut(self) -> None:
        self.told.append("shut")

    def abort(self) -> None:
        self.told.append("abort")


def make_listener(counters: Counters | None = None, **changes: Any) -> PlainListener:
    settings = msgspec.structs.replace(SOCKET_SETTINGS, **changes)
    return PlainListener(settings, counters or Counters(), "plain")


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[PlainListener]:
    listener = make_listener()
    await listener.open(listening_socket(path), PlainSession)
    try:
        yield listener
    finally:
        listener.close()


def test_every_session_hears_of_a_second() -> None:
    listener = make_listener()
    sessions = [PlainSession(listener) for _ in range(2)]
    listener.sweep()
    assert [session.told for session in sessions] == [["tick"], ["tick"]]


def test_listener_is_full_at_its_bound_which_new_settings_move() -> None:
    listener = make_listener(max_connections=1)
    assert not listener.is_full
    PlainSession(listener)
    assert listener.is_full
    listener.use(msgspec.structs.replace(SOCKET_SETTINGS, max_connections=2))
    assert not listener.is_full


def test_refusals_and_sessions_are_counted_under_the_feed() -> None:
    counters = Counters()
    listener = make_listener(counters)
    PlainSession(listener)
    for code in (421, 550, 550):
        listener.count_refusal(code)
    snapshot = counters.snapshot()
    rows = {(name, *labels): value for name, labels, value in snapshot["counters"] + snapshot["gauges"]}
    assert rows["mailrail_refusals_total", "plain", "421"] == 1
    assert rows["mailrail_refusals_total", "plain", "550"] == 2
    assert rows["mailrail_inbound_sessions", SOCKET_SETTINGS.name] == 1


def test_each_connection_gets_a_session(tmp_path: Path, run: Callable[..., Any], until: Any) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as listener:
            _, writer = await asyncio.open_unix_connection(tmp_path / "s")
            await until(lambda: len(listener.sessions) == 1)
            writer.close()

    run(scenario())


def test_retired_listener_lets_its_sessions_go_on(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as listener:
            session = PlainSession(listener)
            retiring = asyncio.ensure_future(listener.retire(60.0, 60.0))
            await asyncio.sleep(0.01)
            assert (session.told, listener.is_stopping, retiring.done()) == ([], False, False)
            listener.forget(session)
            await retiring
            assert listener.is_stopping
            late = PlainSession(listener)
            await listener.retire(0.01, 0.01)
            assert late.told[0] == "shut"

    run(scenario())


def test_retired_listener_stops_with_the_engine(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as listener:
            session = PlainSession(listener)
            retiring = asyncio.ensure_future(listener.retire(60.0, 60.0))
            await asyncio.sleep(0)
            stopping = asyncio.ensure_future(listener.stop(60.0))
            await asyncio.sleep(0)
            assert session.told == ["shut"]
            listener.forget(session)
            await stopping
            retiring.cancel()

    run(scenario())


def test_stop_ends_with_the_last_session(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as listener:
            sessions = [PlainSession(listener) for _ in range(2)]
            stopping = asyncio.ensure_future(listener.stop(60.0))
            await asyncio.sleep(0)
            assert listener.is_stopping
            assert [session.told for session in sessions] == [["shut"], ["shut"]]
            for session in sessions:
                assert not stopping.done()
                listener.forget(session)
            await stopping
            assert [session.told for session in sessions] == [["shut"], ["shut"]]

    run(scenario())


def test_stop_aborts_what_outlasts_the_grace(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as listener:
            session = PlainSession(listener)
            await listener.stop(0.01)
            assert session.told == ["shut", "abort"]
            assert not listener.sessions

    run(scenario())


def test_closed_listener_accepts_nobody(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s") as listener:
            listener.close()
            listener.close()
            try:
                await asyncio.open_unix_connection(tmp_path / "s")
            except ConnectionRefusedError:
                return
            raise AssertionError("connected")

    run(scenario())
