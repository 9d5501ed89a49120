"""When the engine is said to serve, and what is said while it does not."""

from __future__ import annotations

from typing import Any

import pytest

from engine.supervisor import readiness
from engine.supervisor.readiness import Readiness


class FakeSlot:
    def __init__(self, shard: int) -> None:
        self.shard, self.is_up, self.refusal, self.last_death = shard, False, "", ""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd heard."""
    heard: list[str] = []
    for kind in ("ready", "status", "reloading", "stopping"):
        monkeypatch.setattr(
            readiness, f"notify_{kind}", lambda *text, kind=kind: heard.append(" ".join([kind, *text]))
        )
    return heard


def make(*ups: bool) -> tuple[Readiness, list[Any]]:
    slots = [FakeSlot(shard) for shard in range(len(ups))]
    for slot, is_up in zip(slots, ups, strict=True):
        slot.is_up = is_up
        slot.last_death = "" if is_up else "SIGSEGV"
    return Readiness(slots), slots  # type: ignore[arg-type]


def test_nothing_is_told_before_every_slot_has_had_its_first_outcome(told: list[str]) -> None:
    state, slots = make(False, False)
    slots[0].is_up = True
    state.changed()
    assert told == []
    state.begin()
    assert told == ["ready 1 of 2 shards up: shard 1: SIGSEGV"]


def test_ready_is_told_with_the_first_shard_that_serves_and_once(told: list[str]) -> None:
    state, slots = make(False, False)
    state.begin()
    assert told == ["status 0 of 2 shards up: shard 0, 1: SIGSEGV"]
    for slot in slots:
        slot.is_up = True
        state.changed()
    assert told[1:] == ["ready 1 of 2 shards up: shard 1: SIGSEGV", "status 2 of 2 shards up"]


def test_an_engine_that_was_ready_stays_so_and_says_what_it_lost(told: list[str]) -> None:
    state, slots = make(True, True)
    state.begin()
    slots[0].is_up = slots[1].is_up = False
    slots[0].last_death, slots[1].refusal = "SIGKILL", "store is locked"
    state.changed()
    assert told == [
        "ready 2 of 2 shards up",
        "status 0 of 2 shards up: shard 0: SIGKILL; shard 1: store is locked",
    ]


def test_a_reload_is_told_of_a_ready_engine_only(told: list[str]) -> None:
    state, slots = make(False)
    state.begin()
    state.reloading()
    state.reloaded(2)
    assert told == ["status 0 of 1 shards up: shard 0: SIGSEGV"]
    slots[0].is_up = True
    state.changed()
    state.reloading()
    state.reloaded(3)
    assert told[1:] == ["ready 1 of 1 shards up", "reloading", "ready 1 of 1 shards up, generation 3"]


def test_behind_the_stop_nothing_is_told(told: list[str]) -> None:
    state, slots = make(True)
    state.begin()
    state.stop()
    slots[0].is_up = False
    state.changed()
    state.reloaded(2)
    assert told == ["ready 1 of 1 shards up", "stopping"]
