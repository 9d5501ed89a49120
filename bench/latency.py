"""Five connections allowed, each reply leaving 50 ms after its command arrived: Mailrail against Postfix.

    python -m bench.latency

Both get the same backlog by SMTP and one destination. Postfix has its connection cache; its client knows no
CHUNKING. Mailrail speaks DATA with the next envelope behind the dot to a sink without CHUNKING, and
BDAT to one that does, with one, two and four transactions outstanding. What counts is the middle of the run,
from a tenth to nine tenths of the messages, at the sink.

Owns: engine and sink of one run at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.finding import Finding, run_bench, tell
from bench.mailrail import LIMITS, MailrailSetup, running_mailrail
from bench.postfix import TUNING, PostfixSetup, is_postfix_here, running_postfix
from bench.watching import wait_seen
from engine.rig.control import ask_sink
from engine.rig.processes import run_source, running_sink

PORT = 2670
SINK_HOST, SINK_PORT = "127.1.0.1", 2672
DOMAIN = "d0.bench.example"
POLL_S = 0.02
FIRST_SHARE, LAST_SHARE = 0.1, 0.9


class Way(NamedTuple):
    """How Mailrail speaks, and how many times Postfix's rate that must come to."""

    name: str
    has_chunking: bool
    outstanding: int
    min_factor: float | None


WAYS = (
    Way("DATA", False, 1, 1.8),
    Way("BDAT", True, 1, 1.8),
    Way("BDAT, two outstanding", True, 2, 3.5),
    Way("BDAT, four outstanding", True, 4, None),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said about the load."""
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=5)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--size", type=int, default=10_000)


def measure(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Measure Postfix, where it is, then Mailrail."""
    theirs = 0.0
    if is_postfix_here():
        theirs = _run(arguments, None)
        yield Finding("Postfix", theirs, "messages/s", note=_describe(arguments))
    for way in WAYS:
        ours = _run(arguments, way)
        yield Finding(f"Mailrail, {way.name}", ours, "messages/s", note=_describe(arguments))
        if theirs and way.min_factor is not None:
            yield Finding(f"{way.name}, times Postfix", ours / theirs, "", way.min_factor, is_ceiling=False)


def _describe(arguments: argparse.Namespace) -> str:
    return f"{arguments.connections} connections, {arguments.delay * 1000:g} ms a reply"


def _run(arguments: argparse.Namespace, way: Way | None) -> float:
    """Return Mailrail's rate, or (None) Postfix's."""
    engine = "postfix" if way is None else f"mailrail, {way.name}"
    tell(f"{engine}: {arguments.messages:,} messages")
    with tempfile.TemporaryDirectory(prefix="bench-latency-", dir="/var/tmp") as directory:
        control = Path(directory) / "sink.sock"
        options: list[str | Path] = ["--listen", f"{SINK_HOST}:{SINK_PORT}", "--control", control]
        options += ["--report", "/dev/null", "--delay", str(arguments.delay)]
        options += [] if way is not None and way.has_chunking else ["--no-chunking"]
        with running_sink(*options), _engine(way, arguments.connections):
            load = ["--messages", str(arguments.messages), "--size", str(arguments.size)]
            account = run_source("--to", f"127.0.0.1:{PORT}=bench@source.example", *load)
            if account["accepted"] != arguments.messages:
                raise SystemExit(f"{engine} accepted {account['accepted']} of {arguments.messages}")
            rate_per_s = _watch(control, arguments.messages)
            peak = ask_sink(control, {"do": "report"})["connections"]["peak"]
    if peak > arguments.connections:
        raise SystemExit(f"{engine} had {peak} connections, {arguments.connections} are allowed")
    return rate_per_s


def _engine(way: Way | None, connections: int) -> contextlib.AbstractContextManager[object]:
    if way is None:
        tuning = TUNING | {
            "default_destination_concurrency_limit": str(connections),
            "initial_destination_concurrency": str(connections),
        }
        return running_postfix(PostfixSetup(PORT, {DOMAIN: f"[{SINK_HOST}]:{SINK_PORT}"}, tuning=tuning))
    limits = LIMITS | {"max_connections": str(connections), "outstanding": str(way.outstanding)}
    hops = {DOMAIN: f"{SINK_HOST}:{SINK_PORT}"}
    return running_mailrail(MailrailSetup(PORT, hops, vmtas=1, shards=1, limits=limits))


def _watch(control: Path, messages: int) -> float:
    """Return messages a second in the middle of the run, as the sink reads them."""
    began, first = wait_seen(control, messages * FIRST_SHARE, POLL_S)
    ended, last = wait_seen(control, messages * LAST_SHARE, POLL_S)
    return (last - first) / (ended - began)


def main(argv: list[str] | None = None) -> int:
    """Print the findings."""
    return run_bench(__doc__, add_options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
