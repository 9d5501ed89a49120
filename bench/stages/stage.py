"""One stage: measured by pytest-benchmark in processor time, its allocations counted beside.

Owns: how a batch is run and what is kept of it.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

ROUNDS = 60
WARMUP_ROUNDS = 5
MESSAGES = 100  # of a batch


class Measured(NamedTuple):
    """What one stage came to, for each message."""

    name: str
    us: float  # median of the rounds
    fastest_us: float
    budget_us: float | None
    blocks: float  # allocated and not given back when the batch has ended
    peak_bytes: float
    note: str


class Stages:
    """Runs stages and keeps what they came to."""

    def __init__(self) -> None:
        self.measured: list[Measured] = []

    def run(
        self,
        benchmark: Any,
        name: str,
        budget_us: float | None,
        work: Callable[..., Any],
        prepare: Callable[[], tuple[Any, ...]] = tuple,
        *,
        messages: int = MESSAGES,
        note: str = "",
    ) -> Measured:
        """Measure `work(*prepare())`, which is one batch of `messages`; only `work` counts."""
        benchmark._timer = (
            time.process_time
        )  # the marker's timer does not reach pedantic mode in all versions

        def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
            return prepare(), {}

        benchmark.pedantic(work, setup=setup, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)
        stats = benchmark.stats.stats
        blocks, peak_bytes = count_allocations(work, prepare)
        measured = Measured(
            name,
            stats.median / messages * 1e6,
            stats.min / messages * 1e6,
            budget_us,
            blocks / messages,
            peak_bytes / messages,
            note,
        )
        benchmark.extra_info.update(measured._asdict() | {"messages": messages})
        self.measured.append(measured)
        return measured


def count_allocations(work: Callable[..., Any], prepare: Callable[[], tuple[Any, ...]]) -> tuple[int, int]:
    """Return the blocks that a batch leaves behind, and the most octets that it held at once."""
    arguments = prepare()
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        kept = work(*arguments)
        blocks = sys.getallocatedblocks() - before
        del kept
        arguments = prepare()
        tracemalloc.start()
        work(*arguments)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    return blocks, peak_bytes


def format_stages(measured: list[Measured]) -> str:
    """Return the table."""
    lines = [f"{'stage':<44}{'us/msg':>9}{'best':>8}{'budget':>8}{'':>8}{'blocks':>8}{'peak B':>9}"]
    lines.append("-" * len(lines[0]))
    for row in measured:
        budget = "" if row.budget_us is None else f"{row.budget_us:.0f}"
        verdict = "" if row.budget_us is None else "within" if row.us <= row.budget_us else "OVER"
        text = f"{row.name:<44}{row.us:>9.1f}{row.fastest_us:>8.1f}{budget:>8}{verdict:>8}"
        lines.append(f"{text}{row.blocks:>8.1f}{row.peak_bytes:>9,.0f}  {row.note}".rstrip())
    return "\n".join(lines)
