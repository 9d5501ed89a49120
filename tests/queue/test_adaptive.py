"""What is learned of one peer, and what bounds its paths."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.units import Rate
from engine.queue.adaptive import (
    FORGET_S,
    MIN_SAMPLES,
    REST_S,
    SAMPLES_S,
    WHY,
    WHY_SLOW_OPEN,
    Adaptive,
    AdaptiveState,
    rate_of,
)
from engine.queue.decide import decide
from engine.queue.path import Path, PathLimits, SiteDemand
from engine.queue.width import FIRST
from tests.fakes.limits import Limits

NOW = 10_000.0
UNIX = 1_700_000_000.0
MOST = 10


def settled(now: float = NOW) -> Adaptive:
    """Return what is learned of a peer that takes mail."""
    learned = Adaptive(now)
    for _ in range(100):
        learned.taken(now, MOST)
    return learned


def test_begins_with_few_connections_and_no_rate() -> None:
    ceiling = Adaptive(NOW).ceiling
    assert ceiling is not None
    assert (ceiling.connections, ceiling.rate, ceiling.why) == (FIRST, None, WHY_SLOW_OPEN)


def test_peer_that_takes_mail_bounds_nothing() -> None:
    assert settled().ceiling is None
    assert settled().export(NOW, UNIX) is None


def test_too_fast_bounds_the_rate() -> None:
    learned = settled()
    assert learned.too_fast(NOW + 10.0)
    ceiling = learned.ceiling
    assert ceiling is not None
    assert (ceiling.rate, ceiling.connections, ceiling.why) == (Rate(1, 20.0), 0, WHY)


def test_single_too_fast_of_a_peer_that_nothing_is_known_of_says_nothing() -> None:
    learned = Adaptive(NOW)
    assert [learned.too_fast(NOW + number) for number in range(5)] == [False] * 4 + [True]


def test_trouble_bounds_the_connections() -> None:
    learned = settled()
    assert learned.troubled(NOW + 10.0, 3)
    ceiling = learned.ceiling
    assert ceiling is not None
    assert (ceiling.rate, ceiling.connections, ceiling.why) == (None, 3, WHY)


def test_trouble_with_none_open_leaves_no_trace() -> None:
    learned = settled()
    assert not learned.troubled(NOW + 10.0, 0)
    assert learned.width is None


def test_pace_before_counts_from_the_last_rest() -> None:
    learned = settled(NOW)
    later = NOW + 10 * REST_S
    for number in range(101):
        learned.taken(later + number, MOST)
    learned.too_fast(later + 100.0)
    learned.taken(later + 190.0, MOST)
    learned.taken(later + 200.0, MOST)
    assert learned.pace is not None
    assert not learned.pace.is_asking
    assert 0.4 < learned.pace.pace < 0.6


def test_few_unclear_refusals_say_nothing() -> None:
    learned = settled()
    every_s = 2 * SAMPLES_S / (MIN_SAMPLES - 1)
    assert not any(learned.unclear(NOW + number * every_s) for number in range(MIN_SAMPLES - 1))


def test_many_unclear_refusals_are_a_sign() -> None:
    learned = settled()
    assert any(learned.unclear(NOW + number) for number in range(int(SAMPLES_S) + 1))
    assert learned.pace is not None


def test_many_unclear_refusals_of_less_than_a_minute_say_nothing() -> None:
    learned = settled()
    assert not any(learned.unclear(NOW + number / 100) for number in range(int(SAMPLES_S) * 100))


def test_unclear_refusals_among_more_deliveries_say_nothing() -> None:
    learned = settled()
    for number in range(200):
        learned.taken(NOW + number / 10, MOST)
        learned.taken(NOW + number / 10, MOST)
        assert not learned.unclear(NOW + number / 10)


def test_unclear_refusals_spread_over_hours_say_nothing() -> None:
    learned = settled()
    assert not any(learned.unclear(NOW + number * SAMPLES_S) for number in range(500))


def test_unclear_refusals_of_a_peer_that_never_took_any_do_not_stop_it() -> None:
    learned = Adaptive(NOW)  # it may greylist in words that nobody knows
    for number in range(3000):
        learned.unclear(NOW + number)
    assert learned.pace is None or not learned.pace.is_asking


def test_state_survives_and_is_kept_for_a_day() -> None:
    learned = settled()
    learned.too_fast(NOW)
    learned.troubled(NOW, 3)
    state = learned.export(NOW + 1.0, UNIX + 1.0)
    assert state is not None
    again = Adaptive.restore(state, 50.0, UNIX + 100.0)
    assert again.ceiling == learned.ceiling
    assert again.export(51.0, UNIX + 101.0) == state
    assert not state.is_over(UNIX + FORGET_S - 1.0)
    assert state.is_over(UNIX + FORGET_S + 1.0)
    assert again.is_forgotten(50.0 + FORGET_S)


def test_state_from_the_future_is_over() -> None:
    assert AdaptiveState(UNIX + 2 * FORGET_S).is_over(UNIX)


def test_limits_with_something_learned_are_kept() -> None:
    limits = PathLimits(0.0)
    limits.learned = settled()
    assert limits.is_unspent(NOW + 1000.0)
    limits.learned.too_fast(NOW)
    assert not limits.is_unspent(NOW + 1000.0)
    assert limits.is_unspent(NOW + FORGET_S)


def test_bound_reaches_all_paths_that_share_the_limits_and_adapt() -> None:
    limits = PathLimits(0.0)
    paths = [Path(f"v{n}", "d", "", Limits(max_connections=10 + n), limits, ()) for n in range(2)]
    fixed = Path("v2", "d", "", Limits(max_connections=20, adaptive=False), limits, ())
    learned = settled()
    learned.troubled(NOW, 3)
    limits.bound(learned.ceiling)
    assert [path.max_connections for path in paths] == [3, 3]
    assert fixed.max_connections == 20
    assert Path("v3", "d", "", Limits(), limits, ()).max_connections == 3
    paths[0].leave()
    limits.bound(None)
    assert [path.max_connections for path in paths] == [3, 11]


def test_decision_names_what_binds() -> None:
    limits = PathLimits(0.0)
    path = Path("v", "d", "", Limits(max_message_rate=Rate(100, 1.0)), limits, ())
    path.sites["mx"] = SiteDemand("mx", lambda: 100)
    learned = settled()
    learned.too_fast(NOW)
    limits.bound(learned.ceiling)
    started = path.reserve_message(NOW)
    path.redeem_message(NOW, started)
    assert decide(path, NOW + 1.0).reason.startswith("message rate of adaptive limits spent for")
    learned = settled()
    learned.troubled(NOW, 1)
    limits.bound(learned.ceiling)
    limits.slots.acquire(1, NOW)
    assert decide(path, NOW + 60.0).reason == "max_connections 1 of adaptive limits reached"


def test_rates_use_windows_of_few_lengths() -> None:
    windows = {rate_of(10**exponent).window_s for exponent in range(-5, 5)}
    assert windows <= {1.0, 10.0, 60.0, 600.0, 3600.0}


@given(st.floats(0.0003, 10_000.0))
def test_rate_is_near_the_pace_and_no_more(per_s: float) -> None:
    rate = rate_of(per_s)
    let_through = rate.count / (rate.window_s * 1.02)
    assert let_through <= per_s * 1.0001 or rate.count == 1
    assert let_through >= per_s * 0.98 or per_s * 3600 < 50


signs = st.sampled_from(["taken", "too fast", "unclear", "connection", "opened", "restart"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(signs, st.integers(0, 12), st.floats(0.0, 900.0)), max_size=120))
def test_no_sequence_exceeds_the_policy_or_stops_for_ever(sequence: list[tuple[str, int, float]]) -> None:
    policy = Limits(max_connections=MOST, max_message_rate=Rate(5, 1.0))
    limits = PathLimits(0.0)
    path = Path("v", "d", "", policy, limits, ())
    learned = Adaptive(NOW)
    now = NOW
    for sign, count, after in sequence:
        now += after
        if sign == "restart":
            state = learned.export(now, UNIX + now)
            learned = Adaptive.restore(state, now, UNIX + now) if state is not None else Adaptive(now)
        for _ in range(count):
            if sign == "taken":
                learned.taken(now, MOST)
            elif sign == "too fast":
                learned.too_fast(now)
            elif sign == "unclear":
                learned.unclear(now)
        if sign == "connection":
            learned.troubled(now, min(count, MOST - 1))
        elif sign == "opened":
            learned.opened(now, min(count, MOST))
        limits.bound(learned.ceiling)
        assert 1 <= path.max_connections <= MOST
        assert path.max_message_rate is not None
        assert 0.0 < path.max_message_rate.per_s <= 5.0
        ready_at = path.message_ready_at(now)
        assert ready_at < now + 4000.0
