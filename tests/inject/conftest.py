"""What the tests of the feeds share: a loop, an acceptor that a test answers for, rights over files."""

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

from tests.fakes.feeds import Intake

NOBODY = 65534


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
