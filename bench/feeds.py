"""How fast mail comes in: by SMTP, by socket, by spool; and how soon a spool file is picked up.

    python -m bench.feeds
    python -m bench.feeds --messages 2000

One shard, `sync`, shipped policies, 10 kB, and a destination that does not accept, so that taking mail in is
all that the shard does. A spool file is picked up when it is accepted: from its renaming into new/ to the
instant in its event, at a rate that leaves the shard idle. Flat out, the spool's clock runs from the first
renaming until new/ and claimed/ are empty again: every message durable, every file unlinked.

Owns: a fresh engine for each feed, one at a time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.finding import Finding, run_bench, tell
from bench.mailrail import MailrailSetup, RunningMailrail, running_mailrail
from engine.rig.processes import read_cpu_s, run_source
from engine.rig.tally import summarize_latencies

PORT = 2660
CLOSED = "127.0.0.95:2661"
TIMEOUT_S = 300.0
SMTP_SESSIONS = 50
MIN_SOCKET_FACTOR = 1.3  # issue 2
MIN_SPOOL_PER_S = 2000.0  # issue 2
MAX_PICKUP_P99_MS = 100.0  # issue 2
POLL_S = 0.01

Feed = Callable[[argparse.Namespace, RunningMailrail], tuple[float, str]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said about the load."""
    parser.add_argument("--messages", type=int, default=20_000, help="by each feed")
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument(
        "--pickup-rate", type=float, default=300.0, help="files a second where latency counts"
    )
    parser.add_argument("--pickup-seconds", type=float, default=10.0)


def measure(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Measure one feed after the other."""
    smtp = yield from _measure_feed(arguments, "SMTP", _feed_smtp)
    by_socket = yield from _measure_feed(arguments, "socket", _feed_socket)
    yield Finding("socket, times SMTP", by_socket / smtp, "", MIN_SOCKET_FACTOR, is_ceiling=False)
    yield from _measure_feed(arguments, "spool", _feed_spool, MIN_SPOOL_PER_S)
    yield from _measure_pickup(arguments)


def make_setup(root: Path | str = "{root}") -> MailrailSetup:
    """Return an engine with all three feeds; socket and spool lie beside its data."""
    extra = f"""
[[listener]]
protocol = "socket"
path = "{root}/inject.sock"
customer = "bench"

[[listener]]
protocol = "spool"
path = "{root}/spool"
customer = "bench"
"""
    return MailrailSetup(PORT, {"*": CLOSED}, shards=1, limits={}, extra=extra)


def _measure_feed(
    arguments: argparse.Namespace, name: str, feed: Feed, aim: float | None = None
) -> Iterator[Finding]:
    tell(f"{arguments.messages:,} messages by {name}")
    with running_mailrail(make_setup()) as mailrail:
        (shard,) = mailrail.shards
        before, began = read_cpu_s(shard), time.monotonic()
        per_s, note = feed(arguments, mailrail)
        wall_s = time.monotonic() - began
        cpu_s = read_cpu_s(shard) - before
    cpu_us = cpu_s / arguments.messages * 1e6
    note = f"shard: {cpu_us:.0f} us CPU a message, {cpu_s / wall_s:.2f} of a core{note}"
    yield Finding(f"in by {name}", per_s, "messages/s", aim, is_ceiling=False, note=note)
    return per_s


def _feed_smtp(arguments: argparse.Namespace, mailrail: RunningMailrail) -> tuple[float, str]:  # noqa: ARG001
    load = ["--messages", str(arguments.messages), "--sessions", str(SMTP_SESSIONS)]
    load += ["--size", str(arguments.size), "--domains", "50"]
    account = run_source("--to", f"127.0.0.1:{PORT}=bench@source.example", *load)
    _check_all(account["accepted"], arguments.messages)
    latency = account["accept_latency"]
    return account["rate_per_s"], f"; accept p50 {latency['p50_ms']:.1f} ms, p99 {latency['p99_ms']:.1f} ms"


def _feed_socket(arguments: argparse.Namespace, mailrail: RunningMailrail) -> tuple[float, str]:
    account = _run_feeding("socket", mailrail.root / "inject.sock", arguments.messages, arguments.size)
    _check_all(account["accepted"], arguments.messages)
    return account["accepted"] / (account["last_at"] - account["first_at"]), ""


def _feed_spool(arguments: argparse.Namespace, mailrail: RunningMailrail) -> tuple[float, str]:
    spool = mailrail.root / "spool"
    account = _run_feeding("spool", spool, arguments.messages, arguments.size)
    _wait_empty(spool)
    elapsed = time.monotonic() - account["first_at"]
    _check_all(len(_accepted_at(mailrail.root)), arguments.messages)
    return account["accepted"] / elapsed, ""


def _measure_pickup(arguments: argparse.Namespace) -> Iterator[Finding]:
    messages = int(arguments.pickup_rate * arguments.pickup_seconds)
    tell(f"{messages:,} files at {arguments.pickup_rate:g}/s")
    with running_mailrail(make_setup()) as mailrail:
        spool = mailrail.root / "spool"
        account = _run_feeding("spool", spool, messages, arguments.size, "--rate", str(arguments.pickup_rate))
        _wait_empty(spool)
        accepted_at = _accepted_at(mailrail.root)
    _check_all(len(accepted_at), messages)
    waited = [accepted_at[recipient] - at for recipient, at in account["dropped"].items()]
    latency = summarize_latencies(waited)
    note = f"p50 {latency['p50_ms']:.2f} ms, at most {latency['max_ms']:.1f} ms"
    note += f", {arguments.pickup_rate:g} files/s"
    yield Finding("spool pick-up p99", latency["p99_ms"], "ms", MAX_PICKUP_P99_MS, note=note)


def _run_feeding(feed: str, to: Path, messages: int, size: int, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.feeding", feed, "--to", str(to)]
    command += ["--messages", str(messages), "--size", str(size), *options]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S)
    account: dict[str, Any] = json.loads(ended.stdout)
    return account


def _wait_empty(spool: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while any(path.is_file() for part in ("new", "claimed") for path in (spool / part).rglob("*")):
        if time.monotonic() > deadline:
            raise SystemExit(f"files are left in {spool} after {TIMEOUT_S:g} s")
        time.sleep(POLL_S)


def _accepted_at(root: Path) -> dict[str, float]:
    """Return when each message was accepted (Unix seconds), by its recipient, as the events say."""
    found: dict[str, float] = {}
    for path in (root / "data" / "events").glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            event = json.loads(line)
            if event["event"] == "accepted":
                found[event["recipients"][0]] = event["accepted_at"]
    return found


def _check_all(accepted: int, offered: int) -> None:
    if accepted != offered:
        raise SystemExit(f"{accepted} of {offered} messages were accepted")


def main(argv: list[str] | None = None) -> int:
    """Print the findings."""
    return run_bench(__doc__, add_options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
