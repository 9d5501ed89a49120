"""path: holds, back-off, and the two rates that a message must pass both."""

from __future__ import annotations

import math

import pytest

from engine.core.units import Rate
from engine.queue.path import Cap, LeasedCap, Path, PathLimits, SiteDemand
from tests.fakes.limits import Limits

SINCE = -10_000.0  # long ago: a limit without history
NOW = 100.0


def make_path(limits: PathLimits | None = None, **policy: object) -> Path:
    return Path("v1", "gmail", "", Limits(**policy), limits or PathLimits(SINCE), ())  # type: ignore[arg-type]


def make_demand(waiting: int = 0) -> SiteDemand:
    return SiteDemand("mx.example", lambda: waiting)


def send(path: Path, now: float) -> float:
    """Start a transaction as soon as the path says, and return when its end-of-message may be written."""
    started = path.reserve_message(max(now, path.message_ready_at(now)))
    return path.redeem_message(started, started)


def test_without_a_rate_a_message_goes_at_once() -> None:
    path = make_path()
    assert path.message_ready_at(NOW) <= NOW
    assert send(path, NOW) == NOW


def test_a_rate_paces_messages() -> None:
    path = make_path(max_message_rate=Rate(10, 1.0))
    times = [send(path, NOW) for _ in range(3)]
    assert times[1] - times[0] == pytest.approx(0.102, abs=0.03)
    assert times[2] - times[0] == pytest.approx(0.204, abs=0.03)


def test_a_message_waits_for_the_later_of_rate_and_interval() -> None:
    path = make_path(max_message_rate=Rate(100, 1.0), message_interval_s=0.5)
    first, second = send(path, NOW), send(path, NOW)
    assert second - first >= 0.5


def test_an_interval_counts_from_when_the_rate_let_the_message_go() -> None:
    path = make_path(max_message_rate=Rate(1, 10.0), message_interval_s=1.0)
    send(path, NOW)
    second = send(path, NOW)
    assert second > NOW + 9.0
    without_rate = make_path(path.limits, message_interval_s=1.0)
    assert send(without_rate, second) >= second + 1.0


def test_vmtas_of_one_address_share_what_is_spent() -> None:
    limits = PathLimits(SINCE)
    first, second = (make_path(limits, max_message_rate=Rate(1, 10.0)) for _ in range(2))
    assert send(first, NOW) == NOW
    assert second.message_ready_at(NOW) > NOW + 9.0


def test_a_cancelled_reservation_makes_nobody_wait() -> None:
    path = make_path(max_message_rate=Rate(1, 10.0), message_interval_s=1.0)
    path.cancel_message(path.reserve_message(NOW))
    assert path.message_ready_at(NOW) <= NOW


def test_a_permit_whose_time_has_come_is_confirmed_for_both_rates() -> None:
    path = make_path(max_message_rate=Rate(1, 2.0), message_interval_s=1.0)
    send(path, NOW)
    at = send(path, NOW)
    assert path.confirm_message(at, at) == at
    assert path.confirm_message(at, at + 5.0) == at + 5.0
    assert path.message_ready_at(at + 5.0) > at + 6.5


def test_connections_need_a_slot_and_a_place_in_the_rate() -> None:
    path = make_path(max_connections=2)
    assert [path.try_connect(NOW) for _ in range(3)] == [True, True, False]
    path.limits.slots.release(NOW)
    assert path.try_connect(NOW)
    slow = make_path(max_connections=9, max_connection_rate=Rate(1, 60.0))
    assert [slow.try_connect(NOW) for _ in range(2)] == [True, False]
    assert slow.limits.slots.in_use(NOW) == 1


def test_what_was_spent_stays_spent_under_a_new_policy() -> None:
    path = make_path(max_message_rate=Rate(10, 10.0))
    send(path, NOW)
    path.set_policy(Limits(max_message_rate=Rate(1, 10.0)))
    assert path.message_ready_at(NOW) > NOW + 9.0


def test_a_hold_ends_by_itself_or_is_released() -> None:
    path = make_path()
    path.hold("a", "paused", 110.0)
    path.hold("b", "no source", math.inf)
    assert path.hold_in_force(NOW) == ("no source", math.inf)
    path.release("b")
    path.release("unknown")
    assert path.hold_in_force(NOW) == ("paused", 110.0)
    assert path.hold_in_force(110.0) is None


def test_the_same_key_replaces_what_a_hold_said() -> None:
    path = make_path()
    path.hold("a", "slow", 110.0)
    path.hold("a", "slower", 105.0)
    assert path.hold_in_force(NOW) == ("slower", 105.0)


def test_success_ends_back_off() -> None:
    demand = make_demand()
    demand.fail(NOW, "refused")
    demand.succeed()
    assert (demand.failures, demand.retry_at) == (0, 0.0)


