"""What a run came to: tables and lines made from the verdict alone.

Owns: the form of the end of `mailrail demo`, for people and (as plain values) for programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.demo.configuration import Places
from engine.demo.scenario import Destination, Scenario
from engine.demo.uses import PathUse
from engine.demo.verdict import ENOUGH, Verdict
from engine.demo.watch import format_limit


def print_verdict(console: Console, scenario: Scenario, verdict: Verdict, elapsed_s: float) -> None:
    """Print what the sinks saw, and whether that is what was promised."""
    console.print()
    console.print(_source_table(verdict))
    console.print(_limit_table(scenario, verdict))
    rate = verdict.arrived / elapsed_s if elapsed_s > 0 else 0.0
    console.print(
        f"{verdict.handed_over:,} handed over, {verdict.arrived:,} arrived in {elapsed_s:.1f} s "
        f"({rate:,.0f}/s): lost {verdict.lost}, duplicates {verdict.duplicates}",
        highlight=False,
    )
    if verdict.is_good:
        console.print("[green]The sinks' account agrees with every limit and every promise.[/green]")
        return
    console.print(f"[red]The sinks' account disagrees ({len(verdict.findings)}):[/red]")
    for finding in verdict.findings:
        console.print(f"  {finding}", highlight=False, markup=False, soft_wrap=True)


def print_places(console: Console, places: Places) -> None:
    """Say where to look while everything goes on running."""
    admin = f"http://127.0.0.1:{places.admin_port}"
    rows = [
        ("configuration", str(places.config)),
        ("policies", str(places.policies / "demo.toml")),
        ("admin API", f"{admin}/status  /paths  /queues  /messages  /explain?domain=campus.example"),
        ("metrics", f"curl -s {admin}/metrics"),
        ("event log", f"tail -f {places.data}/events/*.jsonl"),
        ("engine's log", f"tail -f {places.root}/engine.log"),
        ("status", f"mailrail status -c {places.config}"),
        ("paths", f"mailrail paths -c {places.config} --destination bigmail"),
        ("explain", f"mailrail explain slowcorp.example --vmta acme-1 -c {places.config}"),
        (
            "more mail",
            f"mailrail send --from news@acme.example --to you@campus.example -c {places.config}",
        ),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print("\nThe engine and its sinks go on running until Ctrl-C. Where to look:")
    console.print(table, soft_wrap=True)


def to_values(scenario: Scenario, verdict: Verdict, elapsed_s: float) -> dict[str, Any]:
    """Return the verdict as plain values, for `--json`."""
    return {
        "is_good": verdict.is_good,
        "findings": verdict.findings,
        "handed_over": verdict.handed_over,
        "arrived": verdict.arrived,
        "lost": verdict.lost,
        "duplicates": verdict.duplicates,
        "elapsed_s": round(elapsed_s, 1),
        "sources": [row._asdict() for row in verdict.sources],
        "paths": [path._asdict() for path in verdict.paths],
        "destinations": {each.name: format_limit(each) for each in scenario.destinations},
    }


def _source_table(verdict: Verdict) -> Table:
    table = Table(title="What the sinks saw: from where", title_justify="left")
    for name in ("customer", "source", "EHLO"):
        table.add_column(name)
    table.add_column("messages", justify="right")
    last = ""
    for row in verdict.sources:
        if last and row.customer != last:
            table.add_section()
        table.add_row(row.customer or "nobody", row.source, row.ehlo, f"{row.messages:,}")
        last = row.customer
    return table


def _limit_table(scenario: Scenario, verdict: Verdict) -> Table:
    table = Table(title="What the sinks saw: the busiest path against each limit", title_justify="left")
    table.add_column("destination")
    heads = ("messages", "connections", "messages in a window", "least used", "mean", "backlog")
    for head in heads:
        table.add_column(head, justify="right")
    for destination in scenario.destinations:
        paths = [path for path in verdict.paths if path.destination == destination.name]
        table.add_row(destination.name, *_limit_row(destination, paths))
    return table


def _limit_row(destination: Destination, paths: Sequence[PathUse]) -> list[str]:
    uses = [path.used for path in paths]
    rate = destination.rate
    is_binding = rate is None
    connections = f"{max(path.highest_open for path in paths)} of {destination.max_connections}"
    window = "unlimited"
    if rate is not None:
        window = f"{max(path.highest_rate for path in paths)} of {rate.count} in {rate.window_s:g} s"
    style = "green" if min(uses) >= ENOUGH else "yellow"
    return [
        f"{sum(path.messages for path in paths):,}",
        f"[bold]{connections}[/bold]" if is_binding else connections,
        window if is_binding else f"[bold]{window}[/bold]",
        f"[{style}]{min(uses):.1%}[/{style}]",
        f"{sum(uses) / len(uses):.1%}",
        f"{max(path.backlog_s for path in paths):.0f} s",
    ]
