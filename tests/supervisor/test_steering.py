"""Which shards a query goes to, and what is made of those that do not answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.errors import NetworkError
from engine.settings.model import ListenerSettings
from engine.store.quarantine import Quarantined
from engine.supervisor import steering
from engine.supervisor.steering import QUERY_TIMEOUT_S, Steering


class FakeSlot:
    def __init__(self, shard: int, *, is_up: bool = True) -> None:
        self.shard, self.is_up, self.starts = shard, is_up, 1
        self.last_death, self.refusal = ("", "") if is_up else ("SIGKILL", "store is locked")
        self.process = SimpleNamespace(pid=100 + shard, started_at=5.0) if is_up else None
        self.asked: list[tuple[str, Any, float]] = []

    async def request(self, kind: str, body: Any, timeout_s: float) -> Any:
        self.asked.append((kind, body, timeout_s))
        if not self.is_up:
            raise NetworkError("link", f"shard {self.shard} is down")
        return {"from": self.shard}


class FakeSupervisor:
    """Notes what it is told."""

    def __init__(self, *slots: FakeSlot) -> None:
        self.slots = slots
        self.log: list[Any] = []
        self.is_draining = False
        self.data_dir = SimpleNamespace(path=Path("/data"))
        self.poison = SimpleNamespace(forget=self.log.append)
        listener = ListenerSettings(name="in", protocol="smtp", listen="127.0.0.1:25", customer="acme")
        model = SimpleNamespace(settings=SimpleNamespace(listeners=(listener,)))
        self.plan = SimpleNamespace(generation=7, assignment={"v1": 1}, model=model)

    async def reload(self) -> None:
        self.plan.generation += 1

    async def drain(self, is_on: bool) -> None:
        self.log.append(("drain", is_on))


def make(*slots: FakeSlot) -> tuple[Steering, FakeSupervisor]:
    supervisor = FakeSupervisor(*slots)
    return Steering(supervisor), supervisor  # type: ignore[arg-type]


def test_a_query_goes_to_every_shard_and_those_that_do_not_answer_are_named() -> None:
    up, down = FakeSlot(0), FakeSlot(1, is_up=False)
    steered, _ = make(up, down)
    answers = asyncio.run(steered.ask("queues", {"customer": "acme"}, 10))
    assert answers.results == {0: {"from": 0}}
    assert list(answers.errors) == [1]
    assert "shard 1 is down" in answers.errors[1]
    body = {"what": "queues", "filter": {"customer": "acme"}, "limit": 10}
    assert up.asked == down.asked == [("query", body, QUERY_TIMEOUT_S)]


@pytest.mark.parametrize(
    ("what", "criteria", "asked"),
    [
        ("explain", {"vmta": "v1"}, [1]),
        ("explain", {"vmta": "unknown"}, [0, 1]),
        ("explain", {}, [0, 1]),
        ("paths", {"vmta": "v1"}, [0, 1]),
    ],
)
def test_explain_of_a_vmta_is_asked_of_its_owner_alone(
    what: str, criteria: dict[str, str], asked: list[int]
) -> None:
    slots = [FakeSlot(0), FakeSlot(1)]
    steered, _ = make(*slots)
    assert sorted(asyncio.run(steered.ask(what, criteria, 1)).results) == asked
    assert [slot.shard for slot in slots if slot.asked] == asked


def test_a_retry_forgets_the_deaths_and_goes_to_every_shard() -> None:
    slots = [FakeSlot(0), FakeSlot(1)]
    steered, supervisor = make(*slots)
    answers = asyncio.run(steered.retry("00ff"))
    assert supervisor.log == [b"\x00\xff"]
    assert sorted(answers.results) == [0, 1]
    assert slots[0].asked == [("retry", {"id": "00ff"}, QUERY_TIMEOUT_S)]


def test_a_reload_answers_with_the_generation_that_is_in_force_then() -> None:
    steered, _ = make()
    assert asyncio.run(steered.reload()) == {"generation": 8}


@pytest.mark.parametrize("is_on", [True, False])
def test_draining_is_passed_on(is_on: bool) -> None:
    steered, supervisor = make()
    assert asyncio.run(steered.drain(is_on)) == {"is_draining": is_on}
    assert supervisor.log == [("drain", is_on)]


def test_what_the_supervisor_knows_is_told_of_shards_that_are_down_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = [
        Quarantined(Path("/data/quarantine/a"), 0, 9.0, "checksum", None),
        Quarantined(Path("/data/quarantine/b"), 1, 8.0, "SIGBUS", {"restored": 5, "lost": 2}),
    ]
    monkeypatch.setattr(steering, "list_quarantined", lambda path: moved if path == Path("/data") else [])
    steered, _ = make(FakeSlot(0), FakeSlot(1, is_up=False))
    told = steered.describe()
    assert (told["pid"], told["generation"], told["is_draining"]) == (os.getpid(), 7, False)
    assert [(row["name"], row["protocol"], row["listen"]) for row in told["listeners"]] == [
        ("in", "smtp", "127.0.0.1:25")
    ]
    first, second = told["shards"]
    assert (first["is_up"], first["pid"], first["started_at"], first["refusal"]) == (True, 100, 5.0, "")
    assert (second["is_up"], second["pid"], second["last_death"]) == (False, 0, "SIGKILL")
    assert second["refusal"] == "store is locked"
    assert [(row["state"], row["restored"], row["lost"]) for row in told["quarantine"]] == [
        ("being salvaged", 0, 0),
        ("salvaged", 5, 2),
    ]
