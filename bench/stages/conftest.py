"""Fixtures of the stages, and their table at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bench.finding import format_machine
from bench.mailrail import MailrailSetup, write_configuration
from bench.stages.engine import Wired, wire
from bench.stages.stage import Stages, format_stages

_STAGES = Stages()


@pytest.fixture
def stages() -> Stages:
    return _STAGES


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = uvloop.new_event_loop()
    asyncio.set_event_loop(made)
    yield made
    made.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def wired(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Wired:
    """The objects of one shard with 20 vmtas and one destination; nothing is opened."""
    write_configuration(tmp_path, MailrailSetup(2680, {"*": "127.0.0.94:2681"}, shards=1))
    return loop.run_until_complete(wire(tmp_path / "mailrail.toml"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line("")
    terminalreporter.write_line(format_machine())
    terminalreporter.write_line(format_stages(_STAGES.measured))
