"""What a bench found: a figure, what the issue asks of it, and the table of both.

Owns: how findings, the machine and the date are printed and written as JSON.
Never: measures; ends with another status because a figure is missed (a bench is no test).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

AddOptions = Callable[[argparse.ArgumentParser], None]
Measure = Callable[[argparse.Namespace], "Iterator[Finding]"]


@dataclass(frozen=True)
class Finding:
    """One figure. `aim` is in the unit of `value`; `is_ceiling` says on which side of it is well."""

    what: str
    value: float
    unit: str
    aim: float | None = None
    is_ceiling: bool = True
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is met; None where there is none."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.is_ceiling else self.value >= self.aim

    def cells(self) -> list[str]:
        """The finding as the table prints it."""
        aim = "" if self.aim is None else f"{'at most' if self.is_ceiling else 'at least'} {self.aim:g}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.is_met]
        return [self.what, f"{_format_value(self.value)} {self.unit}".rstrip(), aim, verdict, self.note]


def _format_value(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_findings(findings: Iterable[Finding]) -> str:
    """Return findings as a table, columns aligned."""
    rows = [["what", "figure", "aim", "", ""], *(finding.cells() for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = [_align(row, widths) for row in rows]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def _align(row: list[str], widths: list[int]) -> str:
    return "  ".join(
        cell.rjust(width) if column == 1 else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()


def describe(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain values, for JSON."""
    return dataclasses.asdict(finding) | {"is_met": finding.is_met}


def run_bench(doc: str, add_options: AddOptions, measure: Measure, argv: list[str] | None) -> int:
    """Run one bench as a program: its options, its table, its JSON."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the findings as JSON, too")
    arguments = parser.parse_args(argv)
    machine = format_machine()
    print(machine, flush=True)
    findings = list(measure(arguments))
    print("\n" + format_findings(findings))
    if arguments.json:
        page = {"machine": machine, "findings": [describe(finding) for finding in findings]}
        arguments.json.write_text(json.dumps(page, indent=1) + "\n")
    return 0


def default_arguments(add_options: AddOptions) -> argparse.Namespace:
    """Return what a bench's options are when nothing is said."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args([])


def tell(text: str) -> None:
    """Say on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def format_machine() -> str:
    """Return one line about the machine, the software and the date."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores = Path("/proc/cpuinfo").read_text().count("processor\t")
    words = [
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        f"{cores} x {cpu}",
        f"Linux {platform.release()}",
    ]
    words += [f"Python {platform.python_version()}", f"uvloop {version('uvloop')}", f"load {_load_average()}"]
    words.append(f"data on {_file_system('/var/tmp')}")
    return " · ".join(words)


def _load_average() -> str:
    return Path("/proc/loadavg").read_text().split()[0]


def _file_system(path: str) -> str:
    best = ("", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if Path(path).is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]
