"""beginnings: tries begin a few in each turn of the loop, in the order in which they were asked for."""

from __future__ import annotations

import asyncio

from engine.delivery.beginnings import AT_ONCE, Beginnings
from tests.fakes.virtual_loop import run_virtually


def test_many_begin_a_few_in_a_turn_and_in_order() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        beginnings = Beginnings(loop)
        begun: list[int] = []

        async def begin(number: int) -> None:
            await beginnings.wait()
            begun.append(number)

        tasks = [loop.create_task(begin(number)) for number in range(5 * AT_ONCE)]
        most = before = 0
        while len(begun) < len(tasks):
            await asyncio.sleep(0)
            most, before = max(most, len(begun) - before), len(begun)
        assert begun == list(range(5 * AT_ONCE))
        assert most <= AT_ONCE

    run_virtually(main())


def test_a_few_begin_at_once() -> None:
    async def main() -> None:
        beginnings = Beginnings(asyncio.get_running_loop())
        for _ in range(AT_ONCE):
            waiting = beginnings.wait()
            try:
                waiting.send(None)
            except StopIteration:
                continue
            raise AssertionError("it waits")

    run_virtually(main())


def test_one_that_is_cancelled_takes_no_place() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        beginnings = Beginnings(loop)
        tasks = [loop.create_task(beginnings.wait()) for _ in range(3 * AT_ONCE)]
        await asyncio.sleep(0)
        for task in tasks[AT_ONCE : 2 * AT_ONCE]:
            task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert all(task.done() for task in tasks)

    run_virtually(main())
