"""feeds: listeners begin, stay and end with the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.settings.model import EngineSettings
from engine.shard.feeds import Feeds
from tests.fakes.virtual_loop import run_virtually

KEYS = {"in": "tcp:25", "api": "unix:api"}


class FakeFeed:
    """A listener that notes what is asked of it; ending takes as long as `grace_s`."""

    made: list[FakeFeed]
    log: list[str]

    def __init__(self, row: Any, *_: Any, **options: Any) -> None:
        self.row = row
        self.options = options
        self.reason = ""
        self.sessions: set[Any] = set()
        self.reason_at_start = ""
        self.used: list[Any] = []
        self.made.append(self)

    def pause(self, reason: str) -> None:
        self.reason = reason

    def open(self, sock: Any = None, make_session: Any = None, serve: Any = None) -> Any:
        self.sock = sock
        self.reason_at_start = self.reason
        self.log.append(f"open {self.row.name}")
        return asyncio.sleep(0) if sock is not None else None

    def use(self, settings: Any) -> None:
        self.used.append(settings)

    async def stop(self, grace_s: float) -> None:
        self.log.append(f"stop {self.row.name} {grace_s:g}")
        await asyncio.sleep(grace_s)

    def close(self) -> None:
        self.log.append(f"close {self.row.name}")


class FakeSpool(FakeFeed):
    """Told apart from the others by its type."""


class Inbox:
    async def take(self, key: str) -> str:
        return f"socket of {key}"


def make_row(name: str, protocol: str, path: str = "") -> Any:
    return SimpleNamespace(name=name, protocol=protocol, path=path)


SMTP, SOCKET = make_row("in", "smtp"), make_row("api", "socket")
SPOOL = make_row("drop", "spool", "/spool/drop")


def make_settings(*rows: Any) -> Any:
    engine = EngineSettings(hostname="mta1.example.net", data_dir="/data", grace_s=3.0)
    return SimpleNamespace(listeners=rows, engine=engine, customers={})


def make_feeds() -> Any:
    engine: Any = SimpleNamespace(
        shard=0,
        shards=2,
        acceptor=SimpleNamespace(is_draining=False),
        store=SimpleNamespace(options=SimpleNamespace(durability="async"), staged_bytes=0),
        window=SimpleNamespace(size_bytes=0),
        counters=None,
        tries=None,
        exchange=SimpleNamespace(peers=SimpleNamespace(send=None), repeats=None),
        orphans={3: SimpleNamespace(knows_claim=lambda claim: claim == "c-1")},
    )
    return engine, Feeds(engine, Inbox())  # type: ignore[arg-type]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeFeed]:
    FakeFeed.made, FakeFeed.log = [], []
    for name in ("SMTPListener", "SocketListener"):
        monkeypatch.setattr(f"engine.shard.feeds.{name}", FakeFeed)
    monkeypatch.setattr("engine.shard.feeds.SpoolListener", FakeSpool)
    return FakeFeed.made


def run(scenario: Callable[[Any, Feeds], Any]) -> None:
    async def begin() -> None:
        await scenario(*make_feeds())

    run_virtually(begin())


def test_every_listener_gets_its_socket_and_spools_begin_first(made: list[FakeFeed]) -> None:
    async def scenario(engine: Any, feeds: Feeds) -> None:
        await feeds.use(make_settings(SMTP, SOCKET, SPOOL), KEYS)
        assert FakeFeed.log == ["open drop", "open in", "open api"]
        assert [feed.sock for feed in made] == [None, "socket of tcp:25", "socket of unix:api"]
        assert sorted(feeds.names) == ["spool:/spool/drop", "tcp:25", "unix:api"]

    run(scenario)


def test_listeners_that_stay_are_told_and_those_that_are_gone_end(made: list[FakeFeed]) -> None:
    async def scenario(engine: Any, feeds: Feeds) -> None:
        await feeds.use(make_settings(SMTP, SOCKET), KEYS)
        renamed = make_row("renamed", "smtp")
        await feeds.use(make_settings(renamed), {"renamed": "tcp:25"})
        await asyncio.sleep(4.0)
        assert made[0].used == [renamed]
        assert FakeFeed.log[2:] == ["stop api 3", "close api"]
        assert feeds.names == ["tcp:25"]

    run(scenario)


def test_one_that_comes_back_begins_when_the_last_has_ended(made: list[FakeFeed]) -> None:
    async def scenario(engine: Any, feeds: Feeds) -> None:
        await feeds.use(make_settings(SMTP), KEYS)
        await feeds.use(make_settings(), {})
        await asyncio.sleep(0.1)
        await feeds.use(make_settings(SMTP), KEYS)
        assert FakeFeed.log == ["open in", "stop in 3", "close in", "open in"]

    run(scenario)


def test_sessions_of_a_listener_that_moved_go_on_until_the_engine_stops(
    made: list[FakeFeed], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Retirable(FakeFeed):
        async def retire(self, bound_s: float, grace_s: float) -> None:
            self.log.append(f"retire {self.row.name} {bound_s:g} {grace_s:g}")
            await asyncio.sleep(bound_s)

    monkeypatch.setattr("engine.shard.feeds.Listener", Retirable)
    monkeypatch.setattr("engine.shard.feeds.SMTPListener", Retirable)

    async def scenario(engine: Any, feeds: Feeds) -> None:
        await feeds.use(make_settings(SMTP), {"in": "tcp:25"})
        await feeds.use(make_settings(SMTP), {"in": "tcp:2525"})
        await feeds.use(make_settings(SMTP), {"in": "tcp:25"})  # and back: nobody waits for the last one
        made[0].sessions = made[1].sessions = {1, 2}
        await asyncio.sleep(1.0)
        assert sorted(FakeFeed.log) == ["open in"] * 3 + ["retire in 600 3"] * 2
        assert feeds._count_sessions() == 4
        del FakeFeed.log[:]
        await feeds.stop(2.0)
        feeds.close()
        assert FakeFeed.log == ["stop in 2"] * 3 + ["close in"] * 3

    run(scenario)


def test_a_spool_of_a_draining_shard_begins_paused(made: list[FakeFeed]) -> None:
    async def scenario(engine: Any, feeds: Feeds) -> None:
        engine.acceptor.is_draining = True
        await feeds.use(make_settings(SPOOL, SMTP), KEYS)
        assert made[0].reason_at_start == "draining"
        feeds.set_draining(False)
        assert not made[0].reason
        feeds.set_draining(True)
        assert (made[0].reason, made[1].reason) == ("draining", "")

    run(scenario)


def test_a_spool_waits_while_load_is_shed_for_the_reason_that_other_feeds_say(made: list[FakeFeed]) -> None:
    async def scenario(engine: Any, feeds: Feeds) -> None:
        await feeds.use(make_settings(SPOOL, SMTP), KEYS)
        engine.store.staged_bytes = 10**9
        await asyncio.sleep(1.0)
        assert made[0].reason == "octets staged"
        assert str(feeds.shedding.reply) == "421 4.3.2 overloaded (octets staged), try again later"
        feeds.set_draining(True)
        feeds.set_draining(False)
        assert made[0].reason == "octets staged"
        engine.store.staged_bytes = 0
        await asyncio.sleep(3.0)
        assert made[0].reason == ""
        feeds.close()

    run(scenario)


def test_a_spool_knows_what_left_stores_have_claimed(made: list[FakeFeed]) -> None:
    async def scenario(engine: Any, feeds: Feeds) -> None:
        await feeds.use(make_settings(SPOOL), {})
        knows = made[0].options["knows_left_claim"]
        assert [knows(3, "c-1"), knows(3, "c-2"), knows(4, "c-1")] == [True, False, False]
        assert made[0].options["is_async"]

    run(scenario)


def test_stopping_gives_all_the_same_grace_and_closing_forgets_them(made: list[FakeFeed]) -> None:
    async def scenario(engine: Any, feeds: Feeds) -> None:
        await feeds.use(make_settings(SMTP, SOCKET), KEYS)
        began_at = asyncio.get_running_loop().time()
        await feeds.stop(5.0)
        assert asyncio.get_running_loop().time() - began_at == pytest.approx(5.0)
        feeds.close()
        assert FakeFeed.log[2:] == ["stop in 5", "stop api 5", "close in", "close api"]
        assert feeds.names == []

    run(scenario)


def test_repeatable_ids_are_taken_from_other_shards_as_soon_as_there_are_feeds(made: list[FakeFeed]) -> None:
    async def scenario(engine: Any, feeds: Feeds) -> None:
        assert engine.exchange.repeats is not None

    run(scenario)
