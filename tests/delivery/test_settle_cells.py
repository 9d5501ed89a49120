"""settle_cells: what counts where."""

from __future__ import annotations

from typing import Any

from engine.delivery.settle_cells import SettleCells
from engine.telemetry.events import Event
from engine.telemetry.metrics import Counters


def make_event(kind: str, category: str = "") -> Event:
    return Event(kind, 0.0, "", "acme", "pool", "", 0.0, 0, category=category)


def test_deferrals_and_bounces_are_counted_by_category() -> None:
    counters = Counters()
    cells = SettleCells(counters, "gmail")
    for kind, category in (
        ("deferred", "greylisted"),
        ("deferred", "greylisted"),
        ("bounced", "bad-mailbox"),
        ("delivered", ""),
    ):
        cells.count(make_event(kind, category), "gmail")
    rows: list[Any] = counters.snapshot()["counters"]
    assert {tuple(row[1]): row[2] for row in rows if row[0] == "mailrail_classified_total"} == {
        ("deferred", "greylisted", "gmail"): 2,
        ("bounced", "bad-mailbox", "gmail"): 1,
    }


def test_time_in_the_queue_is_of_what_has_left_it() -> None:
    counters = Counters()
    cells = SettleCells(counters, "gmail")
    cells.count(make_event("deferred"), "gmail")
    cells.count(make_event("delivered"), "gmail")
    assert sum(cells.queue.counts) == 1
