"""balance: how much of a backlog moves between shards."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.units import Rate
from engine.queue.balance import AHEAD_S, KEEP_S, allowance_per_s, surplus, wanted
from engine.queue.path import Path, PathLimits, SiteDemand
from tests.fakes.limits import Limits

SITE = "mx.example"
NOW = 100.0

counts = st.integers(0, 10_000)
rates = st.floats(0.0, 1000.0)


def make_path(**policy: object) -> Path:
    path = Path("v1", "x", "", Limits(**policy), PathLimits(-1000.0), ())  # type: ignore[arg-type]
    path.sites[SITE] = SiteDemand(SITE, lambda: 1)
    path.sites[SITE].attempt_s = 0.5
    return path


@pytest.mark.parametrize(
    ("policy", "per_s"),
    [
        ({"max_connections": 10, "max_message_rate": Rate(10, 2.0)}, 5.0),
        ({"max_connections": 2, "max_message_rate": None}, 4.0),
        ({"max_connections": 2, "max_message_rate": Rate(100, 1.0)}, 4.0),
        ({"max_connections": 10, "max_message_rate": Rate(100, 1.0), "message_interval_s": 0.25}, 4.0),
    ],
)
def test_a_path_may_carry_what_its_tightest_limit_allows(policy: dict[str, object], per_s: float) -> None:
    assert allowance_per_s(make_path(**policy), SITE, NOW) == per_s


def test_a_path_that_is_held_or_backs_off_may_carry_nothing() -> None:
    path = make_path()
    path.hold("operator", "paused", math.inf)
    assert allowance_per_s(path, SITE, NOW) == 0.0
    path.release("operator")
    path.sites[SITE].fail(NOW, "refused")
    assert allowance_per_s(path, SITE, NOW) == 0.0
    assert allowance_per_s(path, SITE, NOW + 2.0) > 0.0


def test_a_shard_keeps_what_it_carries_soon_and_what_it_can_not_carry() -> None:
    assert surplus(55, 5.0) == 55 - int(5.0 * KEEP_S)
    assert surplus(10, 5.0) == 0
    assert surplus(55, 0.0) == 0


def test_an_idle_shard_wants_work_ahead_and_never_more_than_its_part() -> None:
    assert wanted(0, 5.0, 1000, 5.0) == int(5.0 * AHEAD_S)
    assert wanted(5, 5.0, 1000, 5.0) == int(5.0 * AHEAD_S) - 5
    assert wanted(0, 5.0, 20, 5.0) == 10
    assert wanted(0, 1.0, 20, 9.0) == 2
    assert wanted(0, 0.0, 1000, 5.0) == 0


@given(counts, rates, counts, rates)
def test_who_has_its_part_or_work_enough_asks_for_nothing(
    mine: int, per_s: float, theirs: int, their_per_s: float
) -> None:
    count = wanted(mine, per_s, theirs, their_per_s)
    assert 0 <= count <= theirs
    if count:
        fair = (mine + theirs) * per_s / (per_s + their_per_s)
        assert mine + count <= fair
        assert mine + count <= math.ceil(per_s * AHEAD_S)
        assert wanted(mine + count, per_s, theirs - count, their_per_s) == 0
