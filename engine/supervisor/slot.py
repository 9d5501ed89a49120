"""One shard number: its process now, and when the next may start.

    down -> starting -> up -> down ...

*starting*: spawned and told its configuration; *up*: it answered that it serves. A process that dies,
or can't be configured, is followed by another after a pause that doubles; the pause shrinks back once
one has stayed up.

Owns: the life of one shard number, its restarts.
Never: decides what a shard is told (`make_body` does).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.control.bus import Handler
from engine.core.errors import NetworkError
from engine.supervisor.process import ShardProcess, describe_death
from engine.telemetry.log import Log

RESTART_FIRST_S = 0.1  # at once for people, long enough that a crash at start does not spin
RESTART_MAX_S = 10.0
SETTLED_S = 30.0  # up for so long: the next restart is again the first
CONFIGURE_TIMEOUT_S = 60.0  # includes waiting for the store's lock and opening it; a start does not scan it
DYING_S = 5.0  # its link is gone, so it is dying: of what, its return code should say, not ours

log = Log("supervisor")

BodyMaker = Callable[["Slot", ShardProcess], dict[str, Any]]
Upped = Callable[["Slot"], None]
Downed = Callable[["Slot", ShardProcess, int], None]


class Slot:
    """A shard number, whoever runs under it."""

    def __init__(
        self, shard: int, command: Sequence[str], make_body: BodyMaker, upped: Upped, downed: Downed
    ) -> None:
        self.shard = shard
        self.handlers: Mapping[str, Handler] = {}
        self.process: ShardProcess | None = None
        self.is_up = False
        self.starts = 0
        self.last_death = ""
        self.refusal = ""  # why the last process could not be configured; "" where it died by itself
        self.lock = asyncio.Lock()  # one configuration at a time
        self.first_outcome = asyncio.Event()  # it was up, or failed to come up, once
        self._command = command
        self._make_body = make_body
        self._upped = upped
        self._downed = downed
        self._refused: ShardProcess | None = None  # the process whose refusal that is
        self._pause_s = RESTART_FIRST_S
        self._up_since = 0.0
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def incarnation(self) -> bytes | None:
        """The incarnation that is up."""
        return self.process.incarnation if self.is_up and self.process is not None else None

    def start(self) -> None:
        """Spawn a process in the background and bring it up."""
        self._task = asyncio.get_running_loop().create_task(self._bring_up(0.0))

    def stop_restarting(self) -> None:
        """Let the present process be the last."""
        self._is_stopping = True
        if self._task is not None and self.process is None:
            self._task.cancel()
        self.first_outcome.set()

    async def request(self, kind: str, body: Any, timeout_s: float) -> Any:
        """Ask the shard where it is up; NetworkError where it is not, or does not answer."""
        if not self.is_up or self.process is None:
            raise NetworkError("link", f"shard {self.shard} is down")
        return await self.process.request(kind, body, timeout_s)

    def notify(self, kind: str, body: Any) -> None:
        """Tell the shard where it is up."""
        if self.is_up and self.process is not None:
            self.process.link.notify(kind, body)

    async def _bring_up(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        process = ShardProcess(self.shard, os.urandom(4), self.handlers, self._ended)
        self.process = process
        self.starts += 1
        try:
            await process.start(self._command)
        except OSError as error:  # no memory, no processes left: the pause grows, others serve
            log.error("shard could not be spawned", shard=self.shard, error=str(error))
            self._ended(process, os.EX_OSERR)
            self.first_outcome.set()
            return
        async with self.lock:
            await self._configure(process)
        self.first_outcome.set()

    async def _configure(self, process: ShardProcess) -> None:
        try:
            answer = await process.request("configure", self._make_body(self, process), CONFIGURE_TIMEOUT_S)
        except NetworkError as error:
            answer = {"error": str(error)}
            if error.phase == "link":
                await process.wait_ended(DYING_S)
        if not process.is_alive:
            return
        self.refusal = str((answer or {}).get("error", ""))
        if self.refusal:
            self._refused = process
            log.error("shard could not start", shard=self.shard, error=self.refusal)
            process.end()  # it serves nobody; a successor may fare better (a lock, a full disk)
            return
        self.is_up = True
        self._up_since = time.monotonic()
        log.info("shard up", shard=self.shard, pid=process.pid, starts=self.starts)
        self._upped(self)

    def _ended(self, process: ShardProcess, returncode: int) -> None:
        if self.is_up and time.monotonic() - self._up_since >= SETTLED_S:
            self._pause_s = RESTART_FIRST_S
        if process is not self._refused:
            self.refusal = ""
        self.is_up = False
        self.process = None
        self.last_death = describe_death(returncode)
        self._downed(self, process, returncode)
        if self._is_stopping:
            return
        log.error(
            "shard died", shard=self.shard, pid=process.pid, how=self.last_death, restart_in_s=self._pause_s
        )
        self._task = asyncio.get_running_loop().create_task(self._bring_up(self._pause_s))
        self._pause_s = min(self._pause_s * 2, RESTART_MAX_S)
