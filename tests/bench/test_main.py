from __future__ import annotations

from bench.__main__ import format_table, format_tuning, format_verdicts, make_rows
from bench.throughput import Figures, Row

LATENCY = {"count": 1, "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.0}


def make_figures(row: Row, per_s: float, cpu_us: float) -> Figures:
    return Figures(row, per_s, cpu_us, 50 << 20, 1 << 20, LATENCY, LATENCY, 0, 0, 0)


def test_rows_pair_mailrail_with_postfix_under_the_same_load() -> None:
    rows = make_rows("abcd", 1000)
    loads = {engine: {row.load for row in rows if row.engine == engine} for engine in ("postfix", "mailrail")}
    assert loads["postfix"] == loads["mailrail"]
    assert {row.messages for row in rows if row.engine != "wire"} == {1000, 200}
    assert all(row.durability == "async" for row in make_rows("e", 1000))


def test_table_is_aligned_and_names_its_columns() -> None:
    lines = format_table([make_figures(Row("postfix", 1000), 700.0, 1500.0)]).splitlines()
    assert lines[0].split()[:2] == ["engine", "load"]
    assert "700" in lines[2]
    assert len(lines[2]) <= len(lines[1])


def test_verdicts_compare_with_postfix_and_the_wire() -> None:
    figures = [
        make_figures(Row("wire", 4000), 50_000.0, 0.0),
        make_figures(Row("postfix", 1000), 700.0, 1500.0),
        make_figures(Row("mailrail", 1000), 7000.0, 150.0),
    ]
    (verdict,) = format_verdicts(figures)
    assert "10.0 times Postfix" in verdict
    assert "1/10.0 of Postfix's" in verdict
    assert "0.14 of the wire" in verdict


def test_tuning_of_both_is_printed() -> None:
    text = "\n".join(format_tuning())
    assert "smtp_connection_cache_destinations=static:all" in text
    assert "max_connections=5" in text
