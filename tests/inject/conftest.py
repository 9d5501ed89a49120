"""What the tests of the feeds share: a loop, an acceptor that a test answers for, a spool."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.core.reply import Reply, make_reply
from engine.inject.context import FeedContext

NOBODY = 65534


class Intake:
    """Remembers what it was given; answers at once with `reply`, or, where that is None, when told to."""

    def __init__(self) -> None:
        self.reply: Reply | None = make_reply(250, "2.0.0", "Ok: queued as 0123")
        self.taken: list[tuple[str, list[str], bytes, bool, FeedContext]] = []
        self.waiting: list[Callable[[Reply, list[str]], None]] = []

    def accept(
        self,
        sender: str,
        recipients: list[str],
        message: bytes,
        is_8bit: bool,
        context: FeedContext,
        done: Callable[[Reply, list[str]], None],
    ) -> None:
        self.taken.append((sender, recipients, message, is_8bit, context))
        if self.reply is None:
            self.waiting.append(done)
        else:
            self._tell(done, self.reply)

    def answer(self, code: int = 250, enhanced: str = "2.0.0", text: str = "Ok") -> None:
        """Answer everything that waits."""
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            self._tell(done, make_reply(code, enhanced, text))

    @staticmethod
    def _tell(done: Callable[[Reply, list[str]], None], reply: Reply) -> None:
        done(reply, ["0123"] if reply.is_positive else [])


@pytest.fixture
def intake() -> Intake:
    return Intake()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine under uvloop, as a shard does."""

    def run_it(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(asyncio.wait_for(coroutine, 30))

    return run_it


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]:
    """Let the loop turn until something holds."""

    async def wait(holds: Callable[[], bool]) -> None:
        for _ in range(5000):
            if holds():
                return
            await asyncio.sleep(0.001)
        raise AssertionError("it never holds")

    return wait


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Return a directory that any user may enter, unlike tmp_path."""
    path = Path(tempfile.mkdtemp(prefix="mailrail-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Run the test without root's rights over files."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
