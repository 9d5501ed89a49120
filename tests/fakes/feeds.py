"""What stands around a feed in tests: acceptors that a test answers for, transports, listeners."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from engine.core.envelope import Delivery, Envelope
from engine.core.reply import Reply, make_reply
from engine.inject.context import Done, FeedContext
from engine.inject.smtp import SMTPListener
from engine.inject.smtp_session import SMTPSession
from engine.inject.socket import SocketListener
from engine.inject.socket_session import SocketSession
from engine.inject.submission import Offer
from engine.settings.model import ListenerSettings
from engine.store.memory import MemoryStore
from engine.telemetry.metrics import Counters

QUEUED = make_reply(250, "2.0.0", "Ok: queued as 0123")
SMTP_SETTINGS = ListenerSettings(
    name="smtp:127.0.0.1:0",
    protocol="smtp",
    hostname="mta1.example.net",
    customer="acme",
    max_message_size_bytes=100_000,
)
SOCKET_SETTINGS = ListenerSettings(
    name="socket:/s", protocol="socket", customer="acme", max_message_size_bytes=20_000_000
)
HELLO = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"
MESSAGE = b"Subject: x\r\n\r\nbody\r\n"
FIELDS = {"id": 1, "sender": "a@acme.example", "recipients": ["b@x.example"], "message": MESSAGE}


# -- behind a feed ----------------------------------------------------------------------------------------


class Intake:
    """Remembers what it was given; answers at once with `reply`, or, where that is None, when told to."""

    def __init__(self, *, reply: Reply | None = QUEUED) -> None:
        self.reply = reply
        self.taken: list[tuple[str, list[str], bytes, bool, FeedContext]] = []
        self.waiting: list[Done] = []

    def check_sender(self, context: FeedContext, sender: str) -> Reply | None:
        return make_reply(550, "5.7.1", "not yours") if sender.endswith("@evil.example") else None

    def accept(
        self, sender: str, recipients: list[str], message: bytes, is_8bit: bool, context: Any, done: Done
    ) -> None:
        self.taken.append((sender, recipients, message, is_8bit, context))
        if self.reply is None:
            self.waiting.append(done)
        else:
            self._tell(done, self.reply)

    def answer(self, code: int = 250, enhanced: str = "2.0.0", text: str = "Ok") -> None:
        """Answer everything that waits."""
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            self._tell(done, make_reply(code, enhanced, text))

    @staticmethod
    def _tell(done: Done, reply: Reply) -> None:
        done(reply, ["0123"] if reply.is_positive else [])


class Door:
    """Stores what it is given with its claim and its repeatable id, as the acceptor does; a test commits."""

    def __init__(self, store: MemoryStore, now: float = 0.0) -> None:
        self.store = store
        self.now = now
        self.taken: list[bytes] = []  # refused ones are not
        self.refusal: Reply | None = None
        self.is_async = False

    def accept(
        self, sender: str, recipients: list[str], message: bytes, is_8bit: bool, context: Any, done: Done
    ) -> None:
        if self.refusal is not None:
            done(self.refusal, [])
            return
        self.taken.append(message)
        message_id = len(self.taken).to_bytes(12, "big")
        envelope = Envelope(sender, context.customer, "p", self.now, len(message), context.feed)
        delivery = Delivery(message_id, 0, envelope, "x.example", recipients, self.now, message)

        def committed(error: object) -> None:
            if error is None:
                done(make_reply(250, "2.0.0", f"Ok: queued as {message_id.hex()}"), [message_id.hex()])
            else:
                done(make_reply(452, "4.3.1", "full"), [])

        self.store.put(
            [delivery],
            message,
            (lambda _error: None) if self.is_async else committed,
            claim=context.claim,
            idempotency=context.idempotency,
            reply=message_id if context.idempotency else b"",
        )
        if self.is_async:
            committed(None)


class Repeats:
    """The keeper of repeatable ids, which only remembers."""

    def __init__(self) -> None:
        self.offers: list[Offer] = []

    def submit(self, offer: Offer, done: Done) -> None:
        self.offers.append(offer)


# -- before a feed ----------------------------------------------------------------------------------------


class FeedTransport(asyncio.Transport):
    """What a session writes, and whether it reads."""

    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)
        self.written = b""
        self.is_reading_now = True
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        assert self.is_reading_now
        self.is_reading_now = False

    def resume_reading(self) -> None:
        assert not self.is_reading_now
        self.is_reading_now = True


class SMTPTransport(FeedTransport):
    """The replies of an SMTP session."""

    def codes(self) -> list[int]:
        return [int(line[:3]) for line in self.written.split(b"\r\n")[:-1] if line[3:4] != b"-"]


class SocketTransport(FeedTransport):
    """The answers of a connection of the injection socket."""

    def answers(self) -> list[dict[str, Any]]:
        found, at = [], 0
        while at < len(self.written):
            end = at + 4 + int.from_bytes(self.written[at : at + 4], "big")
            found.append(msgspec.msgpack.decode(self.written[at + 4 : end]))
            at = end
        return found

    def codes(self) -> list[tuple[Any, int]]:
        return [(answer["id"], answer["code"]) for answer in self.answers()]


def frame(payload: bytes | None = None, **changes: Any) -> bytes:
    """Return a frame of the injection socket: a submission's fields with these changes, or just octets."""
    payload = msgspec.msgpack.encode({**FIELDS, **changes}) if payload is None else payload
    return len(payload).to_bytes(4, "big") + payload


# -- feeds ------------------------------------------------------------------------------------------------


def make_smtp(intake: Intake, **changes: Any) -> SMTPListener:
    """Return an SMTP listener that is not open; its clock stands still."""
    made = SMTPListener(msgspec.structs.replace(SMTP_SETTINGS, **changes), intake, Counters())
    made.now = lambda: 0.0
    return made


def connect_smtp(listener: SMTPListener, peer: str = "127.0.0.1") -> tuple[SMTPSession, SMTPTransport]:
    """Return a new session and what it writes to."""
    session, transport = SMTPSession(listener), SMTPTransport(peername=(peer, 4000))
    session.connection_made(transport)
    return session, transport


def make_socket(intake: Intake, **changes: Any) -> SocketListener:
    """Return a listener of an injection socket that is not open; its clock stands still."""
    made = SocketListener(msgspec.structs.replace(SOCKET_SETTINGS, **changes), intake, Repeats(), Counters())
    made.now = lambda: 0.0
    return made


def connect_socket(listener: SocketListener) -> tuple[SocketSession, SocketTransport]:
    """Return a new session and what it writes to."""
    session, transport = SocketSession(listener), SocketTransport()
    session.connection_made(transport)
    return session, transport


def listening_socket(path: Path) -> socket.socket:
    """Return a unix socket that listens, as the supervisor hands it over."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(os.fspath(path))
    sock.listen()
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def serving_socket(listener: SocketListener, path: Path) -> AsyncIterator[SocketListener]:
    """Serve a listener on a real unix socket."""
    await listener.open(listening_socket(path), SocketSession)
    try:
        yield listener
    finally:
        listener.close()
