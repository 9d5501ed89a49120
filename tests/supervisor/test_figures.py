"""Asking shards for their metrics."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from engine.core.errors import NetworkError
from engine.supervisor.figures import HUNG_S, Figures


class FakeSlot:
    """A slot whose shard reports, or does not."""

    def __init__(self, shard: int, value: int | None) -> None:
        self.shard = shard
        self.incarnation: bytes | None = bytes([shard]) * 4
        self.value = value

    async def request(self, kind: str, body: Any, timeout_s: float) -> Any:
        if self.value is None:
            raise NetworkError("timeout", "busy")
        return {"counters": [["mailrail_uncertain_total", [], self.value]], "gauges": [], "histograms": []}


def read(figures: Figures) -> float:
    text, _ = asyncio.run(figures.format())
    [line] = [each for each in text.decode().splitlines() if each.startswith("mailrail_uncertain_total ")]
    return float(line.split()[1])


def make(*slots: FakeSlot) -> tuple[Figures, list[Any]]:
    hung: list[Any] = []
    return Figures(slots, hung.append), hung  # type: ignore[arg-type]


def test_the_page_is_the_sum_of_all_shards() -> None:
    figures, _ = make(FakeSlot(0, 2), FakeSlot(1, 3))
    assert read(figures) == 5


def test_a_busy_shard_counts_with_its_last_report() -> None:
    slot = FakeSlot(0, 2)
    figures, _ = make(slot)
    assert read(figures) == 2
    slot.value = None
    assert read(figures) == 2


def test_a_restarted_shard_adds_to_what_its_dead_predecessor_reported() -> None:
    slot = FakeSlot(0, 2)
    figures, _ = make(slot)
    assert read(figures) == 2
    slot.incarnation = None
    figures.end(0)
    assert read(figures) == 2
    slot.incarnation, slot.value = b"next", 1
    assert read(figures) == 3


def test_a_shard_that_never_answers_is_hung_after_a_while_and_one_that_does_is_not() -> None:
    silent, alive = FakeSlot(0, None), FakeSlot(1, 1)
    figures, hung = make(silent, alive)
    asyncio.run(figures.refresh())
    now = time.monotonic()
    figures._find_hung(now + HUNG_S - 5)
    assert hung == []
    figures._answered_at[b"\x01" * 4] = now + HUNG_S
    figures._find_hung(now + HUNG_S + 5)
    assert hung == [silent]


def test_a_dead_shard_is_not_hung() -> None:
    slot = FakeSlot(0, None)
    figures, hung = make(slot)
    asyncio.run(figures.refresh())
    slot.incarnation = None
    figures._find_hung(time.monotonic() + 2 * HUNG_S)
    assert hung == []
