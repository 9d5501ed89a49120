"""Sessions of injectors: asyncio's side of one SMTP conversation. HOT.

A ServerConversation speaks SMTP; this has what that can't: the transport, the clock, and the wait for the
acceptor's commit. While a message waits, what the client pipelines behind it is kept up to a bound and
then not read.

Owns: one connection of an injector, its timers, its share of the listener's room.
Never: knows SMTP (smtp.server does), decides about a message (inject.accept does).
Source: RFC 5321 4.5.3.2 (timers), 3.8 (421 when stopping). After: asyncio's own Protocol idiom.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from msgspec import structs

from engine.core.reply import Reply
from engine.inject.context import FeedContext
from engine.inject.listener import FeedSession
from engine.inject.passwords import WRONG
from engine.inject.room import Reservation
from engine.inject.smtp import SMTPListener
from engine.inject.smtp_opening import format_peer, make_context, start_tls
from engine.net.proxied import Origin
from engine.smtp.access import Access, Handshake, Wanted
from engine.smtp.auth import Credentials
from engine.smtp.server import ServerConversation
from engine.smtp.transaction import Transaction
from engine.smtp.wire import format_reply
from engine.smtp.xclient import Attributes
from engine.telemetry.log import Log

COMMAND_TIMEOUT_S = 300  # RFC 5321 4.5.3.2.7
DATA_BLOCK_TIMEOUT_S = 180  # RFC 5321 4.5.3.2.5, between two reads of a message
MESSAGE_TIMEOUT_S = 3600  # a whole message: one octet every three minutes is no sender
LARGE_MESSAGE_BYTES = 256 << 10  # a message that grows past it needs room to be read on
MAX_KEPT_BYTES = 65536  # pipelined behind a message that waits for its commit; then the socket is not read

log = Log("smtp")


class SMTPSession(FeedSession):
    """One connection of an injector."""

    __slots__ = (
        "_context",
        "_context_of",
        "_conversation",
        "_early",
        "_ended_at",
        "_is_full",
        "_is_handing",
        "_is_handshaking",
        "_is_paused",
        "_is_probe",
        "_is_served",
        "_message_ticks",
        "_met",
        "_peer",
        "_reply",
        "_ticks",
    )

    listener: SMTPListener

    def __init__(self, listener: SMTPListener, origin: Origin | None = None) -> None:
        """Args: origin: what a proxy has said of its client."""
        super().__init__(listener)
        access = Access(listener.rules, is_secure=listener.is_implicit_tls)
        self._conversation = ServerConversation(
            listener.limits, self._check_sender, unix_clock=time.time, access=access
        )
        self._peer = origin.address if origin is not None else ""  # whose mail it is: XCLIENT may say another
        self._met = self._peer  # who that is without XCLIENT
        self._is_probe = origin is not None and not origin.address  # the proxy itself looks whether we are up
        self._context: FeedContext | None = None
        self._context_of = ""  # the EHLO that it was made for
        self._is_served = False  # what the conversation wants is being done
        self._is_handshaking = False
        self._early = b""  # came behind the handshake, before we knew that it is done
        self._ticks = 0  # seconds since the last command, or the last piece of a message
        self._message_ticks = 0  # seconds since DATA
        self._is_handing = False  # inside acceptor.accept
        self._reply: Reply | None = None  # what accept said at once
        self._ended_at = 0.0  # when the end of the message that waits was read
        self._is_paused = False  # nothing is read: too much is kept, or the client does not read
        self._is_full = False  # the client does not read our replies

    # -- asyncio ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or say why not."""
        self.transport = cast(asyncio.Transport, transport)
        if not self._peer:
            self._peer = self._met = format_peer(transport.get_extra_info("peername"))
        listener = self.listener
        refusal = listener.refusal(self._peer)
        if self._is_probe and refusal is not None and refusal.is_permanent:
            refusal = None  # it may look; MAIL is refused
        self._conversation.access.may_xclient = listener.may_xclient(self._peer)
        if refusal is not None:
            self.listener.count_refusal(refusal.code)
            log.info("connection refused", listener=self.listener.settings.name, reason=str(refusal))
            self.transport.write(format_reply(refusal.code, refusal.enhanced, refusal.text))
            self.transport.close()
            return
        self.listener.sessions.add(self)
        self.transport.write(self._conversation.greeting())

    def data_received(self, data: bytes) -> None:
        """Let the conversation read, write what it says, hand over what is complete. HOT."""
        conversation = self._conversation
        if self._is_handshaking:
            self._early += data
            return
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
        if conversation.content_bytes > LARGE_MESSAGE_BYTES or self.reservation is not None:
            self._settle_room()

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
        if self.waits_for_room:
            return  # we do not read; whoever has the room is timed
        self._ticks += 1
        self._message_ticks = self._message_ticks + 1 if kind == "data" else 0
        limit = DATA_BLOCK_TIMEOUT_S if kind == "data" else COMMAND_TIMEOUT_S
        if self._ticks > limit or self._message_ticks > MESSAGE_TIMEOUT_S:
            log.info(
                "session timed out", listener=self.listener.settings.name, peer=self._peer, waiting_for=kind
            )
            self._write(self._conversation.time_out())

    def shut(self) -> None:
        """End the session, after its transaction if one is open."""
        if self._is_handshaking:
            return  # it looks whether to go on when that is done
        self._write(self._conversation.shut(self.listener.farewell()))

    # -- messages -----------------------------------------------------------------------------------------

    def _check_sender(self, sender: str) -> Reply | None:
        listener = self.listener
        if listener.shedding.reply is not None:
            return listener.shedding.count("smtp")
        if self._is_probe:
            stranger = listener.stranger(self._peer)
            if stranger is not None:
                return stranger
        return listener.acceptor.check_sender(self._make_context(), sender)

    def _make_context(self) -> FeedContext:
        """Return the context of this session's messages, made once per EHLO."""
        context = self._context
        conversation = self._conversation
        if context is None or self._context_of is not conversation.helo:
            self._context_of = conversation.helo
            context = self._context = make_context(self.listener, conversation, self._peer, self.transport)
        return context

    def _hand_over(self) -> None:
        """Give completed transactions to the acceptor, until one has to wait.

        The acceptor may answer before `accept` returns; that is handled here in a loop, for a client may
        pipeline thousands of messages that are refused at once.
        """
        conversation = self._conversation
        while conversation.completed is not None and self.transport is not None:
            self._ended_at = self.listener.now()
            reply = self._accept(conversation.completed)
            if reply is None:
                return
            self._finish(reply)

    def _accept(self, transaction: Transaction) -> Reply | None:
        """Return what the acceptor said at once; None: `_done` will be called."""
        self._reply = None
        self._is_handing = True
        context = self._make_context()
        if transaction.terms is not None:
            context = structs.replace(context, terms=transaction.terms)
        self.listener.acceptor.accept(
            transaction.sender,
            transaction.recipients,
            transaction.message,
            transaction.is_8bit,
            context,
            self._done,
        )
        self._is_handing = False
        return self._reply

    def _done(self, reply: Reply, message_ids: list[str]) -> None:  # noqa: ARG002  the reply names the id
        """The acceptor's word on the message that waits."""
        if self._is_handing:
            self._reply = reply
            return
        if self.transport is None:
            return
        self._finish(reply)
        self._hand_over()
        self._resume()

    def _finish(self, reply: Reply) -> None:
        listener = self.listener
        listener.accept_seconds.observe(listener.now() - self._ended_at)
        self._ended_at = 0.0
        self._ticks = 0
        self._write(self._conversation.finish(reply))
        if self.reservation is not None:
            self._settle_room()

    # -- what the conversation wants ----------------------------------------------------------------------

    def _serve(self, wanted: Wanted) -> None:
        """Do what a command asked for; the conversation rests meanwhile."""
        self._is_served = True
        self._context = None
        if isinstance(wanted, Handshake):
            self._is_handshaking = True
            self.listener.spawn(self._start_tls())
        elif isinstance(wanted, Credentials):
            self.listener.passwords.check(
                wanted, self.listener.settings.name, self._peer, self._on_authenticated
            )
        else:
            self._present(wanted)

    def _on_authenticated(self, reply: Reply, user: str) -> None:
        self._go_on(lambda: self._conversation.authenticated(reply, user))

    def _present(self, attributes: Attributes) -> None:
        """A front end says for whom it speaks."""
        self._peer = attributes.addr or self._peer
        refusal = self.listener.stranger(self._peer)
        if refusal is None and attributes.login and self.listener.has_auth:
            is_known = bool(self.listener.passwords.customer_of(attributes.login))
            refusal = None if is_known else WRONG
        self._go_on(lambda: self._conversation.presented(refusal))

    def _go_on(self, answer: Callable[[], bytes]) -> None:
        """What was wanted is done: answer, and read what was pipelined behind it."""
        self._is_served = False
        if self.transport is None or self._conversation.is_closing:
            return
        self._ticks = 0
        self._write(answer())
        self._hand_over()
        self._resume()

    async def _start_tls(self) -> None:
        """Have the transport do the handshake, and begin anew."""
        if self.transport is None or self.transport.is_closing():
            return  # lost, or cut off, since the command was read
        secured = await start_tls(self.listener, self.transport, self, self._peer)
        self._is_handshaking = self._is_served = False
        if secured is None:
            if self.transport is not None:  # a transport whose handshake fails tells nobody that it is lost
                self.connection_lost(None)
            return
        self.transport = secured
        self._peer = self._met  # whoever was on the line in clear may have said XCLIENT (RFC 3207 4.2)
        self._conversation.secured()
        self._is_paused = self._is_full = False
        self._ticks = 0
        if self.listener.is_stopping:
            self.shut()
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    # -- room ---------------------------------------------------------------------------------------------

    def _settle_room(self) -> None:
        """Ask for room for a large message that goes on; give it back for one that has ended."""
        conversation = self._conversation
        if conversation.completed is None and conversation.content_bytes <= LARGE_MESSAGE_BYTES:
            self.give_room_back()
        elif self.reservation is None:
            listener = self.listener
            self.reservation = Reservation(listener.room, listener.limits.max_message_bytes, self._resume)
            if self.waits_for_room:
                self._pause()

    # -- transport ----------------------------------------------------------------------------------------

    def _write(self, out: bytes) -> None:
        conversation, transport = self._conversation, self.transport
        if transport is None:
            return
        if conversation.refusals:
            for code in conversation.refusals:
                self.listener.count_refusal(code)
            conversation.refusals.clear()
        if out:
            transport.write(out)
        if conversation.is_closing:
            transport.close()
        elif conversation.is_resting and conversation.access.wants is not None and not self._is_served:
            self._serve(conversation.access.wants)

    def _pause(self) -> None:
        if not self._is_paused and self.transport is not None and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        """Read again, if there is no reason left not to."""
        if not self._is_paused or self._is_full or self.waits_for_room:
            return
        if self._conversation.buffered_bytes > MAX_KEPT_BYTES:
            return
        self._is_paused = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
