"""Answers of the admin API as tables for people.

The form of a cell follows its field's name: `*_at` as time from now, `*_s` as a duration, `*_bytes` as a
size, rates and counts with thousands apart. A field that is empty in every row is left out.

Never: asks for anything; `now` comes as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]
_EMPTY: tuple[Any, ...] = ("", None, 0, [], {})


def make_table(rows: Sequence[Row], first: Sequence[str], now: float, title: str = "") -> Table:
    """Return a table of rows. `first`: fields that come first, in this order; `now`: Unix seconds."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    columns = choose_columns(rows, first)
    for column in columns:
        is_number = all(isinstance(row.get(column, 0), int | float) for row in rows)
        table.add_column(heading(column), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(format_cell(column, row.get(column), now) for column in columns))
    return table


def choose_columns(rows: Sequence[Row], first: Sequence[str]) -> list[str]:
    """Return the fields to show: known ones in their order, then others as they come."""
    used = {field for row in rows for field, value in row.items() if value not in _EMPTY}
    known = [field for field in first if field in used or (rows and field in rows[0] and field == first[0])]
    others = [field for row in rows for field in row if field in used and field not in known]
    return [*known, *dict.fromkeys(others)]


def heading(field: str) -> str:
    """Return a field's name as a column is headed: without its unit, in words."""
    for suffix in ("_at", "_s", "_bytes"):
        field = field.removesuffix(suffix)
    return field.replace("_", " ")


def format_cell(field: str, value: Any, now: float) -> str:
    """Return one value as text, by its field's name."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _format_number(field, value, now)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_cell(name, inner, now)}" for name, inner in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(format_cell(field, item, now) for item in value)
    return str(value)


def _format_number(field: str, value: float, now: float) -> str:
    if field.endswith("_at"):
        return format_moment(value, now) if value else "-"
    if field.endswith("_s") and not field.endswith("per_s"):
        return format_span(value)
    if field.endswith("_bytes"):
        return format_bytes(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def format_moment(at: float, now: float) -> str:
    """Return an instant as seen from now: "in 5 min", "2 h ago"."""
    distance = at - now
    if abs(distance) < 1:
        return "now"
    return f"in {format_span(distance)}" if distance > 0 else f"{format_span(-distance)} ago"


def format_span(seconds: float) -> str:
    """Return a duration in the largest unit that leaves at least one."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.1f} s".replace(".0 ", " ") if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def format_bytes(count: float) -> str:
    """Return a size in the largest unit that leaves at least one."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}".replace(".0 ", " ")
    return f"{count:.0f} B"


def flatten(counts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested counts under names joined by blanks."""
    flat: dict[str, Any] = {}
    for name, value in counts.items():
        key = f"{prefix} {name}".strip()
        if isinstance(value, Mapping):
            flat |= flatten(value, key)
        else:
            flat[key] = value
    return flat


def make_console(*, stderr: bool = False) -> Console:
    """Return the console of stdout or stderr; piped output is as wide as it needs to be."""
    console = Console(highlight=False, soft_wrap=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, width=240, stderr=stderr)
