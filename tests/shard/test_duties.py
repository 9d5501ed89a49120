"""duties: in which order a shard takes what the supervisor asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.errors import StoreUnhealthy
from engine.delivery.paths import Spent, decode_spent, encode_spent
from engine.loading import load_shipped_policies
from engine.shard.duties import CUT_OFF_S, RELEASE_POLL_S, Duties
from engine.supervisor.supervisor import STOP_MARGIN_S
from tests.fakes.virtual_loop import run_virtually

POLICIES = load_shipped_policies()
SETTINGS = """
[engine]
hostname = "mta.example"
data_dir = "{directory}"
[[listener]]
name = "in"
protocol = "smtp"
customer = "acme"
listen = "127.0.0.1:2525"
[[vmta]]
name = "v1"
source = "127.0.0.2"
hostname = "v1.example"
[[pool]]
name = "acme"
members = {{ "v1" = 1 }}
[[customer]]
name = "acme"
pool = "acme"
senders = ["*"]
"""


def spent_by(vmta: str) -> Spent:
    return Spent((vmta,), "gmail", 1.0, [])


class FakeEngine:
    """Notes what is done to it, in order."""

    failure: Exception | None = None

    def __init__(self, *_: Any) -> None:
        self.log: list[Any] = []
        self.loop = asyncio.get_running_loop()
        self.in_use_until = 0.0
        note = self.log.append
        self.limits = SimpleNamespace(slots=SimpleNamespace(in_use=lambda now: int(now < self.in_use_until)))
        self.paths = SimpleNamespace(
            vmtas={},
            limits_of=lambda _names: [self.limits],
            restore_limits=lambda rows, *_: note(("restore", *rows)),
            export_limits=lambda names, *_: [spent_by(names[0])],
            drop_limits=lambda names: note(("drop limits", names)),
        )
        self.upkeep = SimpleNamespace(
            take_over=lambda: note("take over"), let_go=lambda names: note(("let go", names))
        )
        self.rules = SimpleNamespace(
            take_over=lambda: note("rules"),
            let_go=lambda names: note(("let rules go", names)),
            cancel=lambda key: {"cancelled": int(key == "known")},
        )
        self.acceptor = SimpleNamespace(is_draining=False)
        self.opener = SimpleNamespace(
            sessions={}, give_up=lambda limits: note(("give up", *limits)), abort=self._abort
        )
        self.readahead = SimpleNamespace(put_all_back=lambda: note("put back"))
        self.sites = SimpleNamespace(clear=lambda *_: note("clear"))
        self.commit_s = 0.5
        self.store = SimpleNamespace(when_durable=self._when_durable)
        self.exchange = SimpleNamespace(set_peer=lambda *peer: note(("peer", *peer)))
        self.model = SimpleNamespace(settings=SimpleNamespace(pools={}))
        self.share_of = None
        self.orphans = self.undelivered = self

    async def open(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.log.append("open")

    def reconfigure(self, _model: Any, assignment: Any, released: Any) -> None:
        self.log.append(("reconfigure", assignment, *released))

    def hold_poison(self, keys: Any) -> None:
        self.log.append(("poison", keys))

    def adopt(self, numbers: Any, recounted_at: float) -> None:
        self.log.append(("adopt stores", numbers, recounted_at))

    def disown(self, names: set[str]) -> None:
        self.log.append(("disown", names))

    def _abort(self, _limits: Any) -> None:
        self.abort_sessions()

    def abort_sessions(self) -> None:
        self.log.append(("abort", self.loop.time()))
        self.in_use_until = 0.0
        self.loop.call_soon(self._settle_aborted)

    def _settle_aborted(self) -> None:
        if self.opener.sessions:
            self.opener.sessions.clear()
            self.log.append("settled")

    def _when_durable(self, done: Callable[[Any], None]) -> None:
        self.log.append("commit begins")
        self.loop.call_later(self.commit_s, done, None)

    def stop_sending(self) -> None:
        self.log.append("stop sending")

    def snapshot(self) -> dict[str, Any]:
        return {"counters": []}

    def close(self) -> None:
        self.log.append("close")


class FakeFeeds:
    """Notes into the log of the engine."""

    def __init__(self, engine: FakeEngine, _inbox: Any) -> None:
        self._log = engine.log

    async def use(self, _settings: Any, keys: Any) -> None:
        self._log.append(("feeds", keys))

    def set_draining(self, is_draining: bool) -> None:
        self._log.append(("draining", is_draining))

    async def stop(self, grace_s: float) -> None:
        self._log.append(("stop feeds", grace_s))

    def close(self) -> None:
        self._log.append("close feeds")


class Shard:
    def __init__(self, directory: Path) -> None:
        self.stopped_at: list[float] = []
        loop = asyncio.get_running_loop()
        self.duties = Duties(None, lambda: self.stopped_at.append(loop.time()))  # type: ignore[arg-type]
        self._settings = SETTINGS.format(directory=directory)

    async def ask(self, kind: str, **body: Any) -> Any:
        result = self.duties.handlers()[kind](body)
        return await result if asyncio.iscoroutine(result) else result

    async def configure(self, text: str = "", **more: Any) -> Any:
        texts = {
            "config_path": "m.toml",
            "settings": text or self._settings,
            "policies": POLICIES,
            "keys": {},
        }
        body = {"generation": 1, "texts": texts, "assignment": {"v1": 0}, "listeners": {"in": "tcp"}}
        facts = {"shard": 0, "shards": 1, "incarnation": b"test"}
        return await self.ask("configure", **body, **facts, **more)

    @property
    def engine(self) -> Any:
        return self.duties.engine


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Shard], Any]], None]:
    monkeypatch.setattr("engine.shard.duties.Engine", FakeEngine)
    monkeypatch.setattr("engine.shard.duties.Feeds", FakeFeeds)
    monkeypatch.setattr("engine.shard.duties.configure_log", lambda *_, **__: None)

    async def begin(scenario: Callable[[Shard], Any]) -> None:
        await scenario(Shard(tmp_path))

    return lambda scenario: run_virtually(begin(scenario))


Run = Callable[[Callable[[Shard], Any]], None]


def test_limits_poison_and_left_stores_come_before_the_feeds(run: Run) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.ask("adopt", vmtas={"v1": encode_spent([spent_by("v1")])})
        assert (
            await shard.configure(poison=[b"k"], adopt_stores=[3], recounted_at=9.0, is_draining=True) == {}
        )
        assert shard.engine.log == [
            "open",
            ("restore", spent_by("v1")),
            "take over",
            "rules",
            ("poison", [b"k"]),
            ("adopt stores", [3], 9.0),
            ("feeds", {"in": "tcp"}),
            ("draining", True),
        ]
        assert shard.engine.acceptor.is_draining

    run(scenario)


def test_the_next_generation_keeps_the_engine_and_adopts_nothing_twice(run: Run) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.ask("adopt", vmtas={"v1": encode_spent([spent_by("v1")])})
        await shard.configure()
        engine = shard.engine
        engine.log.clear()
        await shard.configure()
        assert shard.engine is engine
        assert engine.log[:2] == [("reconfigure", {"v1": 0}), ("restore",)]
        await shard.ask("adopt", vmtas={"v2": encode_spent([spent_by("v2")])})
        await shard.configure()
        assert ("reconfigure", {"v1": 0}, "v2") in engine.log
        assert ("restore", spent_by("v2")) in engine.log

    run(scenario)


def test_a_wrong_configuration_and_a_store_that_fails_are_answers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shard: Shard) -> None:
        assert "m.toml" in (await shard.configure("nonsense = 1"))["error"]
        monkeypatch.setattr(FakeEngine, "failure", StoreUnhealthy("another process owns it"))
        assert await shard.configure() == {"error": "another process owns it"}
        monkeypatch.setattr(FakeEngine, "failure", FileNotFoundError(2, "No such file", "/proc/spool"))
        assert await shard.configure() == {"error": "[Errno 2] No such file: '/proc/spool'"}
        monkeypatch.setattr(FakeEngine, "failure", None)
        assert await shard.configure() == {}

    run(scenario)


def test_vmtas_are_released_when_their_last_session_has_ended(run: Run) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.configure()
        engine = shard.engine
        engine.log.clear()
        engine.in_use_until = engine.loop.time() + 2.0
        states = await shard.ask("release", vmtas=["v1"], grace_s=10.0)
        assert decode_spent(states["v1"]) == [spent_by("v1")]
        assert 0.0 <= engine.loop.time() - engine.in_use_until <= RELEASE_POLL_S
        assert engine.log == [
            "put back",
            ("disown", {"v1"}),
            "clear",
            ("give up", engine.limits),
            ("let go", {"v1"}),
            ("let rules go", {"v1"}),
            ("drop limits", {"v1"}),
        ]

    run(scenario)


def test_sessions_that_outlast_the_grace_are_cut_off(run: Run) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.configure()
        engine = shard.engine
        began_at = engine.loop.time()
        engine.in_use_until = began_at + 1000.0
        await shard.ask("release", vmtas=["v1"], grace_s=3.0)
        (aborted_at,) = [row[1] for row in engine.log if row[0] == "abort"]
        assert aborted_at - began_at == pytest.approx(3.0, abs=2 * RELEASE_POLL_S)

    run(scenario)


def test_a_shard_that_stops_waits_for_its_sessions_within_the_grace(run: Run) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.configure()
        engine = shard.engine
        engine.log.clear()
        began_at = engine.loop.time()
        engine.opener.sessions["one"] = None
        engine.loop.call_later(1.0, engine.opener.sessions.clear)
        await shard.ask("stop", grace_s=5.0)
        assert engine.log == ["stop sending", ("stop feeds", 5.0)]
        assert shard.stopped_at == []  # the answer is written first
        await asyncio.sleep(1.0)
        assert shard.stopped_at[0] - began_at == pytest.approx(1.0, abs=0.2)

    run(scenario)


@pytest.mark.parametrize(("commit_s", "ends_after_s"), [(0.5, 5.5), (1000.0, 5.0 + CUT_OFF_S)])
def test_what_outlasts_the_grace_of_a_stop_is_settled_and_on_disk_before_the_end(
    run: Run, commit_s: float, ends_after_s: float
) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.configure()
        engine = shard.engine
        engine.log.clear()
        engine.commit_s = commit_s
        began_at = engine.loop.time()
        engine.opener.sessions["one"] = None
        await shard.ask("stop", grace_s=5.0)
        await asyncio.sleep(1.0)
        (aborted_at,) = [row[1] for row in engine.log if row[0] == "abort"]
        assert aborted_at - began_at == pytest.approx(5.0, abs=2 * RELEASE_POLL_S)
        assert engine.log[-2:] == ["settled", "commit begins"]
        assert shard.stopped_at[0] - began_at == pytest.approx(ends_after_s, abs=0.2)

    run(scenario)


def test_the_end_past_the_grace_is_within_what_the_supervisor_waits() -> None:
    assert 2 * CUT_OFF_S + RELEASE_POLL_S < STOP_MARGIN_S


def test_a_shard_that_was_never_configured_stops_at_once(run: Run) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.ask("stop", grace_s=5.0)
        await asyncio.sleep(0)
        assert len(shard.stopped_at) == 1
        shard.duties.close()

    run(scenario)


def test_draining_goes_on_and_off(run: Run) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.configure()
        for is_on in (True, False):
            await shard.ask("drain", on=is_on)
            assert shard.engine.acceptor.is_draining is is_on
            assert shard.engine.log[-1] == ("draining", is_on)

    run(scenario)


def test_peers_and_reports_go_to_the_engine(run: Run) -> None:
    async def scenario(shard: Shard) -> None:
        await shard.configure()
        await shard.ask("peer", shard=1, incarnation=b"next")
        await shard.ask("peer", shard=1)
        assert shard.engine.log[-2:] == [("peer", 1, b"next"), ("peer", 1, None)]
        assert await shard.ask("report") == {"counters": []}
        engine = shard.engine
        shard.duties.close()
        assert engine.log[-2:] == ["close feeds", "close"]

    run(scenario)
