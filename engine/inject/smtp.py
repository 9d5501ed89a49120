"""SMTP listeners: asyncio's side of the conversations of injectors. HOT.

A listener serves one listening socket that all shards share. Each connection has a ServerConversation that
speaks SMTP; this module has what that can't: the transport, the clock, who may connect, and the wait for
the acceptor's commit. While a message waits, what the client pipelines behind it is kept up to a bound and
then not read.

Owns: sessions of injectors, their number and their timers.
Never: knows SMTP (smtp.server does), decides about a message (inject.accept does).
Source: RFC 5321 4.5.3.2 (timers), 3.8 (421 when stopping). After: asyncio's own Protocol idiom.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, cast

from engine.core.reply import Reply, make_reply
from engine.inject.context import FeedContext
from engine.inject.room import Room
from engine.net.accepting import Accepting
from engine.settings.model import ListenerSettings
from engine.smtp.server import ServerConversation, ServerLimits, Transaction
from engine.smtp.wire import format_reply
from engine.telemetry.log import Log
from engine.telemetry.metrics import Cell, Counters

COMMAND_TIMEOUT_S = 300  # RFC 5321 4.5.3.2.7
DATA_BLOCK_TIMEOUT_S = 180  # RFC 5321 4.5.3.2.5, between two reads of a message
MESSAGE_TIMEOUT_S = 3600  # a whole message: one octet every three minutes is no sender
SWEEP_S = 1.0
LARGE_MESSAGE_BYTES = 256 << 10  # a message that grows past it needs room to be read on
ROOM_BYTES = 256 << 20  # for all large messages that a listener is receiving
MAX_KEPT_BYTES = 65536  # pipelined behind a message that waits for its commit; then the socket is not read

log = Log("smtp")


class Intake(Protocol):
    """What a listener needs of the acceptor."""

    def check_sender(self, context: FeedContext, sender: str) -> Reply | None: ...

    def accept(
        self,
        sender: str,
        recipients: list[str],
        message: bytes,
        is_8bit: bool,
        context: FeedContext,
        done: Callable[[Reply, list[str]], None],
    ) -> None: ...


class SMTPListener:
    """The sessions of one listening socket in one shard."""

    def __init__(self, settings: ListenerSettings, acceptor: Intake, counters: Counters) -> None:
        self.acceptor = acceptor
        self.sessions: set[SMTPSession] = set()
        self.is_stopping = False
        self.room = Room(ROOM_BYTES)
        self._counters = counters
        self._refusals: dict[int, Cell] = {}
        self._accepting: Accepting | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self.accept_seconds = counters.histogram("mailrail_accept_seconds", feed="smtp")
        counters.watch("mailrail_inbound_sessions", self._count_sessions)
        self.use(settings)

    def use(self, settings: ListenerSettings) -> None:
        """Take new settings; sessions that are open keep theirs."""
        self.settings = settings
        self.limits = ServerLimits(
            settings.hostname,
            max_message_bytes=settings.max_message_size_bytes,
            max_recipients=settings.max_recipients,
        )
        networks = tuple(ipaddress.ip_network(network) for network in settings.allow)
        self.may_inject = lru_cache(maxsize=4096)(lambda peer: _is_in(peer, networks))

    async def open(self, sock: socket.socket) -> None:
        """Accept connections from a socket that listens already."""
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self._accepting = Accepting(sock, lambda: SMTPSession(self))
        self._sweeper = loop.call_later(SWEEP_S, self._sweep_again)

    async def stop(self, grace_s: float) -> None:
        """Accept no more; end idle sessions at once, the others after their transaction or `grace_s`."""
        self.is_stopping = True
        self._stop_accepting()
        for session in [*self.sessions]:
            session.shut()
        if self.sessions:
            self._emptied = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied, grace_s)
        self.close()

    def close(self) -> None:
        """End everything at once."""
        self.is_stopping = True
        self._stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for session in [*self.sessions]:
            session.abort()
        self.sessions.clear()

    def sweep(self) -> None:
        """One second has passed: end the sessions that are silent for too long."""
        for session in [*self.sessions]:
            session.tick()

    def forget(self, session: SMTPSession) -> None:
        """Its connection is gone."""
        self.sessions.discard(session)
        if self._emptied is not None and not self.sessions and not self._emptied.done():
            self._emptied.set_result(None)

    def count_refusal(self, code: int) -> None:
        """A reply above 399 was said."""
        cell = self._refusals.get(code)
        if cell is None:
            cell = self._counters.counter("mailrail_refusals_total", feed="smtp", code=str(code))
            self._refusals[code] = cell
        cell[0] += 1

    def refusal(self, peer: str) -> Reply | None:
        """Return why a client may not connect now, None if it may."""
        if self.is_stopping:
            return make_reply(421, "4.3.2", f"{self.limits.hostname} is stopping, try again later")
        if not self.may_inject(peer):
            return make_reply(554, "5.7.1", f"{self.limits.hostname} takes no mail from {peer}")
        if len(self.sessions) >= self.settings.max_connections:
            return make_reply(
                421, "4.3.2", f"{self.limits.hostname} has too many connections, try again later"
            )
        return None

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None

    def _sweep_again(self) -> None:
        self.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_again)

    def _count_sessions(self) -> dict[tuple[str, ...], float]:
        return {(self.settings.name,): len(self.sessions)} if self.sessions else {}


class SMTPSession(asyncio.Protocol):
    """One connection of an injector."""

    __slots__ = (
        "_context",
        "_conversation",
        "_ended_at",
        "_is_full",
        "_is_handing",
        "_is_paused",
        "_is_waiting",
        "_listener",
        "_message_ticks",
        "_peer",
        "_reply",
        "_room_bytes",
        "_ticks",
        "_transport",
    )

    def __init__(self, listener: SMTPListener) -> None:
        self._listener = listener
        self._conversation = ServerConversation(listener.limits, self._check_sender)
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._context: FeedContext | None = None
        self._ticks = 0  # seconds since the last command, or the last piece of a message
        self._message_ticks = 0  # seconds since DATA
        self._is_handing = False  # inside acceptor.accept
        self._reply: Reply | None = None  # what accept said at once
        self._ended_at = 0.0  # when the end of the message that waits was read
        self._is_paused = False  # nothing is read: too much is kept, or the client does not read
        self._is_full = False  # the client does not read our replies
        self._room_bytes = 0  # reserved, or asked for, for a large message
        self._is_waiting = False  # for that room

    # -- asyncio ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or say why not."""
        self._transport = cast(asyncio.Transport, transport)
        self._peer = format_peer(transport.get_extra_info("peername"))
        refusal = self._listener.refusal(self._peer)
        if refusal is not None:
            self._listener.count_refusal(refusal.code)
            log.info("connection refused", listener=self._listener.settings.name, reason=str(refusal))
            self._transport.write(format_reply(refusal.code, refusal.enhanced, refusal.text))
            self._transport.close()
            return
        self._listener.sessions.add(self)
        self._transport.write(self._conversation.greeting())

    def data_received(self, data: bytes) -> None:
        """Let the conversation read, write what it says, hand over what is complete. HOT."""
        conversation = self._conversation
        out = conversation.receive(data)
        if out or conversation.deadline_kind == "data":
            self._ticks = 0
        if conversation.completed is not None and not self._ended_at:
            if out:
                self._write(out)
            self._hand_over()
        else:
            self._write(out)
        if conversation.buffered_bytes > MAX_KEPT_BYTES:
            self._pause()
        if conversation.content_bytes > LARGE_MESSAGE_BYTES or self._room_bytes:
            self._settle_room()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the reason changes nothing
        """What waits for its commit goes on; nobody is left to be told."""
        self._transport = None
        self._give_room_back()
        self._listener.forget(self)

    def pause_writing(self) -> None:
        """The client sends without reading: stop reading too, or its replies pile up here."""
        self._is_full = True
        self._pause()

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_full = False
        self._resume()

    # -- what the listener asks ---------------------------------------------------------------------------

    def tick(self) -> None:
        """One second has passed."""
        kind = self._conversation.deadline_kind
        if kind is None:
            return  # the commit has its own bounds
        if self._is_waiting:
            return  # we do not read; whoever has the room is timed
        self._ticks += 1
        self._message_ticks = self._message_ticks + 1 if kind == "data" else 0
        limit = DATA_BLOCK_TIMEOUT_S if kind == "data" else COMMAND_TIMEOUT_S
        if self._ticks > limit or self._message_ticks > MESSAGE_TIMEOUT_S:
            log.info(
                "session timed out", listener=self._listener.settings.name, peer=self._peer, waiting_for=kind
            )
            self._write(self._conversation.time_out())

    def shut(self) -> None:
        """End the session, after its transaction if one is open."""
        hostname = self._listener.limits.hostname
        self._write(
            self._conversation.shut(make_reply(421, "4.3.2", f"{hostname} is stopping, try again later"))
        )

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- messages -----------------------------------------------------------------------------------------

    def _check_sender(self, sender: str) -> Reply | None:
        return self._listener.acceptor.check_sender(self._make_context(), sender)

    def _make_context(self) -> FeedContext:
        """Return the context of this session's messages, made once per EHLO."""
        context = self._context
        helo = self._conversation.helo
        if context is None or context.helo != helo:
            settings = self._listener.settings
            context = self._context = FeedContext(
                "smtp",
                settings.name,
                customer=settings.customer,
                is_trusted=settings.trusted,
                peer=self._peer,
                helo=helo,
            )
        return context

    def _hand_over(self) -> None:
        """Give completed transactions to the acceptor, until one has to wait.

        The acceptor may answer before `accept` returns; that is handled here in a loop, for a client may
        pipeline thousands of messages that are refused at once.
        """
        conversation = self._conversation
        while conversation.completed is not None and self._transport is not None:
            self._ended_at = self._listener.now()
            reply = self._accept(conversation.completed)
            if reply is None:
                return
            self._finish(reply)

    def _accept(self, transaction: Transaction) -> Reply | None:
        """Return what the acceptor said at once; None: `_done` will be called."""
        self._reply = None
        self._is_handing = True
        self._listener.acceptor.accept(
            transaction.sender,
            transaction.recipients,
            transaction.message,
            transaction.is_8bit,
            self._make_context(),
            self._done,
        )
        self._is_handing = False
        return self._reply

    def _done(self, reply: Reply, message_ids: list[str]) -> None:  # noqa: ARG002  the reply names the id
        """The acceptor's word on the message that waits."""
        if self._is_handing:
            self._reply = reply
            return
        if self._transport is None:
            return
        self._finish(reply)
        self._hand_over()
        self._resume()

    def _finish(self, reply: Reply) -> None:
        listener = self._listener
        listener.accept_seconds.observe(listener.now() - self._ended_at)
        self._ended_at = 0.0
        self._ticks = 0
        self._write(self._conversation.finish(reply))
        if self._room_bytes:
            self._settle_room()

    # -- room ---------------------------------------------------------------------------------------------

    def _settle_room(self) -> None:
        """Ask for room for a large message that goes on; give it back for one that has ended."""
        conversation = self._conversation
        if conversation.completed is None and conversation.content_bytes <= LARGE_MESSAGE_BYTES:
            self._give_room_back()
        elif not self._room_bytes:
            self._room_bytes = self._listener.limits.max_message_bytes
            if not self._listener.room.reserve(self._room_bytes, self._granted):
                self._is_waiting = True
                self._pause()

    def _granted(self) -> None:
        self._is_waiting = False
        self._resume()

    def _give_room_back(self) -> None:
        reserved, self._room_bytes = self._room_bytes, 0
        if self._is_waiting:
            self._is_waiting = False
            self._listener.room.forget(self._granted)
        elif reserved:
            self._listener.room.release(reserved)

    # -- transport ----------------------------------------------------------------------------------------

    def _write(self, out: bytes) -> None:
        conversation, transport = self._conversation, self._transport
        if transport is None:
            return
        if conversation.refusals:
            for code in conversation.refusals:
                self._listener.count_refusal(code)
            conversation.refusals.clear()
        if out:
            transport.write(out)
        if conversation.is_closing:
            transport.close()

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Read again, if there is no reason left not to."""
        if not self._is_paused or self._is_full or self._is_waiting:
            return
        if self._conversation.buffered_bytes > MAX_KEPT_BYTES:
            return
        self._is_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def format_peer(peername: object) -> str:
    """Return the address of a peer; IPv4 in IPv6 as IPv4."""
    address = str(peername[0]) if isinstance(peername, tuple) and peername else ""
    return address.removeprefix("::ffff:") if "." in address else address


def _is_in(peer: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)
