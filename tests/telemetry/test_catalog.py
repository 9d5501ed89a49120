"""The table of metrics."""

from __future__ import annotations

from engine.telemetry import catalog


def test_no_name_stands_twice() -> None:
    assert len(catalog.METRICS) == len(catalog._ROWS)


def test_bounds_reach_the_limits_they_are_about() -> None:
    assert catalog.QUEUE_BOUNDS_S[-1] == 4 * 86400
    assert catalog.ATTEMPT_BOUNDS_S[-1] == 600
    assert 0.03 in catalog.COMMIT_BOUNDS_S
