"""What the kernel counts of this process: CPU time and anonymous memory, as metrics.

The store's map shows in the resident size, being page cache; anonymous memory is what we really hold.
"""

from __future__ import annotations

import resource

from engine.telemetry.log import suppressed_lines
from engine.telemetry.metrics import Counters


def watch_process(counters: Counters, process: str) -> None:
    """Have every snapshot of `counters` carry this process's vitals, as `process`."""
    name = (process,)
    counters.watch("mailrail_anonymous_bytes", lambda: {name: read_anonymous_bytes()})
    counters.watch("mailrail_cpu_seconds_total", lambda: {name: read_cpu_s()})
    counters.watch("mailrail_log_lines_suppressed_total", lambda: {(): suppressed_lines()})


def read_anonymous_bytes() -> int:
    """Return RssAnon of proc(5), which says kB there."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def read_cpu_s() -> float:
    """Return user and system time since the process began."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
