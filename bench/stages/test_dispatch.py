"""Schedule, resolve (cached), ready, decide: from a committed delivery to the session that takes it."""

from __future__ import annotations

from typing import Any

from bench.stages.engine import Taker, Wired
from bench.stages.stage import MESSAGES, Stages
from engine.core.envelope import Delivery
from engine.queue.decide import decide

BUDGET_US = 30.0
DECISIONS = (
    2  # a batch of 100 at 8,000 a second lasts 12 ms; a path decides each 20 ms, 20 vmtas share the mail
)


def test_schedule_resolve_ready_decide(benchmark: Any, stages: Stages, wired: Wired) -> None:
    engine, taker = wired.engine, Taker(wired)

    def work(deliveries: list[Delivery]) -> None:
        arrived, take, left = engine.readahead.arrived, engine.dispatcher.take, engine.readahead.left
        for delivery in deliveries:
            arrived(delivery)
        for _ in range(DECISIONS):
            decide(taker.path, engine.loop.time())
        for _ in deliveries:
            taken = take(taker)
            assert taken is not None
            left(taken)

    stages.run(
        benchmark,
        "schedule, resolve, ready, decide",
        BUDGET_US,
        work,
        lambda: (wired.make_deliveries(MESSAGES),),
        note="20 vmtas in the pool",
    )
