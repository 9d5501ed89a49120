"""SMTP in: read, parsed, bounded, and everything that acceptance does but the store."""

from __future__ import annotations

import time
from typing import Any

from bench.stages.engine import CUSTOMER, SENDER, NoStore, Swallower, Wired
from bench.stages.stage import MESSAGES, Stages
from engine.inject.accept import Acceptor
from engine.inject.smtp import SMTPListener
from engine.inject.smtp_session import SMTPSession
from engine.settings.model import ListenerSettings

BUDGET_US = 55.0


def make_session(wired: Wired) -> tuple[SMTPSession, Swallower]:
    """Return a session behind EHLO."""
    engine = wired.engine
    acceptor = Acceptor(
        shard=0,
        ids=wired.ids,
        store=NoStore(),
        place=lambda _pool: 0,
        forward=lambda *_: None,
        arrived=lambda _delivery: None,
        sign=lambda *_: b"",
        add_event=lambda _event: None,
        counters=engine.counters,
        unix_clock=time.time,
    )
    acceptor.use("mta.bench.example", engine.model.settings.customers, engine.model.settings.pools)
    settings = ListenerSettings(
        name="smtp:bench", protocol="smtp", customer=CUSTOMER, hostname="mta.bench.example"
    )
    listener = SMTPListener(settings, acceptor, engine.counters)
    listener.now = engine.loop.time
    session, transport = SMTPSession(listener), Swallower()
    session.connection_made(transport)  # type: ignore[arg-type]
    session.data_received(b"EHLO source.example\r\n")
    return session, transport


def test_smtp_in(benchmark: Any, stages: Stages, wired: Wired) -> None:
    session, transport = make_session(wired)
    pairs = []
    for number in range(MESSAGES):
        domain = f"d{number % 50}.bench.example"
        envelope = f"MAIL FROM:<{SENDER}> SIZE=10000\r\nRCPT TO:<u{number}@{domain}>\r\nDATA\r\n".encode()
        pairs.append((envelope, wired.messages[number % len(wired.messages)] + b".\r\n"))

    def work() -> None:
        for envelope, content in pairs:
            session.data_received(envelope)
            session.data_received(content)

    before = transport.written
    work()
    assert transport.written - before > MESSAGES * 100  # five replies each
    note = "two reads a message; accept, Received and counters included, loop and kernel not"
    stages.run(benchmark, "SMTP in", BUDGET_US, work, note=note)
