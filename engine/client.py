"""Clients of the injection socket, for programs that send through Mailrail.

    with SocketClient("/run/mailrail/inject.sock") as client:
        reply = client.submit("news@acme.example", ["ann@x.example"], message)
        reply.is_accepted, reply.code, reply.text, reply.message_ids

        for reply in client.submit_all(Submission(...) for row in rows):   # many in flight
            ...

    async with AsyncSocketClient("/run/mailrail/inject.sock") as client:
        replies = await asyncio.gather(*[client.submit(...) for row in rows])

A reply comes when the message is on the engine's disk (`durability = "sync"`). A refusal is a reply with a
code of 400 and more: below 500 try again later. Where the connection is lost, `ConnectionLost` has the ids
that were not answered; they may have been taken or not. Give a message an `id` of your own and
`idempotent=True` (with a trusted listener also `customer`) and you may repeat it for 24 hours: it is taken
once, and every repeat gets the first reply.

Owns: one connection, and the ids in flight on it.
Never: connects again by itself, changes a message. Needs nothing but msgspec of the engine's packages.
Fails: ConnectionLost.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

import msgspec

HEAD_BYTES = 4
MAX_IN_FLIGHT = 256  # half of what the engine takes on one connection before it stops reading
MAX_REPLY_BYTES = 1 << 20  # a reply has some 150 octets
TIMEOUT_S = 60.0

SubmissionId = int | str
Result = TypeVar("Result")  # of submit: the reply, or what is awaited for it


class Submission(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One message. `id` may be left out where it is not idempotent: the client numbers them."""

    id: SubmissionId | None = None
    sender: str  # "" is the null reverse-path
    recipients: Sequence[str]
    message: bytes  # header and body; lines end with CRLF throughout, or with LF throughout
    customer: str = ""
    pool: str = ""
    job: str = ""
    tags: dict[str, str] = {}
    idempotent: bool = False
    notify: str = ""  # for all recipients: "NEVER", or some of "SUCCESS,FAILURE,DELAY"
    envid: str = ""  # comes back in notifications
    ret: str = ""  # "FULL" or "HDRS": what a notification of failure gives back
    hold_for: int = 0  # seconds before it is sent
    deliver_by: str = ""  # "3600;E": give up after an hour; "3600;N": tell the sender then (docs/feeds.md)
    requires_tls: bool = False  # never in clear, on no hop (RFC 8689)


class SubmissionReply(msgspec.Struct, frozen=True):
    """What became of a submission."""

    id: SubmissionId | None
    code: int
    enhanced: str
    text: str
    message_ids: list[str] = []

    @property
    def is_accepted(self) -> bool:
        return 200 <= self.code < 300

    @property
    def is_temporary(self) -> bool:
        return 400 <= self.code < 500


class ConnectionLost(Exception):
    """The connection ended. `unanswered` are the ids of submissions that may have been taken or not."""

    def __init__(self, detail: str, unanswered: Sequence[SubmissionId] = ()) -> None:
        super().__init__(detail)
        self.unanswered = list(unanswered)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SubmissionReply).decode


