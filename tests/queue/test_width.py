"""How many connections a peer lets in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.queue.width import FIRST, LOWER_EVERY_S, OPENING_S, RAISE_EVERY_S, RAISE_LAST_S, Width

NOW = 10_000.0
MOST = 40


def deliver(width: Width, count: int, now: float, most: int = MOST) -> bool:
    changes = [width.taken(now, most) for _ in range(count)]
    return any(changes)


def test_opens_slowly_and_doubles_with_each_round_of_deliveries() -> None:
    width = Width()
    assert width.limit == FIRST
    rounds = FIRST + 2 * FIRST + 4 * FIRST
    seen = [width.limit for _ in range(rounds) if width.taken(NOW, MOST)]
    assert seen == [2 * FIRST, 4 * FIRST, 0]


def test_trouble_while_others_are_open_makes_it_those() -> None:
    width = Width()
    assert width.troubled(NOW, 3)
    assert width.limit == 3
    assert not width.is_slow_open


def test_trouble_with_none_open_says_nothing() -> None:
    width = Width()
    assert not width.troubled(NOW, 0)
    assert width.limit == FIRST


def test_worse_comes_once_a_minute() -> None:
    width = Width()
    width.troubled(NOW, 5)
    assert not width.troubled(NOW + LOWER_EVERY_S - 1.0, 3)
    assert width.troubled(NOW + LOWER_EVERY_S, 3)


def test_trouble_of_more_than_are_allowed_says_nothing() -> None:
    width = Width()
    width.troubled(NOW, 3)
    assert not width.troubled(NOW + 2 * LOWER_EVERY_S, 3)


def test_those_that_were_being_opened_may_still_be_let_in() -> None:
    width = Width()
    width.troubled(NOW, 1)
    assert width.opened(NOW + 1.0, 3)
    assert width.limit == 3
    assert not width.opened(NOW + OPENING_S + 1.0, 4)


def test_grows_by_one_after_as_many_deliveries_and_some_time() -> None:
    width = Width()
    width.troubled(NOW, 3)
    assert not deliver(width, 100, NOW + RAISE_EVERY_S - 1.0)
    assert deliver(width, 1, NOW + RAISE_EVERY_S)
    assert width.limit == 4
    assert not deliver(width, 3, NOW + 3 * RAISE_EVERY_S)
    assert deliver(width, 1, NOW + 3 * RAISE_EVERY_S)
    assert width.limit == 5


def test_time_to_the_next_step_doubles_with_each_that_failed() -> None:
    width = Width()
    width.troubled(NOW, 3)
    now = NOW
    waits = []
    for _ in range(7):
        begun, wait_s = now, width.wait_s
        now += wait_s
        assert not deliver(width, 10, now - 1.0)
        assert deliver(width, 10, now)
        assert width.limit == 4
        now += 1.0
        assert width.troubled(now, 3)
        assert width.limit == 3
        waits.append(now - 1.0 - begun)
    assert waits == [RAISE_EVERY_S * 2**n for n in range(5)] + [RAISE_LAST_S] * 2


def test_step_that_held_brings_the_next_soon() -> None:
    width = Width.restore(3, RAISE_LAST_S, NOW)
    deliver(width, 3, NOW + RAISE_LAST_S)
    assert width.limit == 4
    assert deliver(width, 4, NOW + 2 * RAISE_LAST_S)
    assert width.wait_s == RAISE_EVERY_S


def test_no_limit_once_the_policy_s_is_reached() -> None:
    width = Width.restore(3, RAISE_EVERY_S, NOW)
    assert deliver(width, 3, NOW + RAISE_EVERY_S, most=4)
    assert width.limit == 0
    assert not deliver(width, 10, NOW + 10 * RAISE_EVERY_S)


def test_restart_does_not_open_slowly_again() -> None:
    width = Width.restore(3, 9e9, NOW)
    assert (width.limit, width.is_slow_open, width.wait_s) == (3, False, RAISE_LAST_S)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["taken", "troubled", "opened"]), st.integers(0, 60), st.floats(0.0, 4000.0)
        ),
        max_size=200,
    )
)
def test_no_sequence_makes_it_none_or_more_than_the_policy(sequence: list[tuple[str, int, float]]) -> None:
    width = Width()
    now = NOW
    for what, count, after in sequence:
        now += after
        if what == "taken":
            deliver(width, count, now)
        elif what == "troubled":
            width.troubled(now, min(count, MOST - 1))
        else:
            width.opened(now, min(count, MOST))
        assert 0 <= width.limit <= MOST
    for _ in range(200):  # a peer that lets all in has all in the end
        now += RAISE_LAST_S
        deliver(width, MOST, now)
    assert width.limit == 0
