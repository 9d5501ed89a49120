"""ceilings: the least of all bounds is in force, never more than the policy's."""

from __future__ import annotations

import pytest

from engine.core.units import Rate
from engine.queue.ceilings import Bounds, Ceiling, describe_ceiling, least
from engine.queue.decide import decide
from engine.queue.path import Path, PathLimits, SiteDemand
from tests.fakes.limits import Limits

SINCE = -10_000.0
NOW = 100.0
HOURLY = Rate(3600, 3600.0)


def make_path(waiting: int = 100, **policy: object) -> Path:
    path = Path("v1", "gmail", "", Limits(**policy), PathLimits(SINCE), ())  # type: ignore[arg-type]
    path.sites["mx"] = SiteDemand("mx", lambda: waiting)
    return path


def test_without_ceilings_the_policy_is_in_force() -> None:
    assert least(Limits(max_message_rate=HOURLY, burst=7), ()) == Bounds(10, "", HOURLY, "", 7)


def test_the_least_of_several_is_in_force_and_named() -> None:
    half, third = Rate(1, 2.0), Rate(1, 3.0)
    bounds = least(
        Limits(max_message_rate=HOURLY, burst=7),
        [Ceiling("a", "rule a", 4, third), Ceiling("b", "rule b", 3, half), Ceiling("c", "rule c")],
    )
    assert bounds == Bounds(3, "rule b", third, "rule a", 1)


def test_a_ceiling_above_the_policy_changes_nothing() -> None:
    policy = Limits(max_message_rate=HOURLY, burst=7)
    assert least(policy, [Ceiling("a", "rule a", 11, Rate(2, 1.0))]) == least(policy, ())


def test_an_unlimited_policy_is_bounded_by_a_ceiling() -> None:
    rate = Rate(5, 60.0)
    assert least(Limits(), [Ceiling("a", "rule a", 0, rate)]) == Bounds(10, "", rate, "rule a", 1)


def test_a_path_opens_no_more_than_its_ceiling_and_says_whose() -> None:
    path = make_path()
    path.set_ceiling(Ceiling("rule", "rule gmail-busy", 2))
    assert decide(path, NOW).open == 2
    assert path.try_connect(NOW)
    assert path.try_connect(NOW)
    assert not path.try_connect(NOW)
    assert decide(path, NOW).reason == "max_connections 2 of rule gmail-busy reached"
    path.clear_ceiling("rule")
    assert path.try_connect(NOW)


def test_a_path_paces_by_its_ceilings_rate_from_the_next_message_on() -> None:
    path = make_path(max_message_rate=Rate(1000, 1.0))
    path.redeem_message(NOW, path.reserve_message(NOW))
    path.set_ceiling(Ceiling("rule", "rule slow", 0, Rate(1, 60.0)))
    assert path.message_ready_at(NOW) >= NOW + 60.0 - 0.1
    assert decide(path, NOW).reason.startswith("message rate of rule slow spent for ")


def test_a_transaction_under_way_is_counted_when_a_rate_appears() -> None:
    path = make_path()
    first = path.reserve_message(NOW)
    path.set_ceiling(Ceiling("rule", "rule slow", 0, Rate(1, 60.0)))
    assert path.redeem_message(NOW + 1.0, first) == pytest.approx(NOW + 1.0)
    assert path.message_ready_at(NOW + 2.0) >= NOW + 61.0 - 2.0


def test_the_same_key_replaces_what_it_said() -> None:
    path = make_path()
    path.set_ceiling(Ceiling("rule", "rule a", 2))
    path.set_ceiling(Ceiling("rule", "rule a", 5))
    assert [ceiling.connections for ceiling in path.ceilings] == [5]
    assert path.max_connections == 5
    path.clear_ceiling("unknown")
    assert path.max_connections == 5


def test_a_reload_keeps_the_ceilings() -> None:
    path = make_path()
    path.set_ceiling(Ceiling("rule", "rule a", 2))
    path.set_policy(Limits(max_connections=1))
    assert (path.max_connections, path.connections_why) == (1, "")
    path.set_policy(Limits(max_connections=50))
    assert (path.max_connections, path.connections_why) == (2, "rule a")


def test_ceiling_for_operators_leaves_out_what_it_does_not_bound() -> None:
    assert describe_ceiling(Ceiling("adaptive", "adaptive limits", 3)) == {
        "key": "adaptive",
        "why": "adaptive limits",
        "connections": 3,
    }
    assert describe_ceiling(Ceiling("rule", "rule slow", 0, Rate(1, 60.0))) == {
        "key": "rule",
        "why": "rule slow",
        "rate": "1/min",
    }
