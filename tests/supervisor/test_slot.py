"""Restarts of one shard number."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.core.errors import NetworkError
from engine.supervisor.slot import RESTART_FIRST_S, RESTART_MAX_S, SETTLED_S, Slot


def run(command: tuple[str, ...], until: Any) -> tuple[Slot, list[int]]:
    """Start a slot over a command that is no shard, until something is true of it."""
    deaths: list[int] = []

    async def main() -> Slot:
        slot = Slot(0, command, lambda _s, _p: {}, lambda _s: None, lambda _s, _p, code: deaths.append(code))
        slot.start()
        while not until(slot):
            await asyncio.sleep(0.005)
        await slot.first_outcome.wait()
        slot.stop_restarting()
        if slot.process is not None:
            slot.process.end()
            await slot.process.wait_ended()
        await asyncio.sleep(0)
        return slot

    return asyncio.run(main()), deaths


def test_the_pause_before_a_restart_doubles() -> None:
    slot, deaths = run(("false",), lambda slot: slot.starts == 3)
    assert slot._pause_s >= 4 * RESTART_FIRST_S
    assert deaths[:2] == [1, 1]


def test_a_command_that_does_not_exist_is_tried_again_too() -> None:
    slot, deaths = run(("/no/such/program",), lambda slot: slot.starts == 2)
    assert slot.process is None
    assert len(deaths) == 2


def test_a_shard_that_is_down_answers_nothing() -> None:
    async def main() -> None:
        slot = Slot(3, ("false",), lambda _s, _p: {}, lambda _s: None, lambda _s, _p, _c: None)
        assert slot.incarnation is None
        slot.notify("peer", {})
        with pytest.raises(NetworkError, match="shard 3 is down"):
            await slot.request("report", {}, 1.0)

    asyncio.run(main())


def test_the_bounds_of_the_pause_make_sense() -> None:
    assert RESTART_FIRST_S < RESTART_MAX_S < SETTLED_S


def test_a_refusal_is_forgotten_once_a_process_dies_by_itself() -> None:
    deaths: list[int] = []

    async def main() -> Slot:
        slot = Slot(
            0, ("false",), lambda _s, _p: {}, lambda _s: None, lambda _s, _p, code: deaths.append(code)
        )
        slot.refusal = "store is locked"  # of a process before
        slot.start()
        await slot.first_outcome.wait()
        slot.stop_restarting()
        return slot

    slot = asyncio.run(main())
    assert deaths == [1]
    assert (slot.refusal, slot.last_death) == ("", "exit status 1")
