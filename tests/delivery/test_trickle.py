"""trickle: stopped ready queues get something to try with in turn, a few at a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from engine.delivery.trickle import AT_ONCE, EVERY_S, Trickle
from tests.fakes.virtual_loop import run_virtually


def make_queues(count: int) -> list[Any]:
    class Queue(SimpleNamespace):
        __hash__ = object.__hash__

    return [Queue(number=number, is_gone=False) for number in range(count)]


def test_a_few_are_read_for_at_a_time_in_order() -> None:
    async def main() -> None:
        read: list[Any] = []
        trickle = Trickle(asyncio.get_running_loop(), read.append)
        queues = make_queues(3 * AT_ONCE)
        for queue in queues:
            trickle.add(queue)
        for turns in (1, 2, 3, 4):
            await asyncio.sleep(EVERY_S * 1.01)
            assert read == queues[: turns * AT_ONCE]

    run_virtually(main())


def test_a_queue_waits_once_however_often_it_is_added() -> None:
    async def main() -> None:
        read: list[Any] = []
        trickle = Trickle(asyncio.get_running_loop(), read.append)
        (queue,) = make_queues(1)
        trickle.add(queue)
        trickle.add(queue)
        assert queue in trickle
        await asyncio.sleep(1.0)
        assert read == [queue]
        assert queue not in trickle

    run_virtually(main())


def test_what_is_gone_is_passed_over() -> None:
    async def main() -> None:
        read: list[Any] = []
        trickle = Trickle(asyncio.get_running_loop(), read.append)
        first, second = make_queues(2)
        trickle.add(first)
        trickle.add(second)
        first.is_gone = True
        await asyncio.sleep(1.0)
        assert read == [second]

    run_virtually(main())


def test_cleared_it_reads_for_none_and_begins_anew() -> None:
    async def main() -> None:
        read: list[Any] = []
        trickle = Trickle(asyncio.get_running_loop(), read.append)
        first, second = make_queues(2)
        trickle.add(first)
        trickle.clear()
        trickle.add(second)
        await asyncio.sleep(1.0)
        assert read == [second]

    run_virtually(main())
