"""The search for the fastest pace that a peer takes."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.queue.pace import (
    ASK_FIRST_S,
    ASK_LAST_S,
    HOLD_LAST_S,
    HOLD_S,
    LOWER_EVERY_S,
    MEET,
    PRICE,
    RAISE_EVERY_S,
    ROW,
    SETTLED,
    SHAKEN_LEAST_PER_S,
    SLOWEST_PER_S,
    WIDEST,
    Pace,
)

NOW = 10_000.0
UNIX = 1_700_000_000.0


def take(pace: Pace, begin: float, end: float, per_s: float) -> float:
    """Deliver at that pace; return when the pace changed, or `end`."""
    now = begin
    while now < end:
        now += 1 / per_s
        if pace.taken(now):
            return now
    return end


def known(low: float, high: float, *, asks: bool = False) -> Pace:
    """Return a search between two paces, begun long ago."""
    pace = Pace(NOW - 10_000.0, NOW - 10_000.0, 0)
    state = pace.export(NOW, UNIX)
    fields = {"low": low, "high": high, "pace": low, "ask_s": ASK_FIRST_S if asks else 0.0}
    for name, value in fields.items():
        state = type(state)(
            *[value if each == name else getattr(state, each) for each in state.__struct_fields__]
        )
    return Pace.restore(state, NOW, UNIX)


def test_first_refusal_stops_all_but_one_that_asks() -> None:
    pace = Pace(NOW, NOW - 100.0, 1000)
    assert pace.allowed_per_s == inf
    assert pace.refused(NOW)
    assert pace.is_asking
    assert pace.allowed_per_s == pytest.approx(1 / ASK_FIRST_S)


def test_asks_further_apart_once_a_minute_up_to_a_bound() -> None:
    pace = Pace(NOW, NOW - 100.0, 1000)
    pace.refused(NOW)
    assert not pace.refused(NOW + LOWER_EVERY_S - 1)
    assert pace.refused(NOW + LOWER_EVERY_S)
    assert pace.allowed_per_s == pytest.approx(1 / (2 * ASK_FIRST_S))
    for minute in range(2, 20):
        pace.refused(NOW + minute * LOWER_EVERY_S)
    assert pace.allowed_per_s == pytest.approx(1 / ASK_LAST_S)


def test_after_two_taken_it_goes_on_at_what_was_taken_over_all_the_time() -> None:
    pace = Pace(NOW, NOW - 100.0, 298)
    pace.refused(NOW)
    assert not pace.taken(NOW + 80.0)
    assert pace.taken(NOW + 100.0)
    assert not pace.is_asking
    assert pace.pace == pytest.approx(SETTLED * 300 / 200)


def test_a_first_one_taken_brings_the_next_soon() -> None:
    pace = Pace(NOW, NOW - 100.0, 298)
    for minute in range(20):
        pace.refused(NOW + minute * LOWER_EVERY_S)
    assert pace.taken(NOW + 3000.0)
    assert pace.is_asking
    assert pace.allowed_per_s == pytest.approx(1 / ASK_FIRST_S)


def test_one_taken_and_one_refused_still_asks() -> None:
    pace = Pace(NOW, NOW - 100.0, 298)
    pace.refused(NOW)
    pace.taken(NOW + 70.0)
    pace.refused(NOW + 90.0)
    pace.taken(NOW + 110.0)
    assert pace.is_asking


def test_pace_grows_between_low_and_high_where_it_is_used() -> None:
    pace = known(1.0, 9.0)
    changed_at = take(pace, NOW, NOW + 1000.0, 1.0)
    assert changed_at >= NOW + RAISE_EVERY_S
    assert pace.pace == pytest.approx(3.0)


def test_pace_grows_by_no_more_than_a_bound_at_once() -> None:
    pace = known(1.0, 10_000.0)
    take(pace, NOW, NOW + 1000.0, 1.0)
    assert pace.pace == pytest.approx(WIDEST)


def test_pace_that_is_not_used_does_not_grow() -> None:
    pace = known(1.0, 9.0)
    assert take(pace, NOW, NOW + 2000.0, 0.1) == NOW + 2000.0
    assert pace.pace == 1.0


def test_step_that_is_refused_is_taken_back() -> None:
    pace = known(1.0, 9.0)
    now = take(pace, NOW, NOW + 1000.0, 1.0)
    assert pace.refused(now + 5.0)
    assert pace.pace == pytest.approx(SETTLED)


def test_pace_that_has_held_is_lowered_by_a_tenth() -> None:
    pace = known(1.0, 9.0)
    assert pace.refused(NOW + 1.0)
    assert pace.pace == pytest.approx(SETTLED * 0.9)


def test_worse_comes_once_a_minute() -> None:
    pace = known(1.0, 9.0)
    pace.refused(NOW)
    pace.taken(NOW + 10.0)
    assert not pace.refused(NOW + LOWER_EVERY_S - 1.0)
    pace.taken(NOW + LOWER_EVERY_S)
    assert pace.refused(NOW + LOWER_EVERY_S)


def test_row_of_refusals_behind_a_step_down_asks() -> None:
    pace = known(1.0, 9.0)
    pace.refused(NOW)
    for number in range(ROW):
        assert not pace.is_asking
        pace.refused(NOW + 10.0 + number)
    assert pace.is_asking


def test_refusals_in_flight_at_a_step_down_are_no_row() -> None:
    pace = known(1.0, 9.0)
    for number in range(10 * ROW):
        pace.refused(NOW + number * 0.01)
    assert not pace.is_asking


def test_what_was_found_is_kept_before_more_is_tried() -> None:
    pace = known(1.0, MEET)
    now = take(pace, NOW, NOW + 1000.0, 1.0)
    assert pace.pace == pytest.approx(SETTLED)
    again = take(pace, now, now + 2 * HOLD_S, SETTLED)
    assert again >= now + HOLD_S
    assert pace.pace > 1.0


def test_time_to_the_next_try_doubles_up_to_a_bound() -> None:
    pace = known(1.0, MEET)
    now = take(pace, NOW, NOW + 1000.0, 1.0)
    waits = []
    for _ in range(6):
        again = take(pace, now, now + 20 * HOLD_S, SETTLED)
        waits.append(again - now)
        assert pace.refused(again + 5.0)
        now = again + 5.0
    assert waits == pytest.approx(
        [HOLD_S * 2**n for n in range(4)] + [HOLD_LAST_S] * 2, abs=2 * RAISE_EVERY_S
    )


def test_steps_cost_a_deferral_in_a_hundred_at_most() -> None:
    pace = known(1.0, MEET)
    now = take(pace, NOW, NOW + 1000.0, 1.0)
    now = take(pace, now, now + 2 * HOLD_S, SETTLED)
    for number in range(60):
        pace.refused(now + number * 0.01)
    again = take(pace, now + 1.0, now + 10 * HOLD_S, SETTLED)
    assert (again - now) * SETTLED >= 60 * PRICE


def test_two_long_troubles_after_the_same_number_are_a_limit_over_that_time() -> None:
    pace = Pace(NOW + 50.0, NOW, 100)
    pace.refused(NOW + 50.0)
    pace.taken(NOW + 3600.0)
    pace.taken(NOW + 3610.0)
    now = NOW + 3610.0
    for number in range(98):
        pace.taken(now + number)
    for number in range(10):
        pace.refused(now + 200.0 + 10 * number)
    assert pace.is_asking
    pace.taken(now + 3590.0)
    pace.taken(now + 3600.0)
    assert pace.pace == pytest.approx(SETTLED * 100 / 3600)
    took_s = take(pace, now + 3600.0, now + 90_000.0, pace.pace) - now - 3600.0
    assert took_s >= 3600.0  # as long as the window that it counts over


def test_short_trouble_is_no_limit_over_hours() -> None:
    pace = Pace(NOW, NOW - 3600.0, 3600)
    pace.refused(NOW)
    now = NOW
    for _ in range(2):
        pace.taken(now + 90.0)
        pace.taken(now + 95.0)
        now += 95.0
        for number in range(3600):
            pace.taken(now + number)
        now += 3600.0
        for number in range(20):
            pace.refused(now + number)
        now += 20.0
    assert pace.export(now, UNIX).last_taken == 0


def test_refusals_without_a_reason_halve_the_pace_down_to_a_bound() -> None:
    pace = Pace(NOW, NOW - 100.0, 400)
    assert pace.shaken(NOW, is_all=False)
    assert pace.pace == pytest.approx(2.0)
    assert not pace.shaken(NOW + 30.0, is_all=False)
    for minute in range(1, 10):
        pace.shaken(NOW + minute * LOWER_EVERY_S, is_all=False)
    assert pace.pace == pytest.approx(SHAKEN_LEAST_PER_S)
    assert not pace.is_asking


def test_nothing_taken_on_a_path_that_took_mail_asks() -> None:
    pace = Pace(NOW, NOW - 100.0, 400)
    assert pace.shaken(NOW, is_all=True)
    assert pace.is_asking


def test_nothing_taken_on_a_path_that_never_took_any_does_not_ask() -> None:
    pace = Pace(NOW, NOW - 100.0, 0)
    pace.shaken(NOW, is_all=True)
    assert not pace.is_asking


def test_restart_goes_on_where_it_was() -> None:
    pace = known(1.0, 9.0)
    pace.refused(NOW)
    state = pace.export(NOW + 5.0, UNIX + 5.0)
    again = Pace.restore(state, 77.0, UNIX + 100.0)
    assert again.pace == pace.pace
    assert again.export(77.0, UNIX + 100.0) == state


def test_restart_while_asking_still_asks() -> None:
    pace = Pace(NOW, NOW - 100.0, 400)
    pace.refused(NOW)
    again = Pace.restore(pace.export(NOW, UNIX), 77.0, UNIX + 1.0)
    assert again.is_asking
    assert again.allowed_per_s == pace.allowed_per_s


steps = st.lists(
    st.tuples(st.sampled_from(["taken", "refused", "shaken", "all", "restart"]), st.floats(0.0, 4000.0)),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_no_sequence_stops_it_or_leaves_a_pace_that_is_none(sequence: list[tuple[str, float]]) -> None:
    now = NOW
    pace = Pace(now, now - 50.0, 10)
    for what, after in sequence:
        now += after
        if what == "taken":
            pace.taken(now)
        elif what == "refused":
            pace.refused(now)
        elif what == "restart":
            pace = Pace.restore(pace.export(now, UNIX + now), now, UNIX + now)
        else:
            pace.shaken(now, is_all=what == "all")
        assert pace.allowed_per_s >= SETTLED * SLOWEST_PER_S * 0.9
        assert pace.allowed_per_s == pace.allowed_per_s  # no NaN


@settings(max_examples=100, deadline=None)
@given(steps)
def test_peer_that_takes_everything_is_used_fully_again(sequence: list[tuple[str, float]]) -> None:
    now = NOW
    pace = Pace(now, now - 50.0, 10)
    for what, after in sequence:
        now += after
        if what == "taken":
            pace.taken(now)
        elif what == "refused":
            pace.refused(now)
        elif what != "restart":
            pace.shaken(now, is_all=what == "all")
    end = now + 40 * 86_400.0
    count = 0
    while now < end and pace.allowed_per_s < 1.0 and count < 500_000:
        now += 1 / min(1.0, pace.allowed_per_s)
        pace.taken(now)
        count += 1
    assert pace.allowed_per_s >= 1.0
