"""Two deaths in a row that a damaged store can cause make it suspect."""

from __future__ import annotations

import signal

import pytest

from engine.supervisor.suspicion import WITHIN_S, StoreDeaths

ABRT, BUS, KILL, SEGV = -signal.SIGABRT, -signal.SIGBUS, -signal.SIGKILL, -signal.SIGSEGV


def note(deaths: StoreDeaths, *codes: int, has_step: bool = False, shard: int = 0) -> list[bool]:
    return [deaths.note_death(shard, code, has_step=has_step, now=1000.0) for code in codes]


@pytest.mark.parametrize("codes", [(BUS, BUS), (ABRT, ABRT), (SEGV, SEGV), (SEGV, BUS)])
def test_second_death_in_a_row_counts(codes: tuple[int, int]) -> None:
    assert note(StoreDeaths(), *codes) == [False, True]


def test_counting_begins_anew_after_that() -> None:
    assert note(StoreDeaths(), BUS, BUS, BUS, BUS) == [False, True, False, True]


@pytest.mark.parametrize("between", [KILL, 70, 0])
def test_another_death_in_between_breaks_the_row(between: int) -> None:
    assert note(StoreDeaths(), BUS, between, BUS) == [False, False, False]


def test_shards_are_counted_apart() -> None:
    deaths = StoreDeaths()
    assert note(deaths, BUS, shard=0) == note(deaths, BUS, shard=1) == [False]


def test_death_with_a_delivery_on_record_is_the_delivery_s_unless_a_page_was_not_there() -> None:
    assert note(StoreDeaths(), SEGV, SEGV, ABRT, has_step=True) == [False, False, False]
    assert note(StoreDeaths(), BUS, BUS, has_step=True) == [False, True]


def test_first_death_is_forgotten() -> None:
    deaths = StoreDeaths()
    assert not deaths.note_death(0, BUS, has_step=False, now=0.0)
    assert not deaths.note_death(0, BUS, has_step=False, now=WITHIN_S + 1.0)
