from __future__ import annotations

import io

import pytest
from rich.console import Console

from engine.cli.tables import choose_columns, flatten, format_cell, make_table

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("due_at", NOW + 90, "in 1.5 min"),
        ("due_at", NOW - 7200, "2 h ago"),
        ("due_at", NOW, "now"),
        ("due_at", 0, "-"),
        ("latency_s", 0.025, "25 ms"),
        ("age_s", 172800.0, "2 d"),
        ("size_bytes", 10_240, "10.2 kB"),
        ("messages", 1234567, "1,234,567"),
        ("rate_per_s", 12.34, "12.3"),
        ("is_up", True, "yes"),
        ("recipients", ["a@x", "b@x"], "a@x, b@x"),
        ("reply", None, "-"),
        ("counts", {"ready": 2}, "ready 2"),
    ],
)
def test_cell_follows_the_name_of_its_field(field: str, value: object, text: str) -> None:
    assert format_cell(field, value, NOW) == text


def test_known_columns_come_first_and_empty_ones_are_left_out() -> None:
    rows = [{"zeta": 1, "domain": "d", "held": "", "customer": "acme"}, {"extra": "x", "domain": "e"}]
    assert choose_columns(rows, ("customer", "domain", "held")) == ["customer", "domain", "zeta", "extra"]


def test_table_shows_every_row() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(make_table([{"a": 1, "b": "x"}, {"a": 2000, "b": "y"}], ("b",), NOW))
    assert [line.split() for line in out.getvalue().splitlines()] == [["b", "a"], ["x", "1"], ["y", "2,000"]]


def test_nested_counts_are_flattened() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a b": 1, "a c d": 2, "e": 3}