class _Flight:
    """Ids in flight, and the octets of both directions; shared by both clients."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._buffer = bytearray()
        self.ids: dict[SubmissionId, None] = {}

    def frame(self, submission: Submission) -> tuple[SubmissionId, bytes]:
        """Return the id and the frame of a submission, now in flight."""
        if submission.id is None:
            if submission.idempotent:
                raise ValueError("an idempotent submission needs an id of its own")
            submission = msgspec.structs.replace(submission, id=self._next_id())
        frame_id = submission.id
        assert frame_id is not None
        if frame_id in self.ids:
            raise ValueError(f"id {frame_id!r} is in flight already")
        payload = _encode(submission)
        self.ids[frame_id] = None
        return frame_id, len(payload).to_bytes(HEAD_BYTES, "big") + payload

    def read(self, data: bytes) -> list[SubmissionReply]:
        """Return the replies that `data` completes.

        Raises:
            ConnectionLost: it is no reply, or one that ends the connection.
        """
        self._buffer += data
        replies = []
        while len(self._buffer) >= HEAD_BYTES:
            end = HEAD_BYTES + int.from_bytes(self._buffer[:HEAD_BYTES], "big")
            if end > MAX_REPLY_BYTES:
                raise self.lost("what came is no reply")
            if len(self._buffer) < end:
                break
            replies.append(self._parse(bytes(self._buffer[HEAD_BYTES:end])))
            del self._buffer[:end]
        return replies

    def lost(self, detail: str) -> ConnectionLost:
        """Return the error for everything that is in flight."""
        unanswered = list(self.ids)
        self.ids.clear()
        return ConnectionLost(detail, unanswered)

    def _parse(self, payload: bytes) -> SubmissionReply:
        try:
            reply = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.lost(f"what came is no reply: {error}") from None
        if reply.id is None:
            raise self.lost(f"{reply.code} {reply.enhanced} {reply.text}")
        self.ids.pop(reply.id, None)
        return reply

    def _next_id(self) -> int:
        return next(number for number in self._numbers if number not in self.ids)


class _Client(ABC, Generic[Result]):
    """What both clients have: what is in flight, and how one message is submitted."""

    def __init__(self) -> None:
        self._flight = _Flight()

    def submit(  # noqa: PLR0913 (a submission's fields)
        self,
        sender: str,
        recipients: Sequence[str],
        message: bytes,
        *,
        id: SubmissionId | None = None,  # noqa: A002 (the name of the field)
        customer: str = "",
        pool: str = "",
        job: str = "",
        tags: dict[str, str] | None = None,
        idempotent: bool = False,
        notify: str = "",
        envid: str = "",
        ret: str = "",
        hold_for: int = 0,
        deliver_by: str = "",
        requires_tls: bool = False,
    ) -> Result:
        """Submit one message and wait for its reply (the asyncio client: await it).

        Raises:
            ConnectionLost: no reply came.
        """
        return self._submit(
            Submission(
                id=id,
                sender=sender,
                recipients=recipients,
                message=message,
                customer=customer,
                pool=pool,
                job=job,
                tags=tags or {},
                idempotent=idempotent,
                notify=notify,
                envid=envid,
                ret=ret,
                hold_for=hold_for,
                deliver_by=deliver_by,
                requires_tls=requires_tls,
            )
        )

    @abstractmethod
    def _submit(self, submission: Submission) -> Result: ...


class SocketClient(_Client[SubmissionReply]):
    """A blocking client. Not for several threads at once: each takes its own."""

    def __init__(
        self, path: str, *, timeout_s: float = TIMEOUT_S, max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        """Connect. `timeout_s` is for each wait; OSError where nobody listens."""
        super().__init__()
        self._max_in_flight = max_in_flight
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> SocketClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; what is in flight is not waited for."""
        self._socket.close()

    def _submit(self, submission: Submission) -> SubmissionReply:
        (reply,) = self.submit_all([submission])
        return reply

    def submit_all(self, submissions: Iterable[Submission]) -> Iterator[SubmissionReply]:
        """Submit many, `max_in_flight` at once; yield the replies in the order in which they come.

        A submission without an id gets one before it is sent, the reply has it: numbers from 1 on, in order.
        Whoever leaves before the last reply ends the connection.

        Raises:
            ConnectionLost: with the ids that were not answered.
        """
        assert not self._flight.ids, "one submit_all at a time"
        try:
            for submission in submissions:
                while len(self._flight.ids) >= self._max_in_flight:
                    yield from self._receive()
                self._send(self._flight.frame(submission)[1])
            while self._flight.ids:
                yield from self._receive()
        except ConnectionLost:
            self.close()
            raise
        finally:
            if self._flight.ids:
                self.close()

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.sendall(frame)
        except OSError as error:
            raise self._why_lost(error) from error

    def _why_lost(self, error: OSError) -> ConnectionLost:
        """The engine may have said why before it closed."""
        try:
            while data := self._socket.recv(1 << 16):
                self._flight.read(data)
        except OSError:
            pass
        except ConnectionLost as lost:
            return lost
        return self._flight.lost(str(error))

    def _receive(self) -> list[SubmissionReply]:
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError as error:
            raise self._flight.lost("no reply in time") from error
        except OSError as error:
            raise self._flight.lost(str(error)) from error
        if not data:
            raise self._flight.lost("the engine has closed the connection")
        return self._flight.read(data)


class AsyncSocketClient(_Client[Coroutine[Any, Any, SubmissionReply]], asyncio.Protocol):
    """A client for asyncio; any number of tasks may submit at once."""

    def __init__(self, path: str, *, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        super().__init__()
        self._path = path
        self._room = asyncio.Semaphore(max_in_flight)
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._futures: dict[SubmissionId, asyncio.Future[SubmissionReply]] = {}
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] | None = None
        self._lost: ConnectionLost | None = None

    async def __aenter__(self) -> AsyncSocketClient:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect; OSError where nobody listens."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_unix_connection(lambda: self, self._path)
        self._closed = loop.create_future()

    async def close(self) -> None:
        """End the connection; what is in flight fails with ConnectionLost."""
        if self._transport is not None:
            self._transport.close()
        if self._closed is not None:
            await self._closed

    async def _submit(self, submission: Submission) -> SubmissionReply:
        async with self._room:
            await self._can_write.wait()
            if self._lost is not None or self._transport is None:
                raise self._lost or ConnectionLost("not connected")
            frame_id, frame = self._flight.frame(submission)
            future: asyncio.Future[SubmissionReply] = asyncio.get_running_loop().create_future()
            self._futures[frame_id] = future
            self._transport.write(frame)
            return await future

    # -- asyncio ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand out replies."""
        try:
            replies = self._flight.read(data)
        except ConnectionLost as lost:
            self._fail(lost)
            return
        for reply in replies:
            future = self._futures.pop(reply.id, None) if reply.id is not None else None
            if future is not None and not future.done():
                future.set_result(reply)

    def pause_writing(self) -> None:
        """The engine takes less than we send: submit waits."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """It takes more."""
        self._can_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was not answered has failed."""
        self._fail(self._flight.lost(str(exc) if exc else "the connection is closed"))
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _fail(self, lost: ConnectionLost) -> None:
        self._lost = self._lost or lost
        self._can_write.set()
        futures, self._futures = self._futures, {}
        for frame_id, future in futures.items():
            if not future.done():
                future.set_exception(ConnectionLost(str(self._lost), [frame_id]))
        if self._transport is not None:
            self._transport.close()
