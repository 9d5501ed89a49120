"""The process of one shard: event loop, control link, its end.

A bug ends the process: whatever the loop's exception handler hears of is logged and the shard dies, the
supervisor starts another, and the store replays what was not finished.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import socket
import traceback
from collections.abc import Sequence
from typing import Any

import uvloop

from engine.control.bus import Link, open_link
from engine.control.fds import ListenerInbox
from engine.control.lifetime import end_with_parent, leave_signals_to_supervisor
from engine.shard.duties import Duties
from engine.telemetry.log import Log

EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h

log = Log("shard")


def main(argv: Sequence[str]) -> int:
    """Run a shard until its supervisor ends it."""
    parser = argparse.ArgumentParser(prog="mailrail _shard")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--fds-fd", type=int, required=True)
    arguments = parser.parse_args(argv)
    end_with_parent()
    leave_signals_to_supervisor()
    os.umask(0o027)  # event logs are for the engine's group too; what is not says so itself
    # Deliveries and envelopes are no containers to the collector (gc=False); what is left makes few cycles.
    gc.set_threshold(50_000, 20, 50)
    return uvloop.run(_run(arguments.control_fd, arguments.fds_fd))


async def _run(control_fd: int, fds_fd: int) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_die)
    ended = loop.create_future()

    def lost(_link: Link) -> None:
        if not ended.done():
            ended.set_result(None)

    inbox = ListenerInbox(socket.socket(fileno=fds_fd))
    duties = Duties(inbox, stop=lambda: lost(link))
    link = Link(duties.handlers(), name="supervisor", on_lost=lost)
    duties.link = link
    await open_link(socket.socket(fileno=control_fd), link)
    gc.freeze()
    await ended
    duties.close()
    # Where the supervisor is gone, sessions may be open. What they had in flight is in the store and is tried
    # again; to settle it as lost, into a store that is closed, would be wrong, so nothing of the loop runs
    # any more.
    os._exit(0)


def _die(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log a bug and end the process at once: what it would do next can't be trusted."""
    error = context.get("exception")
    trace = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    log.error("shard dies of a bug", message=str(context.get("message", "")), error=repr(error), trace=trace)
    os._exit(EXIT_BUG)
