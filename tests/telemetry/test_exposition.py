"""The Prometheus page."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from engine.telemetry.catalog import METRICS
from engine.telemetry.exposition import SUPERVISOR, Exposition
from engine.telemetry.metrics import Counters, Snapshot

Sample = tuple[str, tuple[tuple[str, str], ...]]


def read(page: bytes) -> dict[Sample, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def shard_counters(delivered: int, *, sessions: int = 0) -> Counters:
    counters = Counters()
    cell = counters.counter(
        "mailrail_messages_total", event="delivered", customer="acme", destination="gmail"
    )
    cell[0] += delivered
    for n in range(delivered):
        counters.histogram("mailrail_queue_seconds", destination="gmail").observe(float(n))
    counters.watch("mailrail_sessions", lambda: {("acme-1", "gmail", "busy"): sessions})
    return counters


def sent(counters: Counters) -> Snapshot:
    over_the_wire: Snapshot = msgspec.msgpack.decode(msgspec.msgpack.encode(counters.snapshot()))
    return over_the_wire


DELIVERED: Sample = (
    "mailrail_messages_total",
    (("customer", "acme"), ("destination", "gmail"), ("event", "delivered")),
)
BUSY: Sample = ("mailrail_sessions", (("destination", "gmail"), ("state", "busy"), ("vmta", "acme-1")))


def test_page_is_the_sum_of_the_shards() -> None:
    exposition = Exposition()
    exposition.keep(0, b"aaaa", sent(shard_counters(3, sessions=2)))
    exposition.keep(1, b"bbbb", sent(shard_counters(4, sessions=1)))
    samples = read(exposition.format())
    assert samples[DELIVERED] == 7
    assert samples[BUSY] == 3
    assert samples["mailrail_queue_seconds_count", (("destination", "gmail"),)] == 7
    assert samples["mailrail_queue_seconds_sum", (("destination", "gmail"),)] == 9
    assert samples["mailrail_queue_seconds_bucket", (("destination", "gmail"), ("le", "1.0"))] == 4
    assert samples["mailrail_shard_up", (("shard", "1"),)] == 1


def test_dead_shards_totals_stay_and_its_gauges_go() -> None:
    exposition = Exposition()
    exposition.keep(0, b"aaaa", sent(shard_counters(3, sessions=2)))
    exposition.end(0)
    samples = read(exposition.format())
    assert samples[DELIVERED] == 3
    assert BUSY not in samples
    assert samples["mailrail_shard_up", (("shard", "0"),)] == 0


def test_late_answer_of_a_dead_incarnation_is_not_counted_twice() -> None:
    exposition = Exposition()
    exposition.keep(0, b"aaaa", sent(shard_counters(3)))
    exposition.keep(0, b"bbbb", sent(shard_counters(1)))
    exposition.keep(0, b"aaaa", sent(shard_counters(3)))
    assert read(exposition.format())[DELIVERED] == 4


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["count", "die", "report"])), max_size=40))
def test_no_counter_ever_falls(steps: list[tuple[int, str]]) -> None:
    exposition = Exposition()
    counts, incarnations = [0, 0, 0], [0, 0, 0]
    before: dict[Sample, float] = {}
    for shard, step in steps:
        if step == "die":
            exposition.end(shard)
            incarnations[shard] += 1
            counts[shard] = 0
        else:
            counts[shard] += step == "count"
            name = bytes([shard, incarnations[shard], 0, 0])
            exposition.keep(shard, name, sent(shard_counters(counts[shard])))
        samples = read(exposition.format())
        for sample, value in before.items():
            assert samples[sample] >= value
        before = {
            s: v for s, v in samples.items() if s[0].startswith(("mailrail_messages", "mailrail_queue"))
        }


def test_supervisors_own_counters_are_on_the_page() -> None:
    counters = Counters()
    counters.counter("mailrail_shard_restarts_total", shard="1")[0] += 2
    exposition = Exposition()
    exposition.keep(SUPERVISOR, b"", counters.snapshot())
    samples = read(exposition.format())
    assert samples["mailrail_shard_restarts_total", (("shard", "1"),)] == 2
    assert not [sample for sample in samples if sample[0] == "mailrail_shard_up"]


def test_page_names_every_metric_even_before_it_counts() -> None:
    page = Exposition().format().decode()
    for row in METRICS.values():
        assert f"# TYPE {row.name} {row.kind}\n" in page
    assert "\nmailrail_uncertain_total 0.0\n" in page


def test_shard_that_is_no_more_is_not_called_down() -> None:
    exposition = Exposition()
    exposition.keep(2, b"aaaa", sent(shard_counters(3)))
    exposition.forget(2)
    samples = read(exposition.format())
    assert samples[DELIVERED] == 3
    assert ("mailrail_shard_up", (("shard", "2"),)) not in samples
