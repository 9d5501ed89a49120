"""A shard's process: what it inherits, what it is given, how its death is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from engine.core.errors import NetworkError
from engine.supervisor import process
from engine.supervisor.process import MALLOC, ShardProcess, describe_death

Scenario = Callable[[ShardProcess], Awaitable[None]]
# A program that notes what it finds and stays for as long as its control link.
NOTE = """
import os, socket, sys
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
listed = [int(name) for name in os.listdir("/proc/self/fd")]  # and the descriptor that lists them
descriptors = [each for each in listed if os.path.exists(f"/proc/self/fd/{each}")]
with open(sys.argv[1] + ".new", "w") as file:
    print(descriptors, file=file)
    print([int(options["--control-fd"]), int(options["--fds-fd"])], file=file)
    print(os.getpgrp() == os.getpid(), os.environ["MALLOC_TRIM_THRESHOLD_"], file=file)
    print(os.environ["MALLOC_MMAP_THRESHOLD_"], file=file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
socket.socket(fileno=int(options["--control-fd"])).recv(1)
"""
STAY = "import signal; signal.pause()"
LEAVE_LINK = """
import os, sys, signal
os.close(int(sys.argv[sys.argv.index("--control-fd") + 1]))
signal.pause()
"""


def run(scenario: Scenario) -> list[int]:
    """Run a scenario over a process that was not started; return the deaths that it reported."""
    deaths: list[int] = []

    async def main() -> None:
        shard = ShardProcess(3, b"inca", {}, lambda _process, code: deaths.append(code))
        try:
            await scenario(shard)
        finally:
            shard.end()
            if shard.is_alive:
                assert await shard.wait_ended(10.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return deaths


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def test_a_shard_inherits_its_two_descriptors_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "12345")
    note = tmp_path / "note"

    async def scenario(shard: ShardProcess) -> None:
        with Path("/dev/null").open() as file:
            os.set_inheritable(file.fileno(), True)
            await shard.start(python(NOTE, str(note)))
        while not note.exists():
            await asyncio.sleep(0.005)
        assert shard.is_alive
        shard.link.close()
        assert await shard.wait_ended(10.0)

    assert run(scenario) == [0]
    found, options, group_and_trim, mmap = note.read_text().splitlines()
    assert set(eval(found)) == {0, 1, 2, *eval(options)}
    assert group_and_trim == "True 12345"  # Ctrl-C is the supervisor's; what the operator has set stays
    assert mmap == MALLOC["MALLOC_MMAP_THRESHOLD_"]


def test_its_death_is_told_with_how_it_died_and_its_link_is_closed() -> None:
    async def scenario(shard: ShardProcess) -> None:
        await shard.start(python(STAY))
        assert (shard.is_alive, shard.pid > 0) == (True, True)
        assert not await shard.wait_ended(0.0)
        shard.end(signal.SIGABRT)
        assert await shard.wait_ended(10.0)
        assert not shard.is_alive
        with pytest.raises(NetworkError):
            await shard.request("report", {}, 1.0)
        shard.end()  # nobody else has this process id now

    assert run(scenario) == [-signal.SIGABRT]


def test_a_program_that_can_not_be_started_leaves_nothing_open() -> None:
    async def scenario(shard: ShardProcess) -> None:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(FileNotFoundError):
            await shard.start(["/no/such/program"])
        assert os.listdir("/proc/self/fd") == before
        assert not shard.is_alive

    assert run(scenario) == []


def test_a_shard_without_a_link_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LINKLESS_S", 0.01)

    async def scenario(shard: ShardProcess) -> None:
        await shard.start(python(LEAVE_LINK))
        assert await shard.wait_ended(10.0)

    assert run(scenario) == [-signal.SIGKILL]


def test_a_listener_is_given_once_and_again_after_it_was_away() -> None:
    class Channel:
        def __init__(self) -> None:
            self.sent: list[str] = []

        def send(self, key: str, _listener: socket.socket) -> None:
            self.sent.append(key)

    async def scenario(shard: ShardProcess) -> None:
        channel = Channel()
        shard._listeners = channel  # type: ignore[assignment]
        with socket.socket() as one, socket.socket() as other:
            shard.give_listeners({"one": one})
            shard.give_listeners({"one": one, "other": other})
            assert channel.sent == ["one", "other"]
            shard.give_listeners({"other": other})
            shard.give_listeners({"one": one, "other": other})
            assert channel.sent == ["one", "other", "one"]

    run(scenario)


@pytest.mark.parametrize(
    ("returncode", "words"),
    [(0, "exit status 0"), (70, "exit status 70"), (-11, "SIGSEGV"), (-99, "signal 99")],
)
def test_deaths_are_told_in_words(returncode: int, words: str) -> None:
    assert describe_death(returncode) == words
