"""Memory of single processes, and of a shard that has nothing to do.

    python -m bench.memory

RssAnon is what counts; RssFile is mostly the LMDB map, which is page cache.

Owns: the engine that it starts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.finding import Finding, run_bench
from bench.mailrail import MailrailSetup, running_mailrail

PORT = 2630
MIB = 2**20
MAX_IDLE_MIB = 60.0  # issue 2


class Resident(NamedTuple):
    """Resident memory of one process, in octets."""

    anonymous_bytes: int
    file_bytes: int


def read_resident(pid: int) -> Resident:
    """Return the memory of one process, its children not counted. Raises OSError when it is gone."""
    found = {"RssAnon": 0, "RssFile": 0}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return Resident(found["RssAnon"], found["RssFile"])


def watch_resident(pid: int, seconds: float, every_s: float = 0.5) -> Resident:
    """Return the highest figures of the next seconds."""
    highest = read_resident(pid)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(every_s)
        now = read_resident(pid)
        highest = Resident(
            max(highest.anonymous_bytes, now.anonymous_bytes), max(highest.file_bytes, now.file_bytes)
        )
    return highest


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said about the load."""
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the engine idles")


def measure(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Measure an engine with the shipped policies and nothing else."""
    setup = MailrailSetup(PORT, {}, shards=1, limits={}, has_tls=True)
    with running_mailrail(setup) as mailrail:
        shard = watch_resident(mailrail.shards[0], arguments.seconds)
        supervisor = watch_resident(mailrail.supervisor.pid, 0.0)
    note = f"RssFile {shard.file_bytes / MIB:.0f} MiB"
    yield Finding("idle shard, shipped policies", shard.anonymous_bytes / MIB, "MiB", MAX_IDLE_MIB, note=note)
    note = f"RssFile {supervisor.file_bytes / MIB:.0f} MiB"
    yield Finding("its supervisor", supervisor.anonymous_bytes / MIB, "MiB", note=note)


def main(argv: list[str] | None = None) -> int:
    """Print the findings."""
    return run_bench(__doc__, add_options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
