"""One spawned shard: its process, control link and listeners' channel.

The shard is dead when its pidfd says so, not when its link ends: only then are its sockets closed and
its locks free. A shard that lost its link but does not die is killed.

Owns: a process, from spawning to its death.
Never: restarts one, knows what it is told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.control.bus import Handler, Link, open_link
from engine.control.fds import ListenerSender, open_channel
from engine.supervisor.plan import Plan

# Else glibc gives the pages of a batch back to the kernel at each commit and takes them again for the next:
# 6 to 9 us a message of 10 kB (bench/store_commit.py). The price is up to 32 MB kept by a busy shard.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(32 << 20), "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}

LINKLESS_S = 2.0  # how long a shard may outlive its link

Ended = Callable[["ShardProcess", int], None]  # (process, return code as subprocess gives it)


class ShardProcess:
    """A running shard of one incarnation."""

    def __init__(
        self, shard: int, incarnation: bytes, handlers: Mapping[str, Handler], on_ended: Ended
    ) -> None:
        self.shard = shard
        self.incarnation = incarnation
        self.pid = 0
        self.plan: Plan | None = None  # the one that it was last told
        self.started_at = time.time()
        self.is_alive = False
        self.link = Link(handlers, name=f"shard {shard}", on_lost=self._on_link_lost)
        self._on_ended = on_ended
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._listeners: ListenerSender | None = None
        self._given: set[str] = set()
        self._ended = asyncio.get_running_loop().create_future()

    async def start(self, command: Sequence[str]) -> None:
        """Spawn the shard; the command gets the two descriptors as options."""
        link_ours, link_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        fds_ours, fds_theirs = open_channel()
        options = ["--control-fd", str(link_theirs.fileno()), "--fds-fd", str(fds_theirs.fileno())]
        with link_theirs, fds_theirs:
            try:
                self._popen = _spawn([*command, *options], (link_theirs.fileno(), fds_theirs.fileno()))
            except OSError:
                link_ours.close()
                fds_ours.close()
                raise
        self.pid = self._popen.pid
        self.is_alive = True
        self._listeners = ListenerSender(fds_ours)
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)
        await open_link(link_ours, self.link)

    async def request(self, kind: str, body: Any, timeout_s: float) -> Any:
        """Ask the shard; NetworkError where it does not answer, refuses or is gone."""
        return await self.link.request(kind, body, timeout_s)

    def give_listeners(self, sockets: Mapping[str, socket.socket]) -> None:
        """Send the listeners that this shard has not got; forget those that are no more."""
        assert self._listeners is not None
        for key, listener in sockets.items():
            if key not in self._given:
                self._listeners.send(key, listener)
        self._given = set(sockets)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that no shard survives."""
        if self.is_alive and self._popen is not None:
            self._popen.send_signal(number)

    async def wait_ended(self, timeout_s: float | None = None) -> bool:
        """Wait for its death; return whether it is dead."""
        done, _ = await asyncio.wait([self._ended], timeout=timeout_s)
        return bool(done)

    def _on_exit(self) -> None:
        assert self._popen is not None
        returncode = self._popen.poll()
        if returncode is None:
            return
        self.is_alive = False
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.link.close()
        if self._listeners is not None:
            self._listeners.close()
        self._ended.set_result(returncode)
        self._on_ended(self, returncode)

    def _on_link_lost(self, _link: Link) -> None:
        if self.is_alive:
            asyncio.get_running_loop().call_later(LINKLESS_S, self.end)


def _spawn(command: list[str], descriptors: tuple[int, int]) -> subprocess.Popen[bytes]:
    """Start a process that inherits just these descriptors and the standard ones.

    It gets a process group of its own: Ctrl-C in a terminal must reach the supervisor only. No preexec_fn,
    which would rule out vfork: the shard asks for its death signal itself.
    """
    return subprocess.Popen(  # noqa: S603 (our own program)
        command,
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        process_group=0,
        env=MALLOC | os.environ,
    )


def describe_death(returncode: int) -> str:
    """Say in words how a process ended."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
