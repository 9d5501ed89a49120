"""What the kernel counts of this process."""

from __future__ import annotations

import mmap
import os

from engine.control.vitals import read_anonymous_bytes, read_cpu_s, watch_process
from engine.telemetry.metrics import Counters


def test_anonymous_memory_grows_by_what_is_touched():
    before = read_anonymous_bytes()
    # Mapped here: what malloc gives may have been touched by a test before this one.
    with mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(os.urandom(8 << 20))
        assert read_anonymous_bytes() - before > 4 << 20


def test_cpu_time_never_falls():
    before = read_cpu_s()
    sum(range(200_000))
    assert read_cpu_s() >= before > 0


def test_a_snapshot_carries_the_vitals_under_the_name_of_the_process():
    counters = Counters()
    watch_process(counters, "shard-7")
    snapshot = counters.snapshot()
    rows = {name: labels for name, labels, _ in [*snapshot["gauges"], *snapshot["counters"]]}
    assert rows["mailrail_anonymous_bytes"] == ["shard-7"]
    assert rows["mailrail_cpu_seconds_total"] == ["shard-7"]
