from __future__ import annotations

import time
from typing import Any

import pytest

from engine.demo.account import Account
from engine.demo.scenario import Scenario
from engine.demo.watch import Watch, format_limit
from tests.demo.conftest import GoodRun

PATHS = [
    {"ready": 5, "reason": "message rate spent for 0.1 s"},
    {"ready": 5, "reason": "message rate spent for 0.2 s"},
    {"ready": 5, "reason": "max_connections 2 reached"},
    {"ready": 0, "reason": "nothing waits"},
]


class FakeStage:
    """A stage on which a good run has just ended."""

    def __init__(self, run: GoodRun) -> None:
        self._run = run
        self.scenario: Scenario = run.scenario
        self.is_feeding = True

    def read_arrivals(self, account: Account) -> None:
        for line in self._run.lines:
            account.add(line)

    def read_handed_over(self, known: dict[tuple[str, str], float]) -> None:
        known.update(self._run.handed_over)

    def ask(self, path: str) -> dict[str, Any]:
        return {"counts": {"stored": 7}} if path == "/status" else {"paths": PATHS}


def make_watch(run: GoodRun) -> Watch:
    watch = Watch(FakeStage(run))  # type: ignore[arg-type]
    watch.read()
    return watch


def test_moment_gathers_what_sinks_feeds_and_engine_say(run: GoodRun) -> None:
    moment = make_watch(run).take_moment(time.monotonic())
    assert (moment.arrived, moment.handed_over, moment.total, moment.stored) == (400, 400, 400, 7)
    assert moment.reasons == {"message rate spent": 2, "max_connections 2 reached": 1}
    fast, slow = moment.destinations
    assert (fast.limit, fast.max_sessions, fast.allowed_per_s, fast.arrived) == (
        "10/s messages",
        4,
        20.0,
        200,
    )
    assert (slow.limit, slow.allowed_per_s) == ("2 connections", 20.0)


def test_rate_is_that_of_the_last_seconds(run: GoodRun, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = make_watch(run)
    monkeypatch.setattr(time, "monotonic", lambda: 8.5)
    fast = watch.take_moment(0.0).destinations[0]
    assert fast.rate_per_s == pytest.approx(20 / 1.02, abs=0.4)


def test_run_is_complete_when_all_that_was_handed_over_has_arrived(run: GoodRun) -> None:
    assert make_watch(run).is_complete
    lost = run.lines.pop(next(n for n, line in enumerate(run.lines) if line.kind == "message"))
    assert not make_watch(run).is_complete
    del run.handed_over[lost.id, lost.rcpt[0]]
    assert not make_watch(run).is_complete  # a feed still runs, and 399 of 400 are on record


def test_limits_are_named_as_policies_write_them(run: GoodRun) -> None:
    assert [format_limit(each) for each in run.scenario.destinations] == ["10/s messages", "2 connections"]
