"""docs/metrics.md has every metric of the catalog, and tells which of them nothing counts yet."""

from __future__ import annotations

import re

from engine.telemetry.catalog import METRICS
from tests.docs.pages import ROOT, read_page, read_rows, section

PAGE = read_page("metrics")


def test_every_metric_has_a_row_with_its_kind_labels_and_meaning() -> None:
    rows = {row[0].strip("`"): row[1:] for row in read_rows(section(PAGE, "## Every metric"))}
    assert list(rows) == list(METRICS)
    for name, (kind, labels, meaning) in rows.items():
        metric = METRICS[name]
        assert (kind, tuple(re.findall(r"`(\w+)`", labels))) == (metric.kind, metric.labels), name
        assert meaning == metric.meaning, name


def test_bounds_of_the_histograms_are_those_of_the_code() -> None:
    bounds = {metric.bounds for metric in METRICS.values() if metric.bounds}
    text = " ".join(section(PAGE, "## Every metric").split())
    assert all(", ".join(f"{bound:g}" for bound in each) in text for each in bounds)


def test_every_metric_is_counted_somewhere() -> None:
    sources = [path for path in (ROOT / "engine").rglob("*.py") if path.name != "catalog.py"]
    code = "\n".join(path.read_text() for path in sources)
    uncounted = [name for name in METRICS if f'"{name}"' not in code]
    assert uncounted == []
