"""docs/benchmarks.md explains every column of the table that `make bench` prints."""

from __future__ import annotations

from bench.throughput import HEADS
from tests.docs.pages import read_names, read_page, section


def test_every_column_of_the_table_has_a_row() -> None:
    page = read_page("benchmarks")
    assert read_names(section(page, "## What the columns mean")) == list(HEADS)
