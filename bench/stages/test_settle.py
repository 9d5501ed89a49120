"""Events and metrics: what settling a delivered message tells, and its line in the event log."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from bench.stages.engine import PEER, NoStore, Taker, Wired
from bench.stages.stage import MESSAGES, Stages
from engine.core.reply import make_reply
from engine.delivery.flight import Flight, SessionFacts
from engine.delivery.settle import Dispositions
from engine.smtp.client import Outcome
from engine.telemetry.events import Event, format_events

BUDGET_US = 10.0


def test_events_and_metrics(benchmark: Any, stages: Stages, wired: Wired) -> None:
    engine, taker = wired.engine, Taker(wired)
    events: list[Event] = []
    settlement: Any = SimpleNamespace(ended=lambda _: None)
    dispositions = Dispositions(
        NoStore(),
        events.append,
        engine.counters,
        engine.labels,
        settlement,
        lambda *_: None,
        judge=engine.judge,
        shard=0,
        unix_clock=time.time,
        jitter=lambda: 0.5,
    )
    session: Any = SimpleNamespace(
        now=engine.loop.time(),
        site_queues=taker.site_queues,
        facts=SessionFacts("1", "v0", "127.0.10.1", "v0.source.example", PEER, ""),
    )
    ok, final = make_reply(250, "2.1.0", "ok"), make_reply(250, "2.0.0", "taken")

    def prepare() -> tuple[Any, ...]:
        events.clear()
        now = engine.loop.time()
        flights = [
            Flight(d, d.recipients, taker.site_queues[0], begun_at=now, reserved_at=now)
            for d in wired.make_deliveries(MESSAGES)
        ]
        return ([(flight, Outcome(flight, ok, [ok], final)) for flight in flights],)

    def work(pairs: list[tuple[Flight, Outcome]]) -> bytes:
        for flight, outcome in pairs:
            dispositions.settle(flight, outcome, session)
        return format_events(events)

    stages.run(benchmark, "events and metrics", BUDGET_US, work, prepare, note="settling and one event line")
