"""From a configuration file to a running engine, and from its end to an exit status.

Owns: signals (SIGHUP reloads, SIGTERM and SIGINT stop, a second one ends at once), the limits of the
process, the admin server.
"""

from __future__ import annotations

import asyncio
import importlib
import resource
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import uvloop

from engine.core.errors import ConfigError
from engine.supervisor.plan import Plan
from engine.supervisor.steering import Steering
from engine.supervisor.supervisor import SHARD_COMMAND, Supervisor
from engine.telemetry.log import Log, capture_standard_logging, configure_log

if TYPE_CHECKING:
    from engine.admin.server import AdminServer

MAX_DESCRIPTORS = 1 << 20  # sessions of a big host; fs.nr_open's default, above which sysctl has to allow it

log = Log("supervisor")


def serve(config_path: str, shard_command: Sequence[str] = SHARD_COMMAND) -> int:
    """Run an engine until it is told to stop; return the exit status."""
    _raise_limits()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config_path, shard_command))
    except ConfigError as error:
        sys.stderr.write(f"mailrail: {error}\n")
        return 1


async def _serve(config_path: str, shard_command: Sequence[str]) -> int:
    return await Running(config_path, shard_command).run()


class Running:
    """A supervisor with its signals and its admin server."""

    def __init__(self, config_path: str, shard_command: Sequence[str]) -> None:
        self._supervisor = Supervisor(config_path, self._apply, shard_command)
        self._admin: AdminServer | None = None  # made once the shards are on their way
        self._admin_key = ""
        self._stop_asked = asyncio.Event()
        self._kill_asked = asyncio.Event()
        self._reload_asked = False
        self._reload_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> int:
        """Serve until stopped; 0 after a graceful stop, 1 after one that was cut short."""
        self._watch_signals()
        opening = self._spawn(self._supervisor.open())
        try:
            if await self._wait_unless(self._stop_asked, opening):
                opening.result()  # a ConfigError goes to the caller
                self._spawn(self._supervisor.figures.watch())
                await self._stop_asked.wait()
            opening.cancel()
            return 0 if await self._stop() else 1
        finally:
            await self._close()

    async def _stop(self) -> bool:
        """Stop gracefully; return whether nobody became impatient."""
        stopping = self._spawn(self._supervisor.stop())
        if not await self._wait_unless(self._kill_asked, stopping):
            log.warning("ended at once, as asked twice")
            return False
        stopping.result()
        return True

    async def _close(self) -> None:
        self._supervisor.kill()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._admin is not None:
            await self._admin.close()

    async def _wait_unless(self, event: asyncio.Event, task: asyncio.Task[Any]) -> bool:
        """Wait for a task or an event; return whether the task is done."""
        waiting = self._spawn(event.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return task.done()

    async def _apply(self, plan: Plan) -> None:
        """Follow a plan that is in force: the log's level and form, the admin API's address."""
        engine = plan.model.settings.engine
        configure_log(engine.log_level, process="supervisor", is_json=engine.log_format == "json")
        capture_standard_logging()
        if self._admin is None:
            # Aiohttp takes 0.1 s to import: the shards of a start are spawned meanwhile.
            module = await asyncio.to_thread(importlib.import_module, "engine.admin.server")
            self._admin = module.AdminServer(Steering(self._supervisor))
            assert self._admin is not None
        if plan.admin != self._admin_key:
            await self._admin.open(self._supervisor.listeners.sockets[plan.admin].dup())
            self._admin_key = plan.admin
            self._supervisor.data_dir.record_admin(plan.admin)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_stop)
        loop.add_signal_handler(signal.SIGHUP, self._ask_reload)

    def _ask_stop(self) -> None:
        if self._stop_asked.is_set():
            self._kill_asked.set()
        self._stop_asked.set()

    def _ask_reload(self) -> None:
        """Reload once more, however often we are asked while a reload runs."""
        if not self._reload_asked:
            self._reload_asked = True
            self._spawn(self._reload())

    async def _reload(self) -> None:
        async with self._reload_lock:
            self._reload_asked = False
            try:
                await self._supervisor.reload()
            except ConfigError:
                pass  # logged where it was refused
            except Exception as error:  # our bug, and nobody waits for this task: the log has to say it
                log.error("reload failed", error=repr(error))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _raise_limits() -> None:
    """Allow as many descriptors as the hard limit does; shards inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
