"""An asyncio loop that moves its clock: where nothing is ready, the next timer is due at once.

For tests without sockets: hours pass in milliseconds, and every run is the same.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

START = 1000.0


class _NoWait(selectors.BaseSelector):
    """Looks at the files and, where none is ready, moves the clock instead of waiting."""

    def __init__(self, move: Callable[[float], None]) -> None:
        self._real = selectors.DefaultSelector()
        self._move = move

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen"
            self._move(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time stands still while there is something to do."""

    def __init__(self) -> None:
        self._virtual_now = START
        super().__init__(_NoWait(self._pass))
        self.failures: list[BaseException] = []
        self.set_exception_handler(self._note_failure)

    def time(self) -> float:
        return self._virtual_now

    def _pass(self, seconds: float) -> None:
        self._virtual_now += max(0.0, seconds)

    def _note_failure(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(context.get("exception") or AssertionError(context["message"]))


def run_virtually(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; what failed in a callback fails the test."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(coroutine)
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        if loop.failures:
            raise loop.failures[0]
    return result
