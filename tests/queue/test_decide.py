"""decide: one row for each reason, in the order in which they are asked."""

from __future__ import annotations

import math

import pytest

from engine.core.units import Rate
from engine.queue.decide import decide, wanted_sessions
from engine.queue.path import Cap, Path, PathLimits, SiteDemand, connect_burst
from tests.fakes.limits import Limits

SINCE = -1000.0  # long ago: a limit without history
NOW = 100.0


def make_path(
    waiting: int = 1, caps: tuple[Cap, ...] = (), quiet_until: float = 0.0, **policy: object
) -> Path:
    limits = PathLimits(SINCE, quiet_until)
    path = Path("acme-1", "gmail", "", Limits(**policy), limits, caps)  # type: ignore[arg-type]
    path.sites["mx.example"] = SiteDemand("mx.example", lambda: waiting)
    return path


def test_nothing_waits_opens_nothing() -> None:
    decision = decide(make_path(waiting=0), NOW)
    assert (decision.open, decision.reason, decision.ask_at) == (0, "nothing waits", math.inf)


def test_one_message_opens_one_session() -> None:
    assert decide(make_path(waiting=1), NOW)[:4] == (1, "mx.example", "", NOW)


def test_a_long_backlog_opens_all_that_the_policy_allows() -> None:
    assert decide(make_path(waiting=1000, max_connections=7), NOW).open == 7


def test_a_hold_is_the_first_reason_and_says_until_when() -> None:
    path = make_path(waiting=5)
    path.hold("op", "paused by an operator", 160.0)
    assert decide(path, NOW)[2:] == ("held: paused by an operator", 160.0, True)


def test_a_hold_that_has_ended_is_forgotten() -> None:
    path = make_path(waiting=1)
    path.hold("op", "paused", 99.0)
    assert decide(path, NOW).open == 1
    assert not path.holds


def test_of_two_holds_the_longer_one_is_told() -> None:
    path = make_path(waiting=1)
    path.hold("a", "short", 101.0)
    path.hold("b", "long", 200.0)
    assert decide(path, NOW).ask_at == 200.0


def test_backoff_names_the_failure_and_when_it_ends() -> None:
    path = make_path(waiting=5)
    path.sites["mx.example"].fail(NOW, "451 4.4.1 connect: refused")
    decision = decide(path, NOW)
    assert decision.open == 0
    assert decision.reason.startswith("back-off after 1 failures for 1.0 s: 451 4.4.1 connect: refused")
    assert decision.ask_at == NOW + 1.0


def test_after_backoff_one_probe_goes_first() -> None:
    path = make_path(waiting=500)
    path.sites["mx.example"].fail(NOW, "refused")
    assert decide(path, NOW + 1.5).open == 1


def test_backoff_doubles_to_its_bound() -> None:
    demand = SiteDemand("s", lambda: 1)
    waits = []
    now = NOW
    for _ in range(12):
        demand.fail(now, "x")
        waits.append(demand.retry_at - now)
        now = demand.retry_at
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == 300.0


def test_tries_made_at_once_back_off_as_one() -> None:
    demand = SiteDemand("s", lambda: 1)
    for _ in range(10):
        demand.fail(NOW, "refused")
    assert (demand.failures, demand.retry_at) == (1, NOW + 1.0)


def test_a_starved_site_comes_before_one_where_more_waits() -> None:
    path = make_path(waiting=1000)
    starved = path.sites["mx2.example"] = SiteDemand("mx2.example", lambda: 1)
    assert decide(path, NOW).site == "mx.example"
    starved.is_starved = True
    assert decide(path, NOW).site == "mx2.example"


def test_a_spent_message_rate_says_when_to_ask_again() -> None:
    path = make_path(waiting=5, max_message_rate=Rate(1, 10.0))
    started = path.reserve_message(NOW)
    path.redeem_message(NOW, started)
    decision = decide(path, NOW)
    assert decision.reason.startswith("message rate spent for")
    assert 9.0 < decision.ask_at - NOW < 11.0


def test_connections_in_use_are_a_bound() -> None:
    path = make_path(waiting=50, max_connections=2)
    assert path.try_connect(NOW)
    assert path.try_connect(NOW)
    assert not path.try_connect(NOW)
    decision = decide(path, NOW)
    assert decision.reason == "max_connections 2 reached"
    assert decision.ask_at == math.inf


def test_a_slot_that_lingers_says_when_it_is_free() -> None:
    path = make_path(waiting=50, max_connections=1)
    path.try_connect(NOW)
    path.limits.slots.release_at(NOW, NOW + 5.0)
    assert decide(path, NOW).ask_at == NOW + 5.0
    assert decide(path, NOW + 5.0).open == 1


def test_a_restarted_shard_is_quiet_first() -> None:
    path = make_path(waiting=5, quiet_until=NOW + 2.0)
    decision = decide(path, NOW)
    assert decision.open == 0
    assert decision.reason.startswith("quiet after a start")
    assert decision.ask_at == NOW + 2.0


def test_a_spent_cap_is_named() -> None:
    cap = Cap("max_connections in total", 3)
    cap.in_use = 3
    assert decide(make_path(waiting=5, caps=(cap,)), NOW).reason == "max_connections in total 3 reached"


def test_room_under_a_cap_bounds_what_is_opened() -> None:
    cap = Cap("max_connections of the vmta", 3)
    cap.in_use = 1
    assert decide(make_path(waiting=500, caps=(cap,)), NOW).open == 2


def test_a_spent_connection_rate_says_when_to_ask_again() -> None:
    path = make_path(waiting=500, max_connection_rate=Rate(2, 60.0))
    assert path.try_connect(NOW)
    decision = decide(path, NOW)
    assert decision.reason.startswith("connection rate spent for")
    assert NOW < decision.ask_at < NOW + 62.0


def test_an_idle_session_is_enough() -> None:
    path = make_path(waiting=5)
    path.sites["mx.example"].idle = 1
    assert decide(path, NOW).reason == "an idle session will take it"


def test_the_neediest_site_is_served_first() -> None:
    path = make_path(waiting=5)
    path.sites["other.example"] = SiteDemand("other.example", lambda: 50)
    assert decide(path, NOW).site == "other.example"
    path.sites["other.example"].sessions = 20
    assert decide(path, NOW).site == "mx.example"


@pytest.mark.parametrize(
    ("waiting", "limit", "sessions"), [(0, 10, 0), (1, 10, 1), (5, 10, 5), (1000, 10, 10)]
)
def test_wanted_sessions_follow_the_backlog(waiting: int, limit: int, sessions: int) -> None:
    assert wanted_sessions(waiting, limit) == sessions


@pytest.mark.parametrize("limit", [1, 2, 10, 100, 1000])
def test_wanted_sessions_grow_and_stay_within_the_limit(limit: int) -> None:
    wanted = [wanted_sessions(waiting, limit) for waiting in range(0, 20 * limit, max(1, limit // 10))]
    assert wanted == sorted(wanted)
    assert max(wanted) == limit


def test_a_set_of_connections_may_open_at_once_but_not_more_than_two_seconds_of_the_rate() -> None:
    assert connect_burst(10, Rate(1000, 60.0)) == 10
    assert connect_burst(10, Rate(100, 60.0)) == 3
    assert connect_burst(10, Rate(1, 60.0)) == 1
