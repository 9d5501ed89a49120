from __future__ import annotations

import pytest

from engine.demo.account import Line
from engine.demo.uses import PathUse, measure_paths
from tests.demo.conftest import FAST, OTHER_SOURCE, SOURCE, GoodRun


def measure(run: GoodRun) -> dict[tuple[str, str], PathUse]:
    paths = measure_paths(run.scenario, run.account(), run.handed_over, run.shards)
    return {(path.source, path.destination): path for path in paths}


def test_every_path_of_the_scenario_is_measured(run: GoodRun) -> None:
    run.lines = []
    paths = measure(run)
    assert set(paths) == {
        (source, name) for source in (SOURCE, OTHER_SOURCE) for name in ("fast.example", "slow.example")
    }
    assert all(path.used == 0.0 and path.messages == 0 for path in paths.values())


def test_path_that_nobody_has_is_measured_too(run: GoodRun) -> None:
    run.lines.append(Line(1.0, "open", FAST, "127.0.0.9"))
    assert measure(run)["127.0.0.9", "fast.example"].highest_open == 1


def test_share_of_a_rate_is_what_its_pace_says(run: GoodRun) -> None:
    path = measure(run)[SOURCE, "fast.example"]
    assert (path.customer, path.messages, path.highest_rate, path.highest_open) == ("acme", 100, 10, 2)
    assert path.used == pytest.approx(0.1 / 0.102, abs=0.01)
    # From a second after the first was handed over until no more is left than two connections hold.
    assert path.backlog_s == pytest.approx(0.6 + 97 * 0.102 - 1.0)


def test_share_of_connections_is_weighed_by_time(run: GoodRun) -> None:
    path = measure(run)[SOURCE, "slow.example"]
    assert (path.highest_rate, path.highest_open, path.used) == (0, 2, 1.0)


def test_backlog_is_that_of_the_shard(run: GoodRun) -> None:
    """Mail that waits on another shard can't be sent from here."""
    late = run.add("acme", SOURCE, FAST, "fast.example", 60.0, 500)
    assert measure(run)[SOURCE, "fast.example"].backlog_s < 10.0
    assert late.t == 60.0
