"""One, two and three shards, each on 30 % of a core: how much faster does the engine drain a backlog?

    python -m bench.scaling
    python -m bench.scaling --messages 5000 --shards 1 --shards 2

The backlog is written into the stores of the shards that do not run yet, in equal parts; then the sink is
ready, the engine starts, and each shard gets its limit while it is still quiet. What counts is the middle of
the run: from a fifth to four fifths of the messages, at the sink.

Owns: engine and sink of one run at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.core_share import describe_way, limited
from bench.finding import Finding, run_bench, tell
from bench.mailrail import MailrailSetup, RunningMailrail, prepared, serving
from bench.preload import run_preloads
from bench.watching import wait_seen
from engine.rig.processes import read_cpu_s, running_sink

PORT = 2650
SINK_PORT = 2651
POLL_S = 0.05
FIRST_SHARE, LAST_SHARE = 0.2, 0.8
MIN_FACTORS = {2: 1.8, 3: 2.6}  # issue 2


class Drain(NamedTuple):
    """The middle of one run."""

    rate_per_s: float
    core_shares: list[float]  # of a core, by shard
    sink_share: float


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said about the load."""
    parser.add_argument("--messages", type=int, default=40_000, help="of each shard")
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--domains", type=int, default=50)
    parser.add_argument("--share", type=float, default=0.3, help="of a core, for each shard")
    parser.add_argument("--shards", type=int, action="append", help="repeatable (1, 2 and 3)")


def measure(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Measure one number of shards after the other."""
    tell(f"limits by {describe_way()}")
    alone = 0.0
    for shards in arguments.shards or (1, 2, 3):
        drain = _run(arguments, shards)
        alone = alone or drain.rate_per_s
        shares = " ".join(f"{share:.2f}" for share in drain.core_shares)
        note = f"cores used: {shares}; by the sink {drain.sink_share:.2f}"
        yield Finding(f"{shards} shard{'s' if shards > 1 else ''} drain", drain.rate_per_s, "/s", note=note)
        if shards > 1:
            note = "" if shards in MIN_FACTORS else "no aim"
            yield Finding(
                f"{shards} shards, times one",
                drain.rate_per_s / alone,
                "",
                MIN_FACTORS.get(shards),
                is_ceiling=False,
                note=f"{note} {describe_way()}".strip(),
            )


def _run(arguments: argparse.Namespace, shards: int) -> Drain:
    routes = {f"d{n}.bench.example": f"127.1.0.{n + 1}:{SINK_PORT}" for n in range(arguments.domains)}
    setup = MailrailSetup(PORT, routes, shards=shards, vmtas=30)  # dealt evenly to 1, 2 and 3
    tell(f"{shards} shards, {arguments.messages:,} messages each")
    with prepared(setup) as root:
        stores = [root / "data" / f"shard-{number}" for number in range(shards)]
        load = ("--messages", str(arguments.messages), "--size", str(arguments.size))
        run_preloads(stores, *load, "--domains", str(arguments.domains))
        options = [
            "--listen",
            f"0.0.0.0:{SINK_PORT}",
            "--control",
            root / "sink.sock",
            "--report",
            "/dev/null",
        ]
        with (
            running_sink(*options) as sink,
            contextlib.ExitStack() as limits,  # they end after their processes
            serving(root, setup) as mailrail,
        ):
            for pid in mailrail.shards:
                limits.enter_context(limited(pid, arguments.share))
            return _watch(root, mailrail, sink.pid, arguments.messages * shards)


def _watch(root: Path, mailrail: RunningMailrail, sink: int, messages: int) -> Drain:
    control = root / "sink.sock"
    pids = [*mailrail.shards, sink]
    began, first = wait_seen(control, messages * FIRST_SHARE, POLL_S)
    cpu = [read_cpu_s(pid) for pid in pids]
    ended, last = wait_seen(control, messages * LAST_SHARE, POLL_S)
    shares = [(read_cpu_s(pid) - before) / (ended - began) for pid, before in zip(pids, cpu, strict=True)]
    return Drain((last - first) / (ended - began), shares[:-1], shares[-1])


def main(argv: list[str] | None = None) -> int:
    """Print the findings."""
    return run_bench(__doc__, add_options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
