"""How a run goes, while it goes: a live view on a terminal, a line now and then elsewhere.

Owns: what is shown.  What arrived is the sinks' word, what is held the engine's.
Never: asks anybody (run brings a `Moment`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 5.0  # where there is no terminal
SHOWN_REASONS = 4


class CustomerMoment(NamedTuple):
    """How far a customer's mail is."""

    name: str
    feed: str
    handed_over: int
    arrived: int
    total: int


class DestinationMoment(NamedTuple):
    """What one destination sees now."""

    name: str
    limit: str  # per path
    sessions: int
    max_sessions: int  # over all paths
    rate_per_s: float
    allowed_per_s: float  # over all paths
    arrived: int


class Moment(NamedTuple):
    """What is known at one instant of a run."""

    elapsed_s: float
    rate_per_s: float
    stored: int
    customers: list[CustomerMoment]
    destinations: list[DestinationMoment]
    reasons: Mapping[str, int]  # why paths wait -> how many paths

    @property
    def arrived(self) -> int:
        return sum(customer.arrived for customer in self.customers)

    @property
    def handed_over(self) -> int:
        return sum(customer.handed_over for customer in self.customers)

    @property
    def total(self) -> int:
        return sum(customer.total for customer in self.customers)


class Progress:
    """Shows moments on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._line_at = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            with contextlib.suppress(Exception):  # a terminal that is gone must not hide why
                self._live.stop()

    def say(self, text: str) -> None:
        """Say what is being done."""
        self._console.print(text, highlight=False)

    def show(self, moment: Moment) -> None:
        """Show a moment."""
        if self._live is not None:
            self._live.update(render(moment), refresh=True)
        elif moment.elapsed_s >= self._line_at:
            self._line_at = moment.elapsed_s + LINE_EVERY_S
            self._console.print(format_line(moment), highlight=False, soft_wrap=True)


def format_line(moment: Moment) -> str:
    """Return a moment in one line."""
    sessions = sum(destination.sessions for destination in moment.destinations)
    return (
        f"{moment.elapsed_s:5.1f} s  handed over {moment.handed_over:,}  arrived {moment.arrived:,} "
        f"of {moment.total:,}  {moment.rate_per_s:,.0f}/s  {sessions} sessions"
    )


def render(moment: Moment) -> RenderableType:
    """Return the live view of a moment."""
    head = Text.assemble(
        (f"{moment.arrived:,}", "bold"),
        f" of {moment.total:,} messages have reached the sinks, ",
        (f"{moment.rate_per_s:,.0f}/s", "bold green"),
        f"; {moment.stored:,} wait in the engine; {moment.elapsed_s:.0f} s",
    )
    return Group(head, "", _customers(moment), "", _destinations(moment), "", _reasons(moment))


def _customers(moment: Moment) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("customer", "feed", "handed over", ""):
        table.add_column(name, style="bold" if name == "customer" else "")
    table.add_column("arrived", justify="right")
    for row in moment.customers:
        table.add_row(
            row.name,
            row.feed,
            ProgressBar(total=row.total, completed=row.handed_over, width=20, complete_style="cyan"),
            ProgressBar(total=row.total, completed=row.arrived, width=40),
            f"{row.arrived:,} of {row.total:,}",
        )
    return table


def _destinations(moment: Moment) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, justify in (("destination", "left"), ("limit of a path", "left"), ("sessions", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("messages/s", "of at most", "arrived"):
        table.add_column(name, justify="right")
    for row in moment.destinations:
        table.add_row(
            row.name,
            row.limit,
            f"{row.sessions} of {row.max_sessions}",
            f"{row.rate_per_s:,.0f}",
            f"{row.allowed_per_s:,.0f}",
            f"{row.arrived:,}",
        )
    return table


def _reasons(moment: Moment) -> Text:
    if not moment.reasons:
        return Text("no path waits", style="dim")
    ordered = sorted(moment.reasons.items(), key=lambda item: -item[1])[:SHOWN_REASONS]
    lines = [f"{paths:6} paths: {reason}" for reason, paths in ordered]
    return Text("\n".join(["why paths open no more sessions:", *lines]), style="yellow")
