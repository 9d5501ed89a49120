"""Forwarding: packed, across a link between shards, unpacked, answered; both shards' part."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from bench.stages.engine import Wired
from bench.stages.stage import MESSAGES, Stages
from engine.control.bus import Link, open_link
from engine.delivery.handover import pack, unpack

BUDGET_US = 20.0


def test_forward(benchmark: Any, stages: Stages, wired: Wired, loop: asyncio.AbstractEventLoop) -> None:
    ours, theirs = socket.socketpair()

    def take(octets: bytes) -> str:
        unpack(octets)
        return "stored"

    link, other = Link({}, name="here"), Link({"forward": take}, name="there")

    async def connect() -> None:
        await open_link(theirs, other)
        await open_link(ours, link)

    async def disconnect() -> None:
        link.close()
        other.close()
        await asyncio.sleep(0.01)  # uvloop closes at a later turn

    loop.run_until_complete(connect())
    deliveries = wired.make_deliveries(MESSAGES)

    async def forward_all() -> None:
        ended = loop.create_future()
        left = MESSAGES

        def done(_result: Any, error: Exception | None) -> None:
            nonlocal left
            assert error is None
            left -= 1
            if not left:
                ended.set_result(None)

        for delivery in deliveries:
            link.send("forward", pack(delivery.envelope, delivery.message, [delivery]), done)
        await ended

    stages.run(
        benchmark,
        "forward to another shard",
        BUDGET_US,
        lambda: loop.run_until_complete(forward_all()),
        note="both shards, loop and kernel included",
    )
    loop.run_until_complete(disconnect())
