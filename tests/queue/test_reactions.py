"""reactions: triggers, how long and how strongly they hold, and what bounds them."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.units import Rate
from engine.queue.reactions import (
    STEP_EVERY_S,
    STEPS,
    Reach,
    Reaction,
    Reactions,
    Strength,
    Terms,
    bounds,
    fewer,
    key_of,
    reaching,
    scale,
    shifted,
    slowed,
)

PATH = Reach("path", "v1", "gmail")
GRADUAL = Terms(100.0, is_gradual=True)
HALF = Strength(5, Rate(50, 1.0))
WHOLE = Strength(10, Rate(100, 1.0))


def slow(reactions: Reactions, now: float, terms: Terms = GRADUAL, strength: Strength = HALF) -> Reaction:
    found = reactions.begin("ease", "slow", PATH, terms, "450 x", now, strength=lambda: strength)
    assert found is not None
    return found


def hold(reactions: Reactions, now: float, reach: Reach = PATH, for_s: float = 100.0) -> Reaction:
    found = reactions.begin("stop", "hold", reach, Terms(for_s), "421 x", now)
    assert found is not None
    return found


# -- triggers -----------------------------------------------------------------------------------------


def test_the_first_reply_is_enough_unless_more_are_asked_for() -> None:
    reactions = Reactions()
    assert reactions.is_triggered("k", Rate(1, 60.0), 0.0)
    assert [reactions.is_triggered("k", Rate(3, 10.0), at) for at in (0.0, 5.0, 9.0)] == [False, False, True]


def test_a_window_is_half_open_and_goes_on_from_each_reply() -> None:
    reactions = Reactions()
    found = [reactions.is_triggered("k", Rate(2, 10.0), at) for at in (0.0, 10.0, 19.9, 20.0, 31.0)]
    assert found == [False, False, True, True, False]


def test_each_key_counts_for_itself_and_a_cancelled_one_anew() -> None:
    reactions = Reactions()
    after = Rate(2, 10.0)
    assert not reactions.is_triggered("a", after, 0.0)
    assert not reactions.is_triggered("b", after, 1.0)
    reactions.end("a")
    assert not reactions.is_triggered("a", after, 2.0)
    assert reactions.is_triggered("b", after, 2.0)


def test_triggers_are_bounded_and_the_quietest_is_forgotten() -> None:
    reactions = Reactions(max_triggers=2)
    after = Rate(2, 10.0)
    for key in ("a", "b", "a", "c"):
        reactions.is_triggered(key, after, 0.0)
    assert reactions.is_triggered("a", after, 1.0)
    assert not reactions.is_triggered("b", after, 1.0)


@given(st.lists(st.floats(0.0, 100.0), max_size=40), st.integers(1, 5))
def test_a_trigger_is_reached_where_so_many_fell_into_its_window(gaps: list[float], count: int) -> None:
    reactions, after, times, now = Reactions(), Rate(count, 60.0), [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        expected = sum(now - at < 60.0 for at in times) >= count
        assert reactions.is_triggered("k", after, now) == expected


# -- time ---------------------------------------------------------------------------------------------


def test_a_hold_ends_by_itself_and_goes_on_when_it_is_said_again() -> None:
    reactions = Reactions()
    first = hold(reactions, 0.0)
    assert reactions.next_change(0.0) == 100.0
    assert hold(reactions, 50.0) is first
    assert (first.count, first.since, first.until) == (2, 0.0, 150.0)
    assert reactions.take_ended(149.0) == []
    assert reactions.take_ended(150.0) == [first]
    assert reactions.next_change(150.0) == inf


def test_a_gradual_one_comes_back_in_steps_until_its_time_has_passed_twice() -> None:
    found = slow(Reactions(), 0.0)
    steps = [found.steps(at) for at in (0.0, 99.9, 100.0, 124.9, 125.0, 150.0, 175.0, 199.9, 200.0)]
    assert steps == [5, 5, 4, 4, 3, 2, 1, 1, 0]
    changes = [found.changes_at(at) for at in (0.0, 100.0, 130.0, 199.0)]
    assert changes == [100.0, 125.0, 150.0, 200.0]


def test_at_once_is_all_or_nothing() -> None:
    found = slow(Reactions(), 0.0, Terms(100.0))
    assert [found.steps(at) for at in (0.0, 99.9, 100.0)] == [5, 5, 0]


def test_steps_lead_from_the_target_to_the_whole() -> None:
    found = slow(Reactions(), 0.0)
    seen = [bounds(found, WHOLE, at) for at in (50.0, 110.0, 130.0, 160.0, 190.0)]
    assert [each.connections for each in seen] == [5, 5, 6, 7, 8]
    assert [each.rate for each in seen] == [Rate(count, 1.0) for count in (50, 57, 65, 75, 87)]


def test_a_whole_that_is_less_than_the_target_is_not_raised() -> None:
    found = slow(Reactions(), 0.0)
    assert bounds(found, Strength(3, Rate(1, 60.0)), 130.0) == HALF


def test_without_a_rate_in_force_what_is_given_grows_until_it_ends() -> None:
    found = slow(Reactions(), 0.0, strength=Strength(0, Rate(10, 60.0)))
    seen = [bounds(found, Strength(10, None), at).rate for at in (50.0, 110.0, 190.0)]
    assert seen[0] == Rate(10, 60.0)
    assert [each.count for each in seen if each] == sorted(each.count for each in seen if each)


def test_it_takes_a_further_step_once_a_minute_at_most() -> None:
    reactions = Reactions()
    asked = []

    def strength() -> Strength:
        asked.append(1)
        return Strength(8 >> len(asked))

    for at in (0.0, 1.0, STEP_EVERY_S - 1.0, STEP_EVERY_S, STEP_EVERY_S + 5.0):
        reactions.begin("ease", "slow", PATH, GRADUAL, "450 x", at, strength=strength)
    (found,) = reactions.in_force.values()
    assert (len(asked), found.connections, found.count) == (2, 2, 5)


def test_successes_take_steps_back_and_the_next_refusal_all_of_them_anew() -> None:
    reactions = Reactions()
    terms = Terms(100.0, is_gradual=True, step_after=3)
    found = slow(reactions, 0.0, terms)
    taken = [reactions.succeed(found, 1.0) for _ in range(7)]
    assert taken == [False, False, True, False, False, True, False]
    assert found.steps(1.0) == STEPS - 2
    slow(reactions, 2.0, terms)
    assert found.steps(2.0) == STEPS
    for _ in range(3 * STEPS):
        reactions.succeed(found, 3.0)
    assert reactions.take_ended(3.0) == [found]


def test_without_a_number_successes_change_nothing() -> None:
    reactions = Reactions()
    found = slow(reactions, 0.0)
    assert not any(reactions.succeed(found, 1.0) for _ in range(1000))


# -- bounds -------------------------------------------------------------------------------------------


def test_what_is_in_force_is_bounded() -> None:
    reactions = Reactions(max_reactions=2)
    for number in range(2):
        hold(reactions, 0.0, Reach("path", f"v{number}", "x"))
    assert reactions.begin("stop", "hold", Reach("path", "v9", "x"), Terms(1.0), "", 0.0) is None
    assert reactions.begin("stop", "hold", Reach("path", "v1", "x"), Terms(1.0), "", 0.0) is not None
    assert len(reactions.in_force) == 2


def test_changes_are_counted_for_whoever_writes_them_down() -> None:
    reactions = Reactions()
    hold(reactions, 0.0)
    before = reactions.changes
    assert before > 0
    reactions.take_ended(1.0)
    assert reactions.changes == before
    reactions.end(key_of("stop", PATH))
    assert reactions.changes == before + 1


def test_what_another_had_in_force_goes_on_here_unless_it_is_known_for_longer() -> None:
    there, here = Reactions(), Reactions()
    found = hold(there, 0.0)
    moved = shifted(found, 1000.0)
    assert (moved.since, moved.until, moved.key) == (1000.0, 1100.0, found.key)
    assert here.take_over(moved)
    assert not here.take_over(shifted(found, 900.0))
    assert here.in_force[found.key].until == 1100.0


# -- what it reaches ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reach", "reached"),
    [
        (Reach("path", "v1", "gmail"), {"gmail"}),
        (Reach("customer", "v1", "gmail", customer="acme"), {"gmail"}),
        (Reach("provider", "v1", provider="google"), {"gmail", "other.example"}),
        (Reach("vmta", "v1"), {"gmail", "other.example", "x.example"}),
        (Reach("path", "v2", "gmail"), set()),
    ],
)
def test_what_it_reaches(reach: Reach, reached: set[str]) -> None:
    reaction = hold(Reactions(), 0.0, reach)
    paths = {"gmail": "google", "other.example": "google", "x.example": ""}
    found = {name for name, provider in paths.items() if reaching([reaction], "v1", name, provider)}
    assert found == reached


def test_a_key_says_what_it_reaches() -> None:
    assert key_of("r", PATH) == "r@v1/gmail"
    assert key_of("r", Reach("provider", "v1", provider="google")) == "r@v1/google"
    assert key_of("r", Reach("host", host="mx.example")) == "r@mx.example"
    assert key_of("r", Reach("waiting", destination="gmail", customer="acme")) == "r@gmail/acme"


# -- factors ------------------------------------------------------------------------------------------


def test_factors_and_values() -> None:
    assert fewer(10, 0.5) == 5
    assert (fewer(1, 0.5), fewer(10, 3), fewer(10, None)) == (1, 3, 0)
    assert slowed(Rate(10, 60.0), 0.5) == Rate(5, 60.0)
    assert slowed(Rate(10, 60.0), Rate(1, 1.0)) == Rate(1, 1.0)
    assert (slowed(None, 0.5), slowed(Rate(1, 1.0), None)) == (None, None)


def test_less_than_one_in_a_window_is_one_in_a_longer_one_and_never_nothing() -> None:
    assert scale(Rate(1, 60.0), 0.5) == Rate(1, 120.0)
    assert scale(Rate(1, 60.0), 0.0001) == Rate(1, 3600.0)


@given(st.integers(1, 10_000), st.floats(0.001, 86_400.0), st.floats(0.01, 0.99))
def test_a_factor_never_makes_a_rate_faster(count: int, window_s: float, factor: float) -> None:
    rate = Rate(count, window_s)
    assert scale(rate, factor).per_s <= rate.per_s
