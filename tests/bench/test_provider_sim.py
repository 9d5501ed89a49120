"""The simulation of providers: what they hide, and that the adaptive limits find it."""

from __future__ import annotations

import pytest

from bench.provider_sim.driving import Drive
from bench.provider_sim.providers import (
    GREYLISTED,
    TAKEN,
    TOO_FAST,
    TOO_MANY_CONNECTIONS,
    TROUBLE,
    Connections,
    Greylisting,
    Provider,
    Reputation,
    Span,
    Troubled,
    Windowed,
)
from bench.provider_sim.strategies import Backoff, Fixed, Learning, Strategy
from bench.provider_sim.table import Row, format_rows, load_policy, recovery_s
from engine.core.units import Rate

HOUR_S = 3600.0


def drive(provider: Provider, strategy: str, over_s: float) -> tuple[float, float]:
    """Return the share of capacity and the share of deferrals."""
    policy, classify = load_policy()
    made: Strategy = {"fixed": Fixed, "back-off": Backoff, "adaptive": Learning}[strategy](classify)
    day = Drive(provider, made, policy, 0.2).run(over_s)
    attempts = day.delivered + day.deferred + day.greylisted
    return day.delivered / provider.capacity(over_s), day.deferred / attempts


def test_window_of_the_wall_clock_and_one_that_slides() -> None:
    fixed, sliding = Windowed(2, 10.0), Windowed(2, 10.0, slides=True)
    times = (0.0, 9.0, 9.5, 10.5, 19.5)
    assert [fixed.take(at, 1) for at in times] == [TAKEN, TAKEN, TOO_FAST, TAKEN, TAKEN]
    assert [sliding.take(at, 1) for at in times] == [TAKEN, TAKEN, TOO_FAST, TAKEN, TAKEN]
    assert sliding.take(19.9, 1) is TOO_FAST


def test_connections_above_the_hidden_number_are_refused() -> None:
    provider = Connections(3, 1.0)
    assert provider.let_in(0.0, 2) is None
    assert provider.let_in(0.0, 3) is TOO_MANY_CONNECTIONS


def test_greylisting_takes_the_second_try_after_a_while() -> None:
    provider = Greylisting(Provider(1.0), every=10, wait_s=60.0)
    assert [provider.take(at, 10) for at in (0.0, 30.0, 60.0)] == [GREYLISTED, GREYLISTED, TAKEN]
    assert provider.take(0.0, 11) is TAKEN


def test_reputation_sinks_with_deferrals_and_comes_back() -> None:
    provider = Reputation(1.0)
    replies = [provider.take(at / 4, 1) for at in range(40 * 600)]
    hour = len(replies) // 10
    assert sum(reply is TAKEN for reply in replies[-hour:]) < 0.5 * hour / 4
    replies = [provider.take(6000.0 + at * 20.0, 1) for at in range(3000)]
    assert all(reply is TAKEN for reply in replies[-10:])


def test_trouble_takes_nothing_and_is_no_capacity() -> None:
    provider = Troubled(Provider(2.0), [Span(10.0, 20.0)])
    assert [provider.take(at, 1) for at in (9.0, 10.0, 20.0)] == [TAKEN, TROUBLE, TAKEN]
    assert provider.capacity(100.0) == 180.0
    assert provider.recovers_at == 20.0


def test_backoff_mode_ends_after_an_hour() -> None:
    policy, classify = load_policy()
    strategy = Backoff(classify)
    run = Drive(Provider(1.0), strategy, policy, 0.2)
    path = run.path
    strategy.refused(path, TOO_FAST, 100.0)
    assert path.max_message_rate == Rate(18, 60.0)
    strategy.tick(path, 100.0 + HOUR_S - 1.0)
    assert path.ceilings
    strategy.tick(path, 100.0 + HOUR_S)
    assert not path.ceilings


@pytest.mark.parametrize(
    ("provider", "over_s"),
    [
        (Windowed(60, 60.0), 2 * HOUR_S),
        (Windowed(20, 60.0, slides=True), 3 * HOUR_S),
        (Greylisting(Windowed(60, 60.0)), 2 * HOUR_S),
        (Connections(3, 2.0), HOUR_S),
        (Reputation(1.0), 2 * HOUR_S),
    ],
)
def test_adaptive_limits_come_near_to_what_is_hidden(provider: Provider, over_s: float) -> None:
    share, deferred = drive(provider, "adaptive", over_s)
    assert share > 0.8  # of hours that begin with the search; over a day it is 0.9
    assert deferred < 0.02


def test_fixed_limits_above_what_is_hidden_are_mostly_deferrals() -> None:
    assert drive(Windowed(60, 60.0), "fixed", HOUR_S)[1] > 0.5


def test_peer_that_takes_everything_gets_all_that_the_policy_allows() -> None:
    assert drive(Provider(3.0), "adaptive", HOUR_S)[0] > 0.97


def test_recovery_is_counted_from_the_end_of_the_trouble() -> None:
    policy, classify = load_policy()
    provider = Troubled(Windowed(60, 60.0), [Span(1200.0, 1800.0)])
    day = Drive(provider, Learning(classify), policy, 0.2).run(HOUR_S)
    found = recovery_s(day, provider)
    assert found is not None
    assert found < 1200.0
    assert recovery_s(day._replace(per_minute=[0] * 60), provider) is None


def test_table_has_a_line_for_each_row() -> None:
    rows = [Row("x", "fixed", 1000, 0.5, 0.25, 3, None), Row("x", "adaptive", 2000, 0.99, 0.001, 0, 60.0)]
    lines = format_rows(rows).splitlines()
    assert lines[2].split() == ["x", "fixed", "1,000", "50.0%", "25.00%", "3", "never"]
    assert lines[3].split() == ["adaptive", "2,000", "99.0%", "0.10%", "0", "1", "min"]
