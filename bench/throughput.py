"""The table of `make bench`: wire, Postfix and Mailrail under one load, in one run, on one machine.

    python -m bench.throughput postfix --messages 5000      one row by itself

Per row: the sink starts, then what is measured, then the source; the run ends when the sink has seen every
accepted message (or nothing for a while). Drained messages a second count from the first message offered to
the last one seen. CPU is user and system time of all processes of the engine, children counted, in between.

Owns: rows and their figures.  See bench/postfix.py and bench/mailrail.py for the engines and what is tuned.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.mailrail import MailrailSetup, running_mailrail
from bench.postfix import PostfixSetup, running_postfix
from engine.rig.control import ask_sink
from engine.rig.processes import MemoryWatch, read_cpu_s, run_source, running_sink
from engine.rig.tally import summarize_latencies

SINK_PORT = 2610
ENGINE_PORT = 2620
STALL_S = 30.0  # nothing new at the sink for so long: the row is over, what is missing is lost
POLL_S = 0.1


@dataclass(frozen=True)
class Row:
    """One row of the table before it is measured."""

    engine: str  # wire | postfix | mailrail
    messages: int
    sessions: int = 50
    destinations: int = 1
    size: int = 10_000
    has_dkim: bool = False
    has_tls: bool = False
    durability: str = "sync"
    shards: int = 0
    rate: float = 0.0  # messages a second offered; 0 is flat out

    @property
    def load(self) -> str:
        """The load in words."""
        words = [f"{self.size // 1000} kB", f"{self.sessions} sessions", f"{self.destinations} dest"]
        words += ["DKIM"] if self.has_dkim else []
        words += ["TLS out"] if self.has_tls else []
        words += [self.durability] if self.durability != "sync" else []
        words += [f"{self.rate:g}/s offered"] if self.rate else []
        return ", ".join(words)


@dataclass(frozen=True)
class Figures:
    """What one row came to. CPU and memory are of the engine alone; 0 for the wire."""

    row: Row
    drained_per_s: float
    cpu_us: float
    anonymous_bytes: int
    file_bytes: int
    accept: dict[str, float]
    delivered: dict[str, float]
    lost: int
    duplicates: int
    refused: int

    def cells(self) -> list[str]:
        """The row as the table prints it."""
        return [
            self.row.engine,
            self.row.load,
            f"{self.drained_per_s:,.0f}",
            f"{self.cpu_us:,.0f}" if self.cpu_us else "-",
            f"{self.anonymous_bytes / 2**20:,.0f}" if self.anonymous_bytes else "-",
            f"{self.accept['p50_ms']:,.1f} / {self.accept['p99_ms']:,.1f}",
            f"{self.delivered['p50_ms']:,.1f} / {self.delivered['p99_ms']:,.1f}",
            f"{self.lost} / {self.duplicates}",
        ]

    def __str__(self) -> str:
        return "  ".join(f"{head}: {cell}" for head, cell in zip(HEADS, self.cells(), strict=True))


HEADS = (
    "engine",
    "load",
    "drained/s",
    "CPU us/msg",
    "anon MiB",
    "accept p50/p99 ms",
    "accept-to-delivered p50/p99 ms",
    "lost/dup",
)


def measure_row(row: Row) -> Figures:
    """Measure one row; everything that was started for it has ended when this returns."""
    with tempfile.TemporaryDirectory(prefix="bench-row-", dir="/var/tmp") as directory:
        root = Path(directory)
        sink_options: list[str | Path] = ["--listen", f"0.0.0.0:{SINK_PORT}", "--control", root / "sink.sock"]
        sink_options += ["--log", root / "arrivals.jsonl", "--report", root / "sink.json"]
        sink_options += ["--starttls"] if row.has_tls else []
        with running_sink(*sink_options), _engine(row) as (roots, port):
            return _drive(row, root, roots, port)


@contextlib.contextmanager
def _engine(row: Row) -> Iterator[tuple[list[int], int]]:
    """Start the engine of a row; yields its process ids and the port that takes mail."""
    hops = next_hops(row.destinations)
    if row.engine == "wire":
        yield [], SINK_PORT
    elif row.engine == "postfix":
        bracketed = {domain: f"[{host}]:{SINK_PORT}" for domain, host in hops.items()}
        with running_postfix(PostfixSetup(ENGINE_PORT, bracketed, row.has_tls, row.has_dkim)) as postfix:
            yield postfix.roots, ENGINE_PORT
    else:
        routes = {domain: f"{host}:{SINK_PORT}" for domain, host in hops.items()}
        setup = MailrailSetup(
            ENGINE_PORT,
            routes,
            shards=row.shards,
            durability=row.durability,
            has_tls=row.has_tls,
            has_dkim=row.has_dkim,
        )
        with running_mailrail(setup) as mailrail:
            yield mailrail.roots, ENGINE_PORT


def next_hops(destinations: int) -> dict[str, str]:
    """Return an address of its own for each recipient domain; the sink listens on all of 127/8."""
    return {f"d{n}.bench.example": f"127.1.{n // 250}.{n % 250 + 1}" for n in range(destinations)}


def _drive(row: Row, root: Path, roots: list[int], port: int) -> Figures:
    options: list[str | Path] = ["--to", f"127.0.0.1:{port}=bench@source.example"]
    options += ["--messages", str(row.messages), "--sessions", str(row.sessions), "--size", str(row.size)]
    options += [
        "--domains",
        str(row.destinations),
        "--accepted",
        root / "accepted.jsonl",
        "--rate",
        str(row.rate),
    ]
    options += ["--tls"] if row.has_tls and row.engine == "wire" else []
    before = sum(read_cpu_s(pid) for pid in roots)
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(MemoryWatch(pid)) for pid in roots]
        account = run_source(*options)
        count = _wait_drained(root / "sink.sock", account["accepted"])
        cpu = sum(read_cpu_s(pid) for pid in roots) - before
    time.sleep(0.3)  # the sink's log is flushed five times a second
    first_sent, delivered = _join_logs(root)
    return Figures(
        row,
        drained_per_s=count["unique"] / max(count["last_at"] - first_sent, 1e-9),
        cpu_us=cpu / max(row.messages, 1) * 1e6,
        anonymous_bytes=sum(watch.peak_bytes for watch in watches),
        file_bytes=sum(watch.peak_file_bytes for watch in watches),
        accept=account["accept_latency"],
        delivered=delivered,
        lost=account["accepted"] - count["unique"],
        duplicates=count["duplicates"],
        refused=account["refused"],
    )


def _wait_drained(control: Path, accepted: int) -> dict[str, Any]:
    """Return the sink's count when it has seen all that was accepted, or nothing new for a while."""
    count = ask_sink(control, {"do": "count"})
    moved_at = time.monotonic()
    while count["unique"] < accepted and time.monotonic() - moved_at < STALL_S:
        time.sleep(POLL_S)
        following = ask_sink(control, {"do": "count"})
        if following["unique"] != count["unique"]:
            moved_at = time.monotonic()
        count = following
    return count


def _join_logs(root: Path) -> tuple[float, dict[str, float]]:
    """Return when the first message was offered, and the latencies from acceptance to delivery."""
    accepted_at: dict[str, float] = {}
    first_sent = float("inf")
    for line in _lines(root / "accepted.jsonl"):
        accepted_at[line["id"]] = line["t"]
        first_sent = min(first_sent, line["sent"])
    waited = [
        max(line["t"] - accepted_at.pop(line["id"]), 0.0)
        for line in _lines(root / "arrivals.jsonl")
        if line["kind"] == "message" and line["taken"] and line["id"] in accepted_at
    ]
    return first_sent, summarize_latencies(waited)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def main(argv: list[str] | None = None) -> int:
    """Measure one row and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__.split("\n")[0])
    parser.add_argument("engine", choices=("wire", "postfix", "mailrail"))
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--destinations", type=int, default=1)
    parser.add_argument("--dkim", action="store_true", dest="has_dkim")
    parser.add_argument("--tls", action="store_true", dest="has_tls")
    print(measure_row(Row(**vars(parser.parse_args(argv)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
