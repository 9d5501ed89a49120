"""Accepts on a listening socket that all shards share, one connection at a time.

asyncio's servers, uvloop's too, take every connection that waits when they wake: of 50 that come at once
the first shard to wake got all, and half of their messages had to be forwarded (40 us of 230 a message of
10 kB). One for each turn of the loop leaves the next to whichever shard is idle; a busy one takes few.

Owns: the reader on the socket, the pause when this process has no descriptor left.
Never: opens the socket (the supervisor does) or speaks on a connection.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

from engine.telemetry.log import Log

# Out of descriptors or memory: the connection stays in the backlog, and others may take it.
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
EXHAUSTED_PAUSE_S = 1.0

log = Log("accept")


Serve = Callable[[socket.socket], Awaitable[object]]


class Accepting:
    """Has each connection served, until closed."""

    def __init__(
        self,
        sock: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        serve: Serve | None = None,
    ) -> None:
        """Args:
        sock: listens, does not block, and is closed with this.
        factory: makes the protocol of a connection, where nothing comes before.
        serve: makes a protocol of a connection whatever comes before (a proxy's header, TLS); its OSErrors
            are those of a client that has left.
        """
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._factory = factory
        self._prepare = serve or self._connect
        self._tasks: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more; connections that were accepted stay."""
        if self._sock.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another shard was faster, or the client has left
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log.error("no descriptor for a connection", error=str(error), pause_s=EXHAUSTED_PAUSE_S)
            self._loop.remove_reader(self._sock.fileno())
            self._pause = self._loop.call_later(EXHAUSTED_PAUSE_S, self._go_on)
            return
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task: asyncio.Task[object] = self._loop.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self._prepare(connection)
        except OSError as error:  # the client has left meanwhile
            log.debug("connection not served", error=str(error))
            connection.close()

    async def _connect(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._factory, connection)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock.fileno(), self._accept)
