"""SMTP out, pipelined: the session's part of a message, next envelope behind the dot."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from bench.stages.engine import PEER, Swallower, Taker, Wired
from bench.stages.stage import MESSAGES, Stages
from engine.core.envelope import Delivery
from engine.core.reply import make_reply
from engine.delivery.flight import Flight, SessionFacts
from engine.delivery.session import Session
from engine.net.connect import OpenSession
from engine.net.extensions import parse_extensions

BUDGET_US = 55.0
GO_ON = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n"
TAKEN = b"250 2.0.0 taken\r\n" + GO_ON
EHLO = "mx.bench.example\nSIZE 50000000\n8BITMIME\nENHANCEDSTATUSCODES\nPIPELINING"


class Opening:
    """What is left of opening a session: its transport."""

    def __init__(self) -> None:
        self.transport = Swallower()
        self.surplus = b""

    def strip(self) -> None:
        pass


class Queue:
    """A dispatcher that hands out a list."""

    def __init__(self, taker: Taker, step: Any) -> None:
        self._taker = taker
        self.waiting: deque[Delivery] = deque()
        self.step = step

    def take(self, session: Session) -> Delivery | None:
        session.taken_from = self._taker.site_queues[0]
        return self.waiting.popleft() if self.waiting else None

    def opened(self, session: Session) -> None: ...
    def idle(self, session: Session) -> None: ...
    def busy(self, session: Session) -> None: ...


class Ledger:
    """A settler that counts."""

    def __init__(self) -> None:
        self.settled = 0

    def settle(self, flight: Flight, outcome: Any, session: Session) -> None:  # noqa: ARG002 (a Settler)
        assert outcome.final.code == 250
        self.settled += 1


def test_smtp_out(benchmark: Any, stages: Stages, wired: Wired, loop: asyncio.AbstractEventLoop) -> None:
    taker = Taker(wired)
    queue, ledger = Queue(taker, wired.engine.dispatcher.step), Ledger()
    opening: Any = Opening()
    opened = OpenSession(opening, make_reply(220, "", "hi"), parse_extensions(EHLO), None)
    facts = SessionFacts("1", "v0", "127.0.10.1", "v0.source.example", PEER, "")
    policy = wired.engine.paths.policy_of(taker.path)

    async def start() -> Session:
        session = Session(
            opened, facts, taker.path, taker.demand, taker.site_queues, policy, queue, ledger, lambda *_: None
        )  # type: ignore[arg-type]
        session.connection_made(opening.transport)
        return session

    def prepare() -> tuple[Any, ...]:
        queue.waiting.extend(wired.make_deliveries(MESSAGES + 1))
        return (loop.run_until_complete(start()),)

    def work(session: Session) -> None:
        session.data_received(GO_ON)
        for _ in range(MESSAGES):
            session.data_received(TAKEN)

    note = "settling not included; loop and kernel not"
    stages.run(benchmark, "SMTP out, pipelined", BUDGET_US, work, prepare, note=note)
    assert ledger.settled
