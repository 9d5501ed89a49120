"""Shards' snapshots as one Prometheus page, in the supervisor.

A shard that dies takes its counters along; what it last reported is added to the totals of the dead, so that
no counter ever falls while the supervisor lives. Gauges of the dead are gone: nothing of it is open any more.

Owns: the last snapshot of every living incarnation, the sums of the others.
Never: asks a shard (the supervisor does), is part of the hot path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from engine.telemetry.catalog import METRICS, Metric
from engine.telemetry.metrics import Snapshot, merge

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SUPERVISOR = -1  # the supervisor reports its own counters as this shard

_Rows = Mapping[str, list[list[Any]]]  # of a snapshot, by metric name


class Exposition:
    """Keeps what shards report and formats the sum."""

    def __init__(self, catalog: Mapping[str, Metric] = METRICS) -> None:
        self._collector = _SnapshotCollector(catalog)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._collector)
        self._living: dict[int, tuple[bytes, Snapshot]] = {}
        self._dead: Snapshot = {}
        self._ended: set[bytes] = set()
        self._shards: set[int] = set()

    def keep(self, shard: int, incarnation: bytes, snapshot: Snapshot) -> None:
        """Take the newest snapshot of a shard. Another incarnation than before ends the earlier one.

        A late answer of an incarnation that has ended is left out.
        """
        if incarnation in self._ended:
            return
        known = self._living.get(shard)
        if known is not None and known[0] != incarnation:
            self.end(shard)
        self._living[shard] = (incarnation, snapshot)
        self._shards.add(shard)

    def end(self, shard: int) -> None:
        """The shard's process is dead: its totals stay, its gauges go."""
        known = self._living.pop(shard, None)
        if known is None:
            return
        incarnation, snapshot = known
        self._ended.add(incarnation)
        self._dead = merge([self._dead, {**snapshot, "gauges": []}])

    def forget(self, shard: int) -> None:
        """The engine has no such shard any more (a smaller number after a restart of shards)."""
        self.end(shard)
        self._shards.discard(shard)

    def totals(self) -> Snapshot:
        """Return the sum over the living and the dead."""
        return merge([self._dead, *[snapshot for _, snapshot in self._living.values()], self._up()])

    def format(self) -> bytes:
        """Return the page in Prometheus's text format (CONTENT_TYPE)."""
        self._collector.totals = self.totals()
        return generate_latest(self._registry)

    def _up(self) -> Snapshot:
        shards = sorted(self._shards - {SUPERVISOR})
        rows = [["mailrail_shard_up", [str(shard)], int(shard in self._living)] for shard in shards]
        return {"gauges": rows}


class _SnapshotCollector(Collector):
    """Yields one family a row of the catalog, from `totals`."""

    def __init__(self, catalog: Mapping[str, Metric]) -> None:
        self._catalog = catalog
        self.totals: Snapshot = {}

    def describe(self) -> Iterable[Family]:
        """Promise nothing: the registry would collect to find out."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield every family, those without a series too, so that a page shows what there is."""
        by_name = {kind: _by_name(self.totals.get(kind, [])) for kind in ("counters", "gauges", "histograms")}
        for row in self._catalog.values():
            if row.kind == "counter":
                yield _counter_family(row, by_name["counters"])
            elif row.kind == "gauge":
                yield _gauge_family(row, by_name["gauges"])
            else:
                yield _histogram_family(row, by_name["histograms"])


def _by_name(rows: list[list[Any]]) -> _Rows:
    found: dict[str, list[list[Any]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found


def _counter_family(row: Metric, rows: _Rows) -> Family:
    """A counter without labels shows 0 before its first event, so that its first rate is not missed."""
    family = CounterMetricFamily(row.name, row.meaning, labels=row.labels)
    for _, labels, value in rows.get(row.name, [] if row.labels else [[row.name, [], 0]]):
        family.add_metric(labels, value)
    return family


def _gauge_family(row: Metric, rows: _Rows) -> Family:
    family = GaugeMetricFamily(row.name, row.meaning, labels=row.labels)
    for _, labels, value in rows.get(row.name, []):
        family.add_metric(labels, value)
    return family


def _histogram_family(row: Metric, rows: _Rows) -> Family:
    family = HistogramMetricFamily(row.name, row.meaning, labels=row.labels)
    ends = [*[repr(float(bound)) for bound in row.bounds], "+Inf"]
    for _, labels, counts, total in rows.get(row.name, []):
        family.add_metric(labels, list(zip(ends, accumulate(counts), strict=True)), total)
    return family
