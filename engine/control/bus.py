"""A link: requests, their replies and notifications over one unix stream, both ways at once.

A handler is called with the body and returns the result, or a future or coroutine of it. Requests
are handled in the order of their arrival but answered in any order. A handler that can't do what was
asked raises a MailrailError: the asker gets NetworkError("request", its text). Any other exception,
and any at all in a notification, which has no asker, is a bug: the loop's exception handler decides
what becomes of the process.

No batching of our own: uvloop gathers the writes of one loop turn into one writev.

Owns: request ids, pending requests, the bound on them.
Never: reconnects, knows what a kind means.
Fails: NetworkError("link", ...) for everything pending when the stream ends, and for every request after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from engine.control.protocol import ERROR, NOTIFICATION_ID, RESULT, LinkReader, encode_frame
from engine.core.errors import MailrailError, NetworkError, RemoteProtocolError

MAX_PENDING = 20_000  # requests awaiting their reply on one link: twice the default ready window of a shard
WRITE_HIGH_BYTES = 4 * 1024 * 1024  # unsent octets at which a link says that it is congested

Handler = Callable[[Any], Any]
Done = Callable[[Any, NetworkError | None], None]


class Link(asyncio.Protocol):
    """One end of a control stream.

    `handlers` may be changed while the link is up. `on_lost(link)` is called once, after everything
    pending has failed.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        name: str = "",
        on_lost: Callable[[Link], None] | None = None,
    ) -> None:
        self.handlers = handlers
        self.name = name
        self.is_open = False
        self.is_congested = False
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._reader = LinkReader()
        self._pending: dict[int, Done] = {}
        self._last_id = NOTIFICATION_ID
        self._tasks: set[asyncio.Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<Link {self.name} {state}, {len(self._pending)} pending>"

    # -- asking ----------------------------------------------------------------------------

    def send(self, kind: str, body: Any, done: Done) -> None:
        """Ask; `done(result, None)` or `done(None, error)` is called exactly once, maybe at once. HOT."""
        if not self.is_open:
            done(None, NetworkError("link", f"{self.name} is closed"))
            return
        if len(self._pending) >= MAX_PENDING:
            done(None, NetworkError("link", f"{self.name} has {MAX_PENDING} requests pending"))
            return
        self._last_id = request_id = self._last_id + 1
        self._pending[request_id] = done
        self._write(kind, request_id, body)

    async def request(self, kind: str, body: Any = None, timeout_s: float | None = None) -> Any:
        """Ask and wait for the result.

        Raises:
            NetworkError: link lost ("link"), the other side refused ("request") or took too long ("timeout").
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: NetworkError | None) -> None:
            if future.done():
                return  # given up by its time limit
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.send(kind, body, done)
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise NetworkError("timeout", f"{self.name} did not answer {kind!r} in {timeout_s:g} s") from None

    def notify(self, kind: str, body: Any = None) -> None:
        """Tell, without an answer; nothing happens on a closed link."""
        if self.is_open:
            self._write(kind, NOTIFICATION_ID, body)

    def close(self) -> None:
        """Close after what is written has been sent."""
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def _write(self, kind: str, request_id: int, body: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(encode_frame(kind, request_id, body))

    # -- asyncio.Protocol ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self.is_open = True

    def pause_writing(self) -> None:
        self.is_congested = True

    def resume_writing(self) -> None:
        self.is_congested = False

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
            for kind, request_id, body in frames:
                if kind == RESULT:
                    self._settle(request_id, body, None)
                elif kind == ERROR:
                    self._settle(request_id, None, NetworkError("request", str(body)))
                else:
                    self._handle(kind, request_id, body)
        except RemoteProtocolError as error:
            self._fail(f"{self.name}: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"{self.name} was lost" + (f": {error}" if error else ""))
        if self._on_lost is not None:
            on_lost, self._on_lost = self._on_lost, None
            on_lost(self)

    # -- answering -------------------------------------------------------------------------

    def _settle(self, request_id: int, result: Any, error: NetworkError | None) -> None:
        done = self._pending.pop(request_id, None)
        if done is None:
            raise RemoteProtocolError(f"a reply to request {request_id}, which nobody made")
        done(result, error)

    def _handle(self, kind: str, request_id: int, body: Any) -> None:
        handler = self.handlers.get(kind)
        if handler is None:
            self._answer_error(request_id, f"nobody here answers {kind!r}")
            return
        try:
            result = handler(body)
        except Exception as error:  # told to the asker and to the loop
            self._answer_failure(kind, request_id, error)
            return
        if asyncio.isfuture(result) or asyncio.iscoroutine(result):
            self._await(kind, request_id, result)
        elif request_id:
            self._write(RESULT, request_id, result)

    def _await(
        self, kind: str, request_id: int, result: asyncio.Future[Any] | Coroutine[Any, Any, Any]
    ) -> None:
        future = asyncio.ensure_future(result)
        self._tasks.add(future)

        def finished(future: asyncio.Future[Any]) -> None:
            self._tasks.discard(future)
            if future.cancelled():
                self._answer_error(request_id, f"{kind!r} was cancelled")
            elif (error := future.exception()) is not None:
                self._answer_failure(kind, request_id, error)
            elif request_id:
                self._write(RESULT, request_id, future.result())

        future.add_done_callback(finished)

    def _answer_failure(self, kind: str, request_id: int, error: BaseException) -> None:
        self._answer_error(request_id, f"{type(error).__name__}: {error}")
        if not request_id or not isinstance(error, MailrailError):
            context = {"message": f"handler of {kind!r} failed", "exception": error, "protocol": self}
            assert self._loop is not None
            self._loop.call_exception_handler(context)

    def _answer_error(self, request_id: int, text: str) -> None:
        if request_id:
            self._write(ERROR, request_id, text)

    def _fail(self, detail: str) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
        pending, self._pending = self._pending, {}
        for done in pending.values():
            done(None, NetworkError("link", detail))


async def open_link(sock: socket.socket, link: Link) -> Link:
    """Put `link` on one end of a socketpair."""
    sock.setblocking(False)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
    return link


async def connect_link(path: str, link: Link) -> Link:
    """Connect `link` to the unix socket at `path`.

    Raises:
        NetworkError: nobody listens there.
    """
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: link, path)
    except OSError as error:
        raise NetworkError("link", f"{path}: {error.strerror or error}") from None
    return link


async def serve_links(path: str, make_link: Callable[[], Link]) -> asyncio.AbstractServer:
    """Listen at `path` (mode 0600; what a dead process left there is replaced)."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(mask)
    return await asyncio.get_running_loop().create_unix_server(make_link, sock=sock)
