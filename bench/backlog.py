"""A million messages that wait for destinations that do not accept, in one shard: memory, and a restart.

    python -m bench.backlog
    python -m bench.backlog --messages 50000 --queues 10000

Two backlogs, one after the other: all domains at one site (a closed port behind the route "*"), and the
same at 2,000 sites (2,000 closed addresses). The growth is the highest RssAnon of the shard in the minute
after the start, over an idle shard with the same configuration. Then, for each position (`--position`), the
engine is stopped; messages for a destination that does accept join the backlog, younger than all others or in
the middle of them (the note says at which of the due queues theirs stands); and from the start of the engine
the clock runs until the sink has the first of them, the two seconds included in which a started shard does
not connect to a destination that it knows nothing of.

Owns: engine, sink and data of one backlog at a time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.finding import Finding, run_bench, tell
from bench.mailrail import MailrailSetup, prepared, serving
from bench.memory import MIB, Resident, watch_resident
from bench.preload import run_preloads
from engine.rig.control import ask_sink
from engine.rig.processes import running_sink
from engine.store.environment import Environment, StoreOptions
from engine.store.reading import Reading
from engine.store.records import parse_queue

PORT = 2632
CLOSED_PORT = 2634
# A destination of its own for each position: of one that was met just before, a start would know more.
SINKS = {"youngest": "127.0.0.98:2633", "middle": "127.0.0.99:2633"}
ACCEPTING_MESSAGES = 20
IDLE_S = 5.0
BACKLOG_AGE_S = 600.0
FIRST_TIMEOUT_S = 120.0
MAX_GROWTH_MIB = 150.0  # issue 2
MAX_FIRST_S = 3.0  # issue 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said about the load."""
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--queues", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument(
        "--sites", type=int, action="append", metavar="N", help="repeatable (1 and 2000): a backlog each"
    )
    parser.add_argument(
        "--position", choices=SINKS, action="append", help="of what is accepted (repeatable; each of them)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the backlog is watched")


def measure(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Measure one backlog after the other."""
    for sites in arguments.sites or (1, 2000):
        yield from _measure_backlog(arguments, sites)


def make_routes(sites: int) -> dict[str, str]:
    """Return closed addresses by domain pattern, and the destinations that accept."""
    routes = {"*": f"127.0.0.97:{CLOSED_PORT}"}
    if sites > 1:
        routes |= {
            f"*.s{n}.bench.example": f"127.2.{n // 250}.{n % 250 + 1}:{CLOSED_PORT}" for n in range(sites)
        }
    return routes | {accepting(position): sink for position, sink in SINKS.items()}


def accepting(position: str) -> str:
    """Return the domain that accepts, of the messages at that position."""
    return f"{position}.open.bench.example"


def _measure_backlog(arguments: argparse.Namespace, sites: int) -> Iterator[Finding]:
    setup = MailrailSetup(PORT, make_routes(sites), shards=1, limits={})  # shipped policies, no TLS
    name = f"{sites:,} site{'s' if sites > 1 else ''}"
    with prepared(setup) as root:
        with serving(root, setup) as mailrail:
            idle = watch_resident(mailrail.shards[0], IDLE_S)
        load = ["--domain-format", "d{0}.s{1}.bench.example", "--domains", str(arguments.queues)]
        load += ["--sites", str(sites), "--size", str(arguments.size), "--age", str(BACKLOG_AGE_S)]
        store = root / "data" / "shard-0"
        tell(f"loading {arguments.messages:,} messages in {arguments.queues:,} queues at {name}")
        seconds = run_preloads([store], "--messages", str(arguments.messages), *load)
        tell(f"loaded in {seconds:.0f} s; watching for {arguments.seconds:g} s")
        with serving(root, setup) as mailrail:
            full = watch_resident(mailrail.shards[0], arguments.seconds)
        yield _growth(name, idle, full)
        for position in arguments.position or SINKS:
            place = _load_accepting(store, position, arguments.size)
            yield _measure_restart(root, setup, position, f"first message after a restart, {name}", place)


def _growth(name: str, idle: Resident, full: Resident) -> Finding:
    grown = (full.anonymous_bytes - idle.anonymous_bytes) / MIB
    note = f"from {idle.anonymous_bytes / MIB:.0f} MiB; RssFile {full.file_bytes / MIB:,.0f} MiB"
    return Finding(f"growth of a shard, {name}", grown, "MiB", MAX_GROWTH_MIB, note=note)


def _load_accepting(store: Path, position: str, size: int) -> str:
    """Add the messages that are accepted; return where their queue stands, in words."""
    at = 0.0 if position == "youngest" else _due_queues(store)[1]
    options = ["--domain-format", accepting(position), "--run", position, "--size", str(size)]
    run_preloads([store], "--messages", str(ACCEPTING_MESSAGES), "--accepted-at", str(at), *options)
    queues, _, rank = _due_queues(store, accepting(position))
    return f"queue {rank:,} of {queues:,}"


def _due_queues(store: Path, domain: str = "") -> tuple[int, float, int]:
    """Return how many queues are due, since when the middle one is (Unix), and where a domain stands."""
    environment = Environment(store, StoreOptions())
    environment.open()
    try:
        heads = Reading(environment, {}, [], time.time).due_queues(b"", int(time.time() * 1000), 1 << 40)
    finally:
        environment.close()
    place = next((n for n, (_, queue) in enumerate(heads, 1) if parse_queue(queue)[1] == domain), 0)
    return len(heads), heads[len(heads) // 2][0] / 1000, place


def _measure_restart(root: Path, setup: MailrailSetup, position: str, what: str, place: str) -> Finding:
    control = root / f"{position}.sock"
    with running_sink("--listen", SINKS[position], "--control", control, "--report", "/dev/null"):
        began = time.monotonic()
        with serving(root, setup):
            greeted_s = time.monotonic() - began
            first_at = _wait_first(control)
    what += f", {position}"
    if not first_at:
        return Finding(what, FIRST_TIMEOUT_S, "s", MAX_FIRST_S, note="none came in that time")
    note = f"{place}; SMTP greeted after {greeted_s:.2f} s"
    return Finding(what, first_at - began, "s", MAX_FIRST_S, note=note)


def _wait_first(control: Path) -> float:
    """Return when the sink read the first message (monotonic); 0 if none comes."""
    deadline = time.monotonic() + FIRST_TIMEOUT_S
    while time.monotonic() < deadline:
        if ask_sink(control, {"do": "count"})["unique"]:
            return float(ask_sink(control, {"do": "report"})["first_at"])
        time.sleep(0.05)
    return 0.0


def main(argv: list[str] | None = None) -> int:
    """Print the findings."""
    return run_bench(__doc__, add_options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
