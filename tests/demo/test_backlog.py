from __future__ import annotations

from engine.demo.backlog import (
    connection_seconds,
    count_within,
    drop_short,
    drop_start,
    find_backlog,
    length_s,
)


def test_backlog_lasts_while_more_waits_than_is_held() -> None:
    stays = [(0.0, 1.0), (0.0, 2.0), (0.0, 3.0), (0.5, 4.0)]
    assert find_backlog(stays, 1) == [(0.0, 3.0)]
    assert find_backlog(stays, 3) == [(0.5, 1.0)]
    assert find_backlog(stays, 4) == []


def test_backlog_may_come_again() -> None:
    assert find_backlog([(0.0, 1.0), (5.0, 6.0)], 0) == [(0.0, 1.0), (5.0, 6.0)]


def test_message_that_arrives_before_its_record_waits_for_no_time() -> None:
    assert length_s(find_backlog([(1.0, 0.9)], 0)) == 0.0


def test_start_is_taken_from_the_first_span_only() -> None:
    assert drop_start([(0.0, 3.0), (5.0, 6.0)], 1.0) == [(1.0, 3.0), (5.0, 6.0)]
    assert drop_start([(0.0, 0.5), (0.8, 6.0)], 1.0) == [(1.0, 6.0)]
    assert drop_start([], 1.0) == []


def test_spans_that_are_too_short_are_left_out() -> None:
    assert drop_short([(0.0, 0.9), (2.0, 3.0)], 1.0) == [(2.0, 3.0)]


def test_spans_are_half_open() -> None:
    assert count_within([1.0, 2.0, 3.0], [(1.0, 3.0)]) == 2


def test_connections_weigh_by_how_long_they_are_open_within_the_spans() -> None:
    edges = [(0.0, 1), (2.0, 2), (4.0, 0)]
    assert connection_seconds(edges, [(1.0, 3.0)]) == 1.0 + 2.0
    assert connection_seconds(edges, [(0.0, 1.0), (3.0, 9.0)]) == 1.0 + 2.0
    assert connection_seconds([], [(0.0, 1.0)]) == 0.0
    assert connection_seconds([(0.0, 3)], [(1.0, 2.0)]) == 3.0
