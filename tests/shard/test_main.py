"""The process of a shard: what it is before it is told anything, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.control.bus import Link, open_link
from engine.core.errors import NetworkError
from engine.shard import main as module
from engine.shard.main import EXIT_BUG, main

END_S = 20.0  # a bound for a busy machine, not a measure


class Spawned:
    """A shard of which the test is the supervisor."""

    def __init__(self, prelude: str = "") -> None:
        self.link, theirs = socket.socketpair()
        self.fds, fds_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = f"{prelude}\nimport sys\nfrom engine.shard.main import main\nsys.exit(main(sys.argv[1:]))"
        options = ["--control-fd", str(theirs.fileno()), "--fds-fd", str(fds_theirs.fileno())]
        with theirs, fds_theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, *options],
                pass_fds=(theirs.fileno(), fds_theirs.fileno()),
                stderr=subprocess.PIPE,
                text=True,
            )

    def ask(self, kind: str, body: Any) -> Any:
        """Ask over the control link."""

        async def ask() -> Any:
            link = await open_link(self.link, Link({}, name="shard 0"))
            try:
                return await link.request(kind, body, END_S)
            finally:
                link.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(ask())

    def close(self) -> None:
        self.link.close()
        self.fds.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def spawned(request: pytest.FixtureRequest) -> Iterator[Spawned]:
    """A shard's process that has been told nothing."""
    shard = Spawned(getattr(request, "param", ""))
    yield shard
    shard.close()


def test_a_shard_ends_with_its_control_link(spawned: Spawned) -> None:
    spawned.link.close()
    assert spawned.process.wait(END_S) == 0


def test_what_it_is_not_asked_for_it_refuses_by_name(spawned: Spawned) -> None:
    with pytest.raises(NetworkError, match="no such request"):
        spawned.ask("no such request", {})


REPORT = """
import gc, json, sys
import uvloop
def run(main):
    main.close()
    status = open("/proc/self/status").read()
    found = dict(line.split(":\\t", 1) for line in status.splitlines() if ":\\t" in line)
    print(json.dumps([found["SigIgn"], found["Umask"], gc.get_threshold()[0]]), file=sys.stderr)
    return 0
uvloop.run = run
"""


@pytest.mark.parametrize("spawned", [REPORT], indirect=True)
def test_signals_of_a_terminal_are_ignored_and_others_may_not_read_its_files(spawned: Spawned) -> None:
    _, told = spawned.process.communicate(timeout=END_S)
    ignored, umask, threshold = json.loads(told)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert int(ignored, 16) >> (number - 1) & 1
    assert int(umask, 8) == 0o027
    assert threshold == 50_000


BUG = """
from engine.shard.duties import Duties
def handlers(self):
    import asyncio
    def stumble(body):
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        return asyncio.get_running_loop().create_future()
    return {"stumble": stumble}
Duties.handlers = handlers
"""


@pytest.mark.parametrize("spawned", [BUG], indirect=True)
def test_a_bug_ends_the_process_with_its_trace_in_the_log(spawned: Spawned) -> None:
    with pytest.raises(NetworkError):
        spawned.ask("stumble", {})
    _, told = spawned.process.communicate(timeout=END_S)
    assert spawned.process.returncode == EXIT_BUG
    assert "shard dies of a bug" in told
    assert "ZeroDivisionError" in told


def test_what_the_loop_hears_of_without_an_exception_ends_it_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with asyncio.Runner() as runner:
        module._die(runner.get_loop(), {"message": "socket.send() raised"})
    assert ended == [EXIT_BUG]
    assert "socket.send() raised" in capfd.readouterr().err


@pytest.mark.parametrize("options", [[], ["--control-fd", "3"], ["--control-fd", "x", "--fds-fd", "4"]])
def test_a_shard_that_nobody_spawned_says_what_it_lacks(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert "-fd" in capsys.readouterr().err


def test_it_is_the_program_that_the_supervisor_starts() -> None:
    from engine.supervisor.supervisor import SHARD_COMMAND

    ended = subprocess.run([*SHARD_COMMAND], capture_output=True, text=True, cwd=Path("/"), timeout=END_S)
    assert (ended.returncode, "mailrail _shard" in ended.stderr) == (2, True)
