"""Connections of the injection socket: frames in, answers out, many in flight. HOT.

Submissions are answered in any order, after their commit. A faulty submission is answered by its id and the
connection goes on; where framing is lost (too long a frame, a payload without an id) what is in flight is
answered, then it is closed.

Bounds: messages and octets in flight and the answers that a client does not read; a large frame that is
being received takes of the listener's room. At a bound the connection is not read.

Owns: one connection of an injector, its timers, what is in flight on it.
Never: knows what a submission may hold (inject.submission), decides about a message (inject.accept).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from functools import partial
from typing import cast

from engine.core.errors import Refused
from engine.core.framing import FrameReader
from engine.core.reply import Reply, make_reply
from engine.inject.context import FeedContext
from engine.inject.frames import FrameId, Misread, decode_submission, encode_answer
from engine.inject.listener import FeedSession
from engine.inject.room import Reservation
from engine.inject.socket import SocketListener
from engine.inject.submission import parse_submission
from engine.telemetry.log import Log

MAX_PENDING = 512  # as many as one commit takes (store.group); more in flight make nothing faster
MAX_PENDING_BYTES = 16 << 20
LARGE_FRAME_BYTES = 256 << 10  # longer ones reserve room before they are read
STALL_S = 60  # without an octet inside a frame; on one host nothing takes that long
FRAME_TIMEOUT_S = 600  # for a whole frame
UNREAD_S = 300  # a client that does not read its answers for so long is gone

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid

log = Log("socket")


class SocketSession(FeedSession):
    """One connection of an injector."""

    __slots__ = (
        "_context",
        "_frame_ticks",
        "_is_ending",
        "_is_full",
        "_is_paused",
        "_pending",
        "_pending_bytes",
        "_reader",
        "_ticks",
    )

    listener: SocketListener

    def __init__(self, listener: SocketListener) -> None:
        super().__init__(listener)
        self._reader = FrameReader(listener.max_frame_bytes)
        self._context: FeedContext
        self._pending = 0  # submissions not answered yet
        self._pending_bytes = 0
        self._ticks = 0  # seconds since the last octet inside a frame, or since the client stopped reading
        self._frame_ticks = 0  # seconds since the frame began
        self._is_paused = False  # nothing is read, for one of the reasons of `_must_wait`
        self._is_full = False  # the client does not read its answers
        self._is_ending = False  # nothing more is read; closed when all is answered

    # -- asyncio ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who it is, or say why not."""
        listener, settings = self.listener, self.listener.settings
        self.transport = cast(asyncio.Transport, transport)
        self._context = FeedContext(
            "socket",
            settings.name,
            customer=settings.customer,
            is_trusted=settings.trusted,
            peer=format_peer(transport.get_extra_info("socket")),
            max_hold_s=settings.max_hold_s,
        )
        refusal = listener.refusal()
        if refusal is not None:
            log.info("connection refused", listener=settings.name, reason=str(refusal))
            self._end(refusal)
            return
        listener.sessions.add(self)

    def data_received(self, data: bytes) -> None:
        """Take the submissions that `data` completes. HOT."""
        if self._is_ending:
            return
        self._ticks = 0
        reader = self._reader
        payloads = reader.feed(data)
        if payloads:
            self._frame_ticks = 0
            for payload in payloads:
                self._take(payload)
        if reader.excess_bytes:
            detail = f"frame of {reader.excess_bytes} octets, at most {self.listener.max_frame_bytes}"
            self._end(make_reply(552, "5.3.4", detail))
            return
        if reader.awaited_bytes > LARGE_FRAME_BYTES or self.reservation is not None:
            self._reserve()
        elif self.listener.is_stopping and not reader.is_inside:
            self._is_ending = True
        self._pause_or_resume()

    def eof_received(self) -> bool:
        """The client sends no more but may read: what is in flight is answered first."""
        self._is_ending = True
        self._pause_or_resume()
        return True

    def pause_writing(self) -> None:
        """The client does not read: stop reading too, or its answers pile up here."""
        self._is_full = True
        self._ticks = 0
        self._pause_or_resume()

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_full = False
        self._ticks = 0
        self._pause_or_resume()

    # -- what the listener asks ---------------------------------------------------------------------------

    def tick(self) -> None:
        """One second has passed."""
        self._ticks += 1
        if self._is_full:
            if self._ticks > UNREAD_S:
                log.info(
                    "client does not read", listener=self.listener.settings.name, peer=self._context.peer
                )
                self.abort()
            return
        if self._is_paused or self._is_ending or not self._reader.is_inside:
            self._ticks = 0
            return
        self._frame_ticks += 1
        if self._ticks > STALL_S or self._frame_ticks > FRAME_TIMEOUT_S:
            log.info("frame timed out", listener=self.listener.settings.name, peer=self._context.peer)
            self._end(make_reply(421, "4.4.2", "the frame that has begun does not end"))

    def shut(self) -> None:
        """End when what was submitted is answered; a frame that has begun may end."""
        if not self._reader.is_inside:
            self._is_ending = True
        self._pause_or_resume()

    # -- submissions --------------------------------------------------------------------------------------

    def _take(self, payload: memoryview) -> None:
        """Hand one submission over, or refuse it."""
        if self._is_ending:
            return
        listener = self.listener
        try:
            submission = decode_submission(payload)
        except Misread as misread:
            self._refuse_misread(misread)
            return
        frame_id = submission.id
        if listener.shedding.reply is not None:
            listener.shedding.count("socket")
            self._answer(frame_id, listener.shedding.reply, [])
            return
        try:
            offer = parse_submission(submission, listener.settings, self._context)
        except Refused as refused:
            self._answer(frame_id, refused.reply, [])
            return
        size_bytes = len(payload)
        self._pending += 1
        self._pending_bytes += size_bytes
        done = partial(self._done, frame_id, size_bytes, listener.now())
        if offer.context.idempotency:
            listener.repeats.submit(offer, done)
        else:
            listener.acceptor.accept(
                offer.sender, offer.recipients, offer.message, offer.is_8bit, offer.context, done
            )

    def _done(
        self, frame_id: FrameId, size_bytes: int, began: float, reply: Reply, message_ids: list[str]
    ) -> None:
        """The word on one submission. HOT."""
        listener = self.listener
        listener.accept_seconds.observe(listener.now() - began)
        self._pending -= 1
        self._pending_bytes -= size_bytes
        self._answer(frame_id, reply, message_ids)
        if self._is_paused or self._is_ending:
            self._pause_or_resume()

    def _refuse_misread(self, misread: Misread) -> None:
        log.info(
            "submission misread",
            listener=self.listener.settings.name,
            peer=self._context.peer,
            reason=str(misread),
        )
        reply = make_reply(501, "5.5.4", f"not a submission: {misread}")
        if misread.id is None:
            self._end(reply)
        else:
            self._answer(misread.id, reply, [])

    def _answer(self, frame_id: FrameId, reply: Reply, message_ids: list[str]) -> None:
        if reply.code >= 400:
            self.listener.count_refusal(reply.code)
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(encode_answer(frame_id, reply, message_ids))

    def _end(self, reply: Reply) -> None:
        """Say why, read no more, and close when what is in flight is answered."""
        self._answer(None, reply, [])
        self._is_ending = True
        self.give_room_back()
        self._pause_or_resume()

    # -- bounds -------------------------------------------------------------------------------------------

    def _reserve(self) -> None:
        """Reserve room for a large frame that has begun; give it back for one that has ended."""
        awaited = self._reader.awaited_bytes
        wanted = awaited if awaited > LARGE_FRAME_BYTES else 0
        if wanted == (0 if self.reservation is None else self.reservation.amount_bytes):
            return
        self.give_room_back()
        if wanted:
            self.reservation = Reservation(self.listener.room, wanted, self._granted)

    def _granted(self) -> None:
        self._ticks = 0
        self._pause_or_resume()

    def _must_wait(self) -> bool:
        """Once paused for what is in flight, read again when half of it is answered."""
        return (
            self._is_full
            or (self.reservation is not None and self.reservation.is_waiting)
            or self._is_ending
            or self._pending >= MAX_PENDING >> self._is_paused
            or self._pending_bytes >= MAX_PENDING_BYTES >> self._is_paused
        )

    def _pause_or_resume(self) -> None:
        """Read exactly if nothing speaks against it; close when nothing is left to do."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._is_ending and not self._pending:
            transport.close()
        elif self._must_wait() != self._is_paused:
            self._is_paused = not self._is_paused
            if self._is_paused:
                transport.pause_reading()
            else:
                transport.resume_reading()


def format_peer(sock: socket.socket | None) -> str:
    """Return who is at the other end of a unix socket, as the kernel knows it (SO_PEERCRED)."""
    if sock is None:
        return ""
    octets = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(octets)
    return f"uid {uid} pid {pid}"
