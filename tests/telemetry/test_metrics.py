"""Cells, histograms and their snapshots."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.telemetry.catalog import METRICS, Metric
from engine.telemetry.metrics import Counters, Histogram, merge

CATALOG = {
    "hits": Metric("hits", "counter", ("who",), "Hits."),
    "depth": Metric("depth", "gauge", ("queue",), "Depth."),
    "wait": Metric("wait", "histogram", (), "Wait.", (1.0, 2.0)),
}


def test_one_series_is_one_cell() -> None:
    counters = Counters(CATALOG)
    counters.counter("hits", who="a")[0] += 1
    counters.counter("hits", who="a")[0] += 2
    counters.counter("hits", who="b")[0] += 5
    assert counters.snapshot()["counters"] == [["hits", ["a"], 3], ["hits", ["b"], 5]]


def test_label_values_follow_the_catalogs_order() -> None:
    counters = Counters()
    counters.counter("mailrail_messages_total", destination="gmail", customer="acme", event="delivered")
    labels = counters.snapshot()["counters"][0][1]
    assert METRICS["mailrail_messages_total"].labels == ("event", "customer", "destination")
    assert labels == ["delivered", "acme", "gmail"]


@pytest.mark.parametrize("labels", [{}, {"what": "a"}, {"who": "a", "what": "b"}])
def test_labels_the_catalog_does_not_know_are_a_bug(labels: dict[str, str]) -> None:
    with pytest.raises(AssertionError):
        Counters(CATALOG).counter("hits", **labels)


def test_kind_the_catalog_does_not_say_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Counters(CATALOG).counter("wait")
    with pytest.raises(AssertionError):
        Counters(CATALOG).histogram("hits", who="a")


def test_value_on_a_bound_belongs_to_the_bucket_it_closes() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 7.5


def test_readings_of_one_series_are_added_up() -> None:
    counters = Counters(CATALOG)
    counters.counter("hits", who="a")[0] += 1
    counters.watch("hits", lambda: {("a",): 2, ("b",): 4})
    counters.watch("depth", lambda: {("q",): 3})
    counters.watch("depth", lambda: {("q",): 4})
    snapshot = counters.snapshot()
    assert snapshot["counters"] == [["hits", ["a"], 3], ["hits", ["b"], 4]]
    assert snapshot["gauges"] == [["depth", ["q"], 7]]


def test_snapshot_does_not_move_with_its_histogram() -> None:
    counters = Counters(CATALOG)
    histogram = counters.histogram("wait")
    before = counters.snapshot()
    histogram.observe(1.5)
    assert before["histograms"] == [["wait", [], [0, 0, 0], 0.0]]


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=20), max_size=4))
def test_merged_shards_equal_one_that_did_it_all(shards: list[list[tuple[str, float]]]) -> None:
    whole = Counters(CATALOG)
    parts = [Counters(CATALOG) for _ in shards]
    for part, work in zip(parts, shards, strict=True):
        for who, value in work:
            for each in (part, whole):
                each.counter("hits", who=who)[0] += 1
                each.histogram("wait").observe(value)
    sent = [msgspec.msgpack.decode(msgspec.msgpack.encode(part.snapshot())) for part in parts]
    merged, expected = merge(sent), whole.snapshot()
    assert sorted(merged["counters"]) == sorted(expected["counters"])
    assert [row[2] for row in merged["histograms"]] == [row[2] for row in expected["histograms"]]
    assert [row[3] for row in merged["histograms"]] == pytest.approx([r[3] for r in expected["histograms"]])


def test_catalog_holds_to_prometheus_conventions() -> None:
    for row in METRICS.values():
        assert row.name.startswith("mailrail_")
        assert row.name.endswith("_total") == (row.kind == "counter")
        assert bool(row.bounds) == (row.kind == "histogram")
        assert list(row.bounds) == sorted(set(row.bounds))
        assert row.meaning.endswith(".")
