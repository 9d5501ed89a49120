"""Plain cells that the hot path adds to, and snapshots of them.

A counter is a list of one number: `cell = counters.counter(name, event="delivered")` once, then
`cell[0] += 1` for ever. Nothing is locked, hashed or formatted in between; a shard has one thread that
counts. Gauges are read from their owners when a snapshot is taken.

Owns: the numbers of one process.
Never: speaks Prometheus (exposition does), invents a name (catalog does).
Fails: AssertionError for a name or label that the catalog does not know.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.telemetry.catalog import METRICS, Metric

Cell = list[float]
Series = tuple[str, tuple[str, ...]]  # name, and label values in the catalog's order
Reader = Callable[[], Mapping[tuple[str, ...], float]]  # label values to value

# As it crosses a socket: "counters" and "gauges" are rows of [name, label values, value], "histograms" rows
# of [name, label values, counts per bucket (not cumulative, the last one open), sum].
Snapshot = dict[str, list[list[Any]]]


class Histogram:
    """Counts of values per bucket, and their sum. A value on a bound belongs to the bucket it closes."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value. HOT."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counters:
    """The cells of one process."""

    def __init__(self, catalog: Mapping[str, Metric] = METRICS) -> None:
        self._catalog = catalog
        self._cells: dict[Series, Cell] = {}
        self._histograms: dict[Series, Histogram] = {}
        self._readers: dict[str, list[Reader]] = {}

    def counter(self, name: str, **labels: str) -> Cell:
        """Return the cell of this series, the same one at every call; add to `cell[0]`."""
        series = self._series(name, "counter", labels)
        return self._cells.setdefault(series, [0])

    def histogram(self, name: str, **labels: str) -> Histogram:
        """Return the histogram of this series, the same one at every call."""
        series = self._series(name, "histogram", labels)
        found = self._histograms.get(series)
        if found is None:
            found = self._histograms[series] = Histogram(self._catalog[name].bounds)
        return found

    def watch(self, name: str, read: Reader) -> None:
        """Have `read` called at every snapshot: for gauges, and for counts that live elsewhere.

        What several readers, or a reader and a cell, give for one series is added up.
        """
        assert self._catalog[name].kind != "histogram", name
        self._readers.setdefault(name, []).append(read)

    def snapshot(self) -> Snapshot:
        """Return every number as plain lists."""
        values: dict[str, dict[Series, float]] = {"counter": {}, "gauge": {}}
        values["counter"] = {series: cell[0] for series, cell in self._cells.items()}
        for name, readers in self._readers.items():
            row = self._catalog[name]
            for read in readers:
                _add_reading(values[row.kind], row, read())
        histograms = {series: (each.counts, each.total) for series, each in self._histograms.items()}
        return _format_snapshot(values["counter"], values["gauge"], histograms)

    def _series(self, name: str, kind: str, labels: dict[str, str]) -> Series:
        row = self._catalog[name]
        assert row.kind == kind, f"{name} is a {row.kind}"
        assert labels.keys() == set(row.labels), f"{name} has labels {row.labels}, not {tuple(labels)}"
        return name, tuple([labels[label] for label in row.labels])


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return the sums over all snapshots, series by series."""
    counters: dict[Series, float] = {}
    gauges: dict[Series, float] = {}
    histograms: dict[Series, tuple[list[int], float]] = {}
    for each in snapshots:
        _add_values(counters, each.get("counters", []))
        _add_values(gauges, each.get("gauges", []))
        _add_histograms(histograms, each.get("histograms", []))
    return _format_snapshot(counters, gauges, histograms)


def _format_snapshot(
    counters: Mapping[Series, float],
    gauges: Mapping[Series, float],
    histograms: Mapping[Series, tuple[list[int], float]],
) -> Snapshot:
    return {
        "counters": [[name, list(labels), value] for (name, labels), value in counters.items()],
        "histograms": [
            [name, list(labels), list(n), total] for (name, labels), (n, total) in histograms.items()
        ],
        "gauges": [[name, list(labels), value] for (name, labels), value in gauges.items()],
    }


def _add_reading(into: dict[Series, float], row: Metric, reading: Mapping[tuple[str, ...], float]) -> None:
    for labels, value in reading.items():
        assert len(labels) == len(row.labels), (row.name, labels)
        into[row.name, labels] = into.get((row.name, labels), 0) + value


def _add_values(into: dict[Series, float], rows: list[list[Any]]) -> None:
    for name, labels, value in rows:
        series = (name, tuple(labels))
        into[series] = into.get(series, 0) + value


def _add_histograms(into: dict[Series, tuple[list[int], float]], rows: list[list[Any]]) -> None:
    for name, labels, counts, total in rows:
        series = (name, tuple(labels))
        known = into.get(series)
        if known is None:
            into[series] = (list(counts), total)
        else:
            summed = [a + b for a, b in zip(known[0], counts, strict=True)]
            into[series] = (summed, known[1] + total)
