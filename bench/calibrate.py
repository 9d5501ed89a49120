"""Source and sink against Postfix's smtp-source and smtp-sink: the wire figure of each pair.

    python -m bench.calibrate --messages 20000 --sessions 50 --size 10000

A pair's figure is messages a second, by the clock around the sending process, start-up included where the
stranger offers nothing better. smtp-source speaks one command at a time and opens a connection per message
unless told -d; smtp-sink stops at 256 clients unless told -m. Neither knows CHUNKING or STARTTLS.

Owns: its four processes, one pair at a time; nothing is left running.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from engine.rig.processes import read_cpu_s, run_source, running, running_sink, wait_port

HOST = "127.0.0.9"


VARIANTS = ((), ("--no-behind",), ("--lockstep",), ("--bdat",), ("--tls",))
STRANGER_VARIANTS = ((), ("--no-behind",), ("--lockstep",))


@dataclass(frozen=True)
class Load:
    """What each pair carries."""

    messages: int
    sessions: int
    size: int


@dataclass(frozen=True)
class PairFigure:
    """What one pair of source and sink did."""

    source: str
    sink: str
    per_s: float
    sink_cpu_us: float

    def __str__(self) -> str:
        pair = f"{self.source:<20} -> {self.sink:<10}"
        return f"{pair} {self.per_s:>9,.0f}/s   sink {self.sink_cpu_us:>6.1f} us CPU a message"


def find_stranger(name: str) -> str | None:
    """Return the path of a Postfix test program, or None."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")


def measure_pairs(messages: int, sessions: int, size: int, port: int = 2690) -> Iterator[PairFigure]:
    """Run all pairs, one after the other; those of missing strangers are left out."""
    load = Load(messages, sessions, size)
    for number, options in enumerate(VARIANTS):
        yield _own_pair(options, load, port + number)
    port += len(VARIANTS)
    smtp_source, smtp_sink = find_stranger("smtp-source"), find_stranger("smtp-sink")
    if smtp_source:
        yield _stranger_source(smtp_source, load, port)
    if smtp_sink:
        for number, options in enumerate(STRANGER_VARIANTS, 1):
            yield _stranger_sink(smtp_sink, options, load, port + number)
    if smtp_source and smtp_sink:
        yield _strangers(smtp_source, smtp_sink, load, port + len(STRANGER_VARIANTS) + 1)


def _own_pair(options: tuple[str, ...], load: Load, port: int) -> PairFigure:
    with running_sink("--listen", f"{HOST}:{port}", "--starttls", "--report", "/dev/null") as sink:
        before = read_cpu_s(sink.pid)
        per_s = _run_own_source(options, load, port)
        cpu = read_cpu_s(sink.pid) - before
    return PairFigure(" ".join(("source", *options)), "sink", per_s, cpu / load.messages * 1e6)


def _stranger_source(program: str, load: Load, port: int) -> PairFigure:
    with running_sink("--listen", f"{HOST}:{port}", "--report", "/dev/null") as sink:
        before = read_cpu_s(sink.pid)
        per_s = _run_smtp_source(program, load, port)
        cpu = read_cpu_s(sink.pid) - before
    return PairFigure("smtp-source -d", "sink", per_s, cpu / load.messages * 1e6)


def _stranger_sink(program: str, options: tuple[str, ...], load: Load, port: int) -> PairFigure:
    with running(smtp_sink_arguments(program, port)) as sink:
        wait_port(HOST, port, 10)
        before = read_cpu_s(sink.pid)
        per_s = _run_own_source(options, load, port)
        cpu = read_cpu_s(sink.pid) - before
    return PairFigure(" ".join(("source", *options)), "smtp-sink", per_s, cpu / load.messages * 1e6)


def _strangers(source: str, sink: str, load: Load, port: int) -> PairFigure:
    with running(smtp_sink_arguments(sink, port)) as process:
        wait_port(HOST, port, 10)
        before = read_cpu_s(process.pid)
        per_s = _run_smtp_source(source, load, port)
        cpu = read_cpu_s(process.pid) - before
    return PairFigure("smtp-source -d", "smtp-sink", per_s, cpu / load.messages * 1e6)


def smtp_sink_arguments(program: str, port: int) -> list[str]:
    """Return the command of a smtp-sink; root must give up being root, and it leaves counting to us."""
    as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return [program, *as_user, "-m", "4000", f"inet:{HOST}:{port}", "4000"]


def _run_own_source(options: tuple[str, ...], load: Load, port: int) -> float:
    size = ("--messages", str(load.messages), "--sessions", str(load.sessions), "--size", str(load.size))
    account = run_source("--to", f"{HOST}:{port}", *size, *options)
    if account["accepted"] != load.messages:
        raise RuntimeError(
            f"source: {account['accepted']} of {load.messages} were accepted: {account['codes']}"
        )
    return float(account["rate_per_s"])


def _run_smtp_source(program: str, load: Load, port: int) -> float:
    """Return the messages a second of smtp-source; -d keeps its connections."""
    arguments = [program, "-d", "-s", str(load.sessions), "-m", str(load.messages), "-l", str(load.size)]
    arguments += ["-f", "bench@source.example", "-t", "u@d0.bench.example", f"inet:{HOST}:{port}"]
    started = time.monotonic()
    subprocess.run(arguments, check=True, timeout=300, stdout=subprocess.DEVNULL)
    return load.messages / (time.monotonic() - started)


def main(argv: list[str] | None = None) -> int:
    """Print the figures of all pairs."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibrate", description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--size", type=int, default=10_000)
    arguments = parser.parse_args(argv)
    for figure in measure_pairs(arguments.messages, arguments.sessions, arguments.size):
        print(figure, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
