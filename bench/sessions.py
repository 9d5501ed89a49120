"""Two thousand sessions at once against a sink whose replies take a second: memory of each, and the rate.

    python -m bench.sessions
    python -m bench.sessions --sessions 400 --plain

The backlog is in the store before the engine starts. Memory of a session is the growth of the shard's RssAnon
from a tenth of the sessions to all of them, under the same backlog, divided by the difference: what the
read-ahead window holds is in both. By arithmetic a session carries a message for each delay of the sink: the
next envelope goes out behind the dot, so that both are answered together.

Owns: engine and sink of one run at a time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.finding import Finding, run_bench, tell
from bench.mailrail import LIMITS, VMTAS, MailrailSetup, prepared, serving
from bench.memory import Resident, watch_resident
from bench.preload import run_preloads
from engine.rig.control import ask_sink
from engine.rig.processes import running_sink

PORT = 2640
SINK = "127.0.0.96:2641"
OPEN_TIMEOUT_S = 60.0
WARM_S = 3.0  # between the last session's opening and the figures
POLL_S = 0.2
MAX_PLAIN_KB = 30.0  # issue 2
MAX_TLS_KB = 90.0  # issue 2
MIN_SHARE = 0.9  # issue 2: the rate that the arithmetic promises, within a tenth


class Steady(NamedTuple):
    """A run once all sessions are open."""

    sessions: int
    resident: Resident
    rate_per_s: float
    opened_s: float


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said about the load."""
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds that each reply takes")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long the rate is counted")
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--plain", action="store_true", help="leave TLS out")


def measure(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Measure plain sessions, then those with TLS."""
    for has_tls in (False,) if arguments.plain else (False, True):
        few = _run(arguments, max(arguments.sessions // 10, VMTAS), has_tls)
        many = _run(arguments, arguments.sessions, has_tls)
        yield from _judge(arguments, few, many, has_tls)


def _judge(arguments: argparse.Namespace, few: Steady, many: Steady, has_tls: bool) -> Iterator[Finding]:
    name = f"{many.sessions:,} sessions{', TLS' if has_tls else ''}"
    grown = many.resident.anonymous_bytes - few.resident.anonymous_bytes
    each_kb = grown / max(many.sessions - few.sessions, 1) / 1000
    note = f"RssAnon {many.resident.anonymous_bytes / 1e6:.0f} MB, with {few.sessions} sessions "
    note += f"{few.resident.anonymous_bytes / 1e6:.0f} MB; RssFile {many.resident.file_bytes / 1e6:.0f} MB"
    aim = MAX_TLS_KB if has_tls else MAX_PLAIN_KB
    yield Finding(f"memory of one of {name}", each_kb, "kB", aim, note=note)
    promised = many.sessions / arguments.delay
    note = f"{many.rate_per_s:,.0f}/s of {promised:,.0f}/s; all were open after {many.opened_s:.1f} s"
    share = many.rate_per_s / promised
    yield Finding(f"rate of {name}, of arithmetic", share, "", MIN_SHARE, is_ceiling=False, note=note)


def _run(arguments: argparse.Namespace, sessions: int, has_tls: bool) -> Steady:
    limits = LIMITS | {"max_connections": str(sessions // VMTAS)}
    setup = MailrailSetup(PORT, {"*": SINK}, shards=1, limits=limits, has_tls=has_tls)
    messages = int(arguments.sessions * (arguments.seconds + WARM_S + 30) / arguments.delay)  # in both runs
    tell(f"{sessions} sessions{', TLS' if has_tls else ''}, {messages:,} messages")
    with prepared(setup) as root:
        load = ("--messages", str(messages), "--size", str(arguments.size), "--domains", "50")
        run_preloads([root / "data" / "shard-0"], *load)
        options = ["--listen", SINK, "--control", str(root / "sink.sock"), "--report", "/dev/null"]
        options += ["--delay", str(arguments.delay), *(["--starttls"] if has_tls else [])]
        with running_sink(*options), serving(root, setup) as mailrail:
            return _watch(arguments, root, sessions, mailrail.shards[0])


def _watch(arguments: argparse.Namespace, root: Path, sessions: int, shard: int) -> Steady:
    control = root / "sink.sock"
    began = time.monotonic()
    while ask_sink(control, {"do": "count"})["open"] < sessions:
        if time.monotonic() - began > OPEN_TIMEOUT_S:
            count = ask_sink(control, {"do": "count"})
            raise SystemExit(f"{count['open']} of {sessions} sessions opened in {OPEN_TIMEOUT_S:g} s")
        time.sleep(POLL_S)
    opened_s = time.monotonic() - began
    time.sleep(WARM_S + 4 * arguments.delay)  # EHLO, perhaps STARTTLS, the first envelope
    before, started = ask_sink(control, {"do": "count"}), time.monotonic()
    resident = watch_resident(shard, arguments.seconds)
    after, ended = ask_sink(control, {"do": "count"}), time.monotonic()
    rate_per_s = (after["unique"] - before["unique"]) / (ended - started)
    return Steady(sessions, resident, rate_per_s, opened_s)


def main(argv: list[str] | None = None) -> int:
    """Print the findings."""
    return run_bench(__doc__, add_options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
