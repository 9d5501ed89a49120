"""Places for questions: a burst is paced, and names that nobody answers for delay no others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.net.lanes import YOUNG_S, Lanes
from tests.fakes.virtual_loop import run_virtually

DEADLINE_S = 20.0


class Asked:
    """Questions that were put, each answered when the test says so."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.answers: dict[str, asyncio.Future[str]] = {}

    def put(self, name: str) -> asyncio.Task[str]:
        return asyncio.ensure_future(self.lanes.run(self._ask(name)))

    def _ask(self, name: str) -> Callable[[], Awaitable[str]]:
        def ask() -> Awaitable[str]:
            self.answers[name] = asyncio.get_running_loop().create_future()
            return self.answers[name]

        return ask


def test_few_ask_at_once_and_an_answer_makes_room() -> None:
    async def main() -> None:
        asked = Asked(Lanes(2, 10, DEADLINE_S))
        tasks = [asked.put(name) for name in "abc"]
        await asyncio.sleep(0.01)
        assert list(asked.answers) == ["a", "b"]
        asked.answers["a"].set_result("yes")
        assert await tasks[0] == "yes"
        await asyncio.sleep(0.01)
        assert list(asked.answers) == ["a", "b", "c"]
        for task in tasks:
            task.cancel()

    run_virtually(main())


def test_a_question_that_grew_old_makes_room_and_is_waited_for_still() -> None:
    async def main() -> None:
        asked = Asked(Lanes(1, 10, DEADLINE_S))
        old, new = asked.put("old"), asked.put("new")
        await asyncio.sleep(YOUNG_S + 0.01)
        assert list(asked.answers) == ["old", "new"]
        asked.answers["new"].set_result("soon")
        assert await new == "soon"
        await asyncio.sleep(5.0)
        asked.answers["old"].set_result("late")
        assert await old == "late"

    run_virtually(main())


def test_the_deadline_counts_from_when_it_was_asked() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        asked = Asked(Lanes(1, 10, DEADLINE_S))
        began = loop.time()
        first, second = asked.put("first"), asked.put("second")
        with pytest.raises(TimeoutError, match="no answer in 20 s"):
            await first
        with pytest.raises(TimeoutError):
            await second
        assert loop.time() == pytest.approx(began + YOUNG_S + DEADLINE_S)

    run_virtually(main())


def test_where_too_many_grew_old_the_oldest_is_given_up() -> None:
    async def main() -> None:
        asked = Asked(Lanes(1, 2, DEADLINE_S))
        tasks = {name: asked.put(name) for name in "abcde"}
        await asyncio.sleep(4 * YOUNG_S + 0.01)
        done = {name for name, task in tasks.items() if task.done()}
        assert done == {"a", "b"}
        with pytest.raises(TimeoutError, match=r"no answer in 0\.75 s"):
            await tasks["a"]
        asked.answers["c"].set_result("yes")
        assert await tasks["c"] == "yes"
        for task in tasks.values():
            task.cancel()

    run_virtually(main())


def test_whoever_gives_up_leaves_its_place_young_or_old() -> None:
    async def main() -> None:
        asked = Asked(Lanes(1, 1, DEADLINE_S))
        for wait_s in (0.01, YOUNG_S + 0.01):
            task = asked.put("x")
            await asyncio.sleep(wait_s)
            task.cancel()
            await asyncio.sleep(0.01)
            following = asked.put("y")
            await asyncio.sleep(0.01)
            asked.answers["y"].set_result("yes")
            assert await following == "yes"
        waiting = [asked.put("z"), asked.put("never")]
        await asyncio.sleep(0.01)
        waiting[1].cancel()
        asked.answers["z"].set_result("yes")
        assert await waiting[0] == "yes"
        await asyncio.sleep(0.01)
        assert "never" not in asked.answers

    run_virtually(main())