def test_a_path_is_idle_when_no_queue_session_hold_or_back_off_needs_it() -> None:
    path = make_path()
    assert path.is_idle(NOW)
    demand = path.sites["mx.example"] = make_demand()
    assert path.is_idle(NOW)
    for name in ("queues", "sessions", "opening"):
        setattr(demand, name, 1)
        assert not path.is_idle(NOW)
        setattr(demand, name, 0)
    demand.fail(NOW, "refused")
    assert not path.is_idle(NOW)
    assert path.is_idle(NOW + 2.0)
    path.hold("a", "paused", math.inf)
    assert not path.is_idle(NOW + 2.0)


def test_a_cap_of_zero_is_no_bound() -> None:
    assert Cap("none", 0).room == math.inf
    cap = Cap("some", 3)
    cap.in_use = 2
    assert cap.room == 1


def test_a_leased_cap_allows_what_was_borrowed() -> None:
    cap = LeasedCap("total", 10)
    assert cap.room == 0
    cap.borrowed, cap.in_use = 4, 1
    assert cap.room == 3
    assert LeasedCap("none", 0).room == math.inf


def test_limits_are_unspent_when_fresh_ones_would_allow_no_more() -> None:
    path = make_path(
        max_message_rate=Rate(1, 10.0), message_interval_s=2.0, max_connection_rate=Rate(1, 60.0)
    )
    limits = path.limits
    assert limits.is_unspent(NOW)
    send(path, NOW)
    assert not limits.is_unspent(NOW + 5.0)
    assert limits.is_unspent(NOW + 70.0)  # a minute is kept whatever the rates
    assert path.try_connect(NOW + 70.0)
    assert not limits.is_unspent(NOW + 600.0)  # the connection is open
    limits.slots.release(NOW + 600.0)
    assert limits.is_unspent(NOW + 600.0)
    path.reserve_message(NOW + 600.0)
    assert not limits.is_unspent(NOW + 600.0)


def test_limits_are_exported_and_restored_rate_by_rate() -> None:
    policy = {"max_message_rate": Rate(2, 100.0), "message_interval_s": 30.0}
    path = make_path(max_connection_rate=Rate(1, 60.0), **policy)
    send(path, NOW)
    assert path.try_connect(NOW)
    states = path.limits.export(NOW, 1e9, 0.0, 0.0)
    heir = make_path(max_connection_rate=Rate(1, 60.0), **policy)
    for limit, state in zip(heir.limits.rates, states, strict=True):
        limit.restore(state, 5.0, 1e9 + 10.0)  # another clock, 10 s later
    assert heir.message_ready_at(5.0) >= 5.0 + 20.0
    assert heir.connect_ready_at(5.0) >= 5.0 + 50.0


def test_what_may_be_spent_before_the_next_export_counts_as_spent() -> None:
    path = make_path(max_message_rate=Rate(60, 120.0))
    kept = path.limits.export(NOW, 1e9, 60.0, 4.0)[0]
    assert [window.counts for window in kept.windows] in ([], [[2]])
    send(path, NOW)
    (window,) = path.limits.export(NOW, 1e9, 60.0, 4.0)[0].windows
    assert sum(window.counts) == 1 + 2  # 4 s at 0.5 per second
    assert path.limits.export(NOW, 1e9, 200.0, 4.0)[0].windows == []


def test_the_fastest_pace_and_the_longest_window_of_all_vmtas_are_exported_by() -> None:
    limits = PathLimits(SINCE)
    make_path(limits, max_message_rate=Rate(10, 1.0))
    make_path(limits, max_message_rate=Rate(100, 3600.0), max_connection_rate=Rate(5, 1.0))
    assert limits.longest_window_s == 3600.0
    assert limits.paces_per_s == (10.0, 0.0, 5.0)


def test_a_permit_that_waited_for_the_rate_waits_for_the_interval_from_then() -> None:
    path = make_path(max_message_rate=Rate(1, 10.0), message_interval_s=8.0)
    send(path, NOW)
    at = send(path, NOW)
    assert at > NOW + 9.9
    path.confirm_message(at, at + 1.0)
    no_rate = make_path(path.limits, message_interval_s=8.0)
    assert no_rate.message_ready_at(at + 1.0) >= at + 9.0


def test_a_permit_asked_for_too_early_is_told_when_to_ask_again() -> None:
    path = make_path(max_message_rate=Rate(1, 10.0), message_interval_s=8.0)
    first = send(path, NOW)
    at = send(path, NOW)
    for limit in (path.limits.messages, path.limits.interval):
        limit.postpone(first, NOW + 5.0)  # the first was written late
    again = path.confirm_message(at, at)
    assert again >= NOW + 15.0
    assert path.confirm_message(again, again) == again


def test_repr_says_who_where_and_how_many() -> None:
    path = make_path(max_connections=3)
    path.sites["mx.example"] = demand = make_demand()
    demand.sessions = 2
    assert repr(path) == "<Path v1->gmail 2/3 sessions>"
