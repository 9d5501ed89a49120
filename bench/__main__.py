"""`python -m bench`: the table of the page on speed, then every other bench, in one run on one machine.

    python -m bench                          everything, about half an hour
    python -m bench --quick                  a tenth of the messages: does it run?
    python -m bench --rows a --only mailrail one engine's rows of the table
    python -m bench --only backlog,sessions  other benches by name

Owns: which rows there are and how they are printed.  See bench/throughput.py for how a row is measured, and
the docstring of each other bench for what it does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import backlog, feeds, latency, mailrail, memory, postfix, scaling, sessions, tls_resumption
from bench.calibrate import measure_pairs
from bench.finding import Finding, default_arguments, describe, format_findings, format_machine, tell
from bench.stages.__main__ import main as run_stages
from bench.throughput import HEADS, Figures, Row, measure_row

WIRE_FACTOR = 4  # the wire is so much faster that the same count would be over in half a second
ENGINES = ("wire", "postfix", "mailrail")  # of the table
BENCHES = {
    "memory": memory,
    "backlog": backlog,
    "sessions": sessions,
    "scaling": scaling,
    "feeds": feeds,
    "latency": latency,
    "tls_resumption": tls_resumption,
}
STAGES = "stages"
QUICK_DIVISOR = 10
SESSIONS = (50, 100)  # issue 2
LARGE_DIVISOR = 5  # rows of 100 kB carry a fifth of the messages


def make_rows(rows: str, messages: int) -> list[Row]:
    """Return the rows of the table; `rows`: letters of the groups wanted."""
    wanted: list[Row] = []
    for group, make in (("a", _rows_a), ("b", _rows_b), ("c", _rows_c), ("d", _rows_d), ("e", _rows_e)):
        if group in rows:
            wanted += make(messages)
    return wanted


def _rows_a(messages: int) -> list[Row]:
    """Return shipped policies, events and metrics on, `sync`: one destination, and 500."""
    rows = [Row("wire", messages * WIRE_FACTOR, sessions=count) for count in SESSIONS]
    for destinations in (1, 500):
        for count in SESSIONS:
            rows += _both(Row("", messages, sessions=count, destinations=destinations))
    return rows


def _rows_b(messages: int) -> list[Row]:
    return _both(Row("", messages, has_dkim=True)) + _both(Row("", messages, destinations=500, has_dkim=True))


def _rows_c(messages: int) -> list[Row]:
    return [Row("wire", messages * WIRE_FACTOR, has_tls=True), *_both(Row("", messages, has_tls=True))]


def _rows_d(messages: int) -> list[Row]:
    count = messages // LARGE_DIVISOR
    return [Row("wire", count * WIRE_FACTOR, size=100_000), *_both(Row("", count, size=100_000))]


def _rows_e(messages: int) -> list[Row]:
    return [
        Row("mailrail", messages, durability="async", destinations=destinations) for destinations in (1, 500)
    ]


def _both(row: Row) -> list[Row]:
    return [dataclasses.replace(row, engine=engine) for engine in ("postfix", "mailrail")]


def format_table(figures: list[Figures]) -> str:
    """Return the table as text, columns aligned."""
    lines = [list(HEADS), *(figure.cells() for figure in figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    texts = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def format_verdicts(figures: list[Figures]) -> Iterator[str]:
    """Yield how Mailrail compares, for each load that Postfix carried too."""
    by_load = {(figure.row.engine, figure.row.load): figure for figure in figures}
    wires = {figure.row.sessions: figure for figure in figures if figure.row == _plain_wire(figure.row)}
    for (engine, load), ours in by_load.items():
        theirs = by_load.get(("postfix", load))
        if engine != "mailrail" or theirs is None:
            continue
        words = f"{load}: {ours.drained_per_s / theirs.drained_per_s:.1f} times Postfix"
        if ours.cpu_us:
            words += f", CPU a message 1/{theirs.cpu_us / ours.cpu_us:.1f} of Postfix's"
        wire = wires.get(ours.row.sessions)
        if wire is not None and ours.row.size == wire.row.size and not ours.row.has_tls:
            words += f", {ours.drained_per_s / wire.drained_per_s:.2f} of the wire (source to sink)"
        yield words


def _plain_wire(row: Row) -> Row:
    return Row("wire", row.messages, sessions=row.sessions)


def format_tuning() -> Iterator[str]:
    """Yield what differs from what each engine ships with."""
    yield "Postfix differs from Debian's defaults by (its queue file is synced before 250, as shipped):"
    yield "    " + " · ".join(f"{name}={value}" for name, value in postfix.TUNING.items() if value)
    yield f"Mailrail differs from its shipped policies by limits only ({mailrail.VMTAS} vmtas in one pool):"
    yield "    " + " · ".join(f"{name}={value}" for name, value in mailrail.LIMITS.items())


def main(argv: list[str] | None = None) -> int:
    """Print the table and the findings; exit 1 if a row of the table lost a message."""
    arguments = _parse(argv)
    wanted = set(arguments.only.split(","))
    machine = format_machine()
    print(machine, flush=True)
    figures = _print_table(arguments, wanted & {*ENGINES}) if wanted & {*ENGINES} else []
    findings = {name: _measure_bench(name, arguments.quick) for name in BENCHES if name in wanted}
    if STAGES in wanted:
        run_stages([])
    if arguments.json:
        page = {
            "machine": machine,
            "table": [dataclasses.asdict(figure) for figure in figures],
            "findings": {name: [describe(each) for each in found] for name, found in findings.items()},
        }
        arguments.json.write_text(json.dumps(page, indent=1) + "\n")
    return 1 if any(figure.lost for figure in figures) else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    names = [*ENGINES, *BENCHES, STAGES]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=20_000, help="of each row (the wire carries more)")
    parser.add_argument("--rows", default="abcde", help="groups: a plain, b DKIM, c TLS, d 100 kB, e async")
    parser.add_argument("--only", default=",".join(names), help="engines of the table and other benches")
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    parser.add_argument("--no-pairs", action="store_true", help="leave out the pairs of sources and sinks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures as JSON, too")
    arguments = parser.parse_args(argv)
    unknown = {*arguments.only.split(",")} - {*names}
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))} unknown, there are {', '.join(names)}")
    return arguments


def _print_table(arguments: argparse.Namespace, engines: set[str]) -> list[Figures]:
    messages = arguments.messages // QUICK_DIVISOR if arguments.quick else arguments.messages
    if "postfix" in engines and not postfix.is_postfix_here():
        tell("Postfix's rows are left out: they need root and Debian's package postfix")
        engines.discard("postfix")
    figures = _measure(make_rows(arguments.rows, messages), engines)
    print("\n" + format_table(figures) + "\n")
    for line in (*format_verdicts(figures), *format_tuning()):
        print(line)
    if not arguments.no_pairs:
        _print_pairs(messages)
    return figures


def _measure_bench(name: str, is_quick: bool) -> list[Finding]:
    """Run one of the other benches with its own defaults and print what it found."""
    bench = BENCHES[name]
    arguments = default_arguments(bench.add_options)
    if is_quick:
        for count in {"messages", "queues", "sessions"} & {*vars(arguments)}:
            setattr(arguments, count, getattr(arguments, count) // QUICK_DIVISOR)
    tell(f"bench {name}")
    found = list(bench.measure(arguments))
    print(f"\n{name}: {(bench.__doc__ or '').splitlines()[0]}\n{format_findings(found)}", flush=True)
    return found


def _measure(rows: list[Row], engines: set[str]) -> list[Figures]:
    figures: list[Figures] = []
    for row in rows:
        if row.engine in engines:
            print(
                f"measuring {row.engine}: {row.load}, {row.messages:,} messages", file=sys.stderr, flush=True
            )
            figures.append(measure_row(row))
    return figures


def _print_pairs(messages: int) -> None:
    print("\nPairs of source and sink, nothing between, 50 sessions, 10 kB:")
    for pair in measure_pairs(messages, 50, 10_000):
        print(f"    {pair}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
