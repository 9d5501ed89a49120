"""One open SMTP session and its transactions. HOT.

The conversation (smtp.client) knows SMTP; this is its transport, its clock and its link to the
dispatcher. The next envelope goes out behind the dot of the message before (RFC 2920 section 3.1),
so that DATA costs one round trip a message; where the peer offers CHUNKING, the message goes out with its
envelope (RFC 3030), and where policy says so the next ones behind it (`outstanding`).

Owns: deadlines of the session, when its connection slot comes back, which deliveries are in flight.
Never: decides what a reply means for a recipient (settle), or which delivery is next (dispatcher).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from engine.core.envelope import Delivery
from engine.core.errors import LocalProtocolError, RemoteProtocolError
from engine.core.reply import Reply
from engine.delivery.crowding import limit_seen
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.endings import UNUSED_S, Endings
from engine.delivery.flight import (
    Flight,
    SessionFacts,
    Settler,
    next_depth,
    observe_end,
    recipients_to_try,
)
from engine.delivery.site_queue import SiteQueue
from engine.net.connect import OpenSession
from engine.policy.model import Policy
from engine.queue.path import Path, SiteDemand
from engine.smtp.client import ClientConversation, Outcome
from engine.smtp.lmtp import LmtpConversation
from engine.smtp.parameters import mail_parameters, rcpt_parameters, refusal
from engine.smtp.wire import stuff

# Design section 5: a slot comes back at the peer's EOF or RST, or so long after our own close.
SLOT_AFTER_OUR_CLOSE_S = 5.0
# How long we wait, after the reply to QUIT, for the peer to close first: its EOF frees the slot at once.
WAIT_FOR_EOF_S = 2.0
# Design section 6: a larger message waits for the replies to its recipients, all of which may be refused.
MAX_UNASKED_BYTES = 256_000


class Session(Endings):
    """A session of a path to one host of a site."""

    __slots__ = (
        "_conversation",
        "_depth",
        "_dispatcher",
        "_heard_at",
        "_is_chunking",
        "_is_idle",
        "_is_pipelining",
        "_is_quitting",
        "_most_recipients",
        "_on_fault",
        "_on_gone",
        "_settler",
        "_timer",
        "_waiting",
        "demand",
        "facts",
        "messages",
        "opened_at",
        "path",
        "reserved_at",
        "site_queues",
        "taken_from",
    )

    taken_from: SiteQueue

    def __init__(  # noqa: PLR0913, PLR0917 (its collaborators, given once by the shard)
        self,
        opened: OpenSession,
        facts: SessionFacts,
        path: Path,
        demand: SiteDemand,
        site_queues: list[SiteQueue],
        policy: Policy,
        dispatcher: Dispatcher,
        settler: Settler,
        on_gone: Callable[[Session, float], None],
        faults: Collection[str] = (),
        on_fault: Callable[[Session, str], None] | None = None,
    ) -> None:
        """Args:
        on_gone: `on_gone(session, slot_at)`: the connection is gone, and its slot free from `slot_at`.
        faults: what the peer offers and was seen not to do, "chunking" or "pipelining": it is not used.
        on_fault: one of them was seen now.
        """
        extensions = opened.extensions
        super().__init__(policy, extensions)
        self._is_pipelining = extensions.has_pipelining and "pipelining" not in faults
        self._is_chunking = extensions.has_chunking and self._is_pipelining and "chunking" not in faults
        self._depth = 1  # transactions that may await their final reply; more after a success (`outstanding`)
        conversation = LmtpConversation if extensions.is_lmtp else ClientConversation
        self._conversation = conversation(pipelining=self._is_pipelining)
        self.facts = facts
        self.path = path
        self.demand = demand
        self.site_queues = site_queues
        self._dispatcher = dispatcher
        self._settler = settler
        self._on_gone = on_gone
        self._on_fault = on_fault
        self._is_idle = False
        self._is_quitting = False
        self._most_recipients = 0  # of a transaction, where the peer has shown its limit; 0: not yet
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: Flight | None = None  # for the time of its permit
        self.reserved_at = 0.0
        self.messages = 0
        self.opened_at = self._heard_at = self._now()
        self.deadline = self.opened_at + policy.idle_timeout_s

    @property
    def is_quitting(self) -> bool:
        """It takes no more deliveries."""
        return self._is_quitting

    @property
    def is_idle(self) -> bool:
        """It has nothing to do."""
        return self._is_idle

    # -- what the dispatcher and the sweep ask ----------------------------------------------------

    def wake(self) -> None:
        """Take a delivery if nothing is in flight, there is one, and the rates allow."""
        if self._conversation.is_idle and not self._is_quitting and not self._conversation.is_closing:
            self._next()

    def quit(self) -> None:
        """Say QUIT now if nothing is in flight, else as soon as that is so."""
        if self._is_quitting:
            return
        self._is_quitting = True
        self._leave_idle()
        if self._conversation.is_idle:
            self._say_quit()

    def sweep(self, now: float) -> None:
        """End the session if the peer has taken longer than policy allows."""
        if now < self.deadline:
            return
        if self._is_idle:
            self.quit()
        else:
            self.check_deadline(now)

    @property
    def waiting_for(self) -> str | None:
        return self._conversation.waiting_for

    @property
    def phase(self) -> str:
        """What it waits for, for people."""
        if self._is_idle:
            return "idle"
        return self._conversation.waiting_for or "content"

    # -- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._dispatcher.opened(self)
        self._next()

    def data_received(self, data: bytes) -> None:
        conversation = self._conversation
        try:
            out = conversation.receive(data)
        except RemoteProtocolError as error:
            if conversation.refusals:
                self._hear()
            self._settle_outcomes()
            self._note_fault()
            self.lose(f"protocol error: {error}")
            return
        if conversation.refusals:
            self._hear()
        if out and not self._write_on(out):
            return
        self._settle_outcomes()
        if conversation.is_closing:
            self._peer_ends()
            return
        if conversation.wants_content:
            if self._timer is None and not self._cut_if_stopped():
                self._redeem()
            return
        if conversation.is_idle:
            self._next()
            return
        if self._depth > 1:
            self._go_deeper()
        if b"\n" in data and self._timer is None:  # else a peer could hold us for ever, octet by octet
            self.deadline = self._now() + self._timeouts[conversation.waiting_for]

    def eof_received(self) -> bool:
        self._is_quitting = True  # nothing is begun in what is left of this turn of the loop
        self._leave_idle()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        now = self._now()
        if self._timer is not None:
            self._timer.cancel()
        self._settle_lost("connection lost" if exc is None else f"connection lost: {exc}")
        self._leave_idle()
        self._is_quitting = True
        self._dispatcher.closed(self)
        is_peers = not self._we_closed and (exc is None or isinstance(exc, ConnectionError))
        self._on_gone(self, now if is_peers else now + SLOT_AFTER_OUR_CLOSE_S)

    # -- transactions -----------------------------------------------------------------------------

    def _next(self) -> None:
        self.use_policy(self.path.policy)
        if self._is_quitting or self.messages >= self._policy.max_messages_per_connection:
            self._is_quitting = True
            self._leave_idle()
            self._say_quit()
            return
        delivery = self._take()
        if delivery is not None:
            self._leave_idle()
            self.deadline = self._now() + self._timeouts["mail"]
            self.transport.write(self._begin(delivery))
            if self._depth > 1:
                self._go_deeper()
        elif not self._is_quitting and not self._is_idle:
            self._is_idle = True
            self.deadline = self._now() + self._policy.idle_timeout_s
            self._dispatcher.idle(self)

    def _go_deeper(self) -> None:
        """Begin further transactions behind those that await their final reply (RFC 3030 section 4.2)."""
        conversation = self._conversation
        self.use_policy(self.path.policy)
        self._depth = min(self._depth, self._policy.outstanding)
        while (
            conversation.in_flight < self._depth
            and conversation.may_begin
            and not self._is_quitting
            and self.messages < self._policy.max_messages_per_connection
        ):
            following = self._take()
            if following is None:
                return
            self.transport.write(self._begin(following))

    def _take(self) -> Delivery | None:
        """Return the next delivery; what the peer can't take as it is bounces unsent."""
        delivery = self._dispatcher.take(self)
        while delivery is not None and (reply := self._refusal(delivery)) is not None:
            self.path.cancel_message(self.reserved_at)
            flight = Flight(delivery, delivery.recipients, self.taken_from, self._now(), self.reserved_at)
            self._settler.settle(flight, Outcome(flight, reply, [], None), self)
            delivery = self._dispatcher.take(self)
        return delivery

    def _refusal(self, delivery: Delivery) -> Reply | None:
        envelope, host = delivery.envelope, self.facts.peer.host
        return refusal(self.extensions, envelope, delivery.recipients, delivery.message, host, self._unix_now)

    def _unix_now(self) -> float:
        return self._dispatcher.unix_clock()

    def _leave_idle(self) -> None:
        if self._is_idle:
            self._is_idle = False
            self._dispatcher.busy(self)

    def _begin(self, delivery: Delivery) -> bytes:
        """Start a transaction; return what to write."""
        self._dispatcher.step.begin(delivery.key)
        most = self._policy.max_recipients_per_message
        recipients = recipients_to_try(delivery, min(most, self._most_recipients or most))
        envelope, message, extensions = delivery.envelope, delivery.message, self.extensions
        flight = Flight(delivery, recipients, self.taken_from, self._now(), self.reserved_at)
        try:
            written = self._conversation.begin(
                envelope.sender,
                recipients,
                is_chunked=self._is_chunking,
                token=flight,
                mail_parameters=mail_parameters(extensions, envelope, recipients, message, self._unix_now),
                rcpt_parameters=rcpt_parameters(extensions, envelope, recipients, message),
            )
        except LocalProtocolError as error:
            raise AssertionError(f"{delivery.key.hex()}: {error}") from error
        self.messages += 1
        was_quiet = flight.begun_at - self._heard_at > UNUSED_S
        if self._is_chunking and not was_quiet and len(message) <= MAX_UNASKED_BYTES:
            written += self._chunk(flight)
        self._dispatcher.step.end()
        return written

    def _chunk(self, flight: Flight) -> bytes:
        """Return the message to write behind its envelope; b"" where the rates want it to wait."""
        now = flight.begun_at
        at = flight.permit_at = self.path.redeem_message(now, flight.reserved_at)
        if at <= now:
            return self._conversation.chunk(flight.delivery.message)
        self._write_at(at, flight)
        return b""

    def _redeem(self) -> None:
        """The peer wants content: write it when the rates say so."""
        now = self._now()
        flight: Flight = self._conversation.content_token
        at = flight.permit_at = self.path.redeem_message(now, flight.reserved_at)
        if at <= now:
            self._write_content(flight)
        else:
            self._write_at(at, flight)

    def _write_at(self, at: float, flight: Flight) -> None:
        if self._conversation.in_flight < 2:  # else the reply to what is ahead has a deadline already
            self.deadline = at + self._policy.content_timeout_s
        self._waiting = flight
        self._timer = asyncio.get_running_loop().call_at(at, self._confirm, flight)

    def _confirm(self, flight: Flight) -> None:
        """The permit's time has come; permits before it may have been late, so that it must wait on."""
        self._timer = self._waiting = None
        if not (self._conversation.wants_content or self._conversation.may_chunk):
            return  # lost or closed meanwhile
        now = self._now()
        if self.path.is_stopped(flight.delivery.envelope.customer, now):
            if self._conversation.in_flight < 2:
                self._cut()
            return  # what is ahead is answered first; then the peer wants this content, and is cut off
        due = flight.permit_at = self.path.confirm_message(flight.permit_at, now)
        if due > now:
            self._write_at(due, flight)
        else:
            self._write_content(flight)

    def _write_content(self, flight: Flight) -> None:
        self.deadline = self._now() + self._policy.final_timeout_s
        if self._conversation.may_chunk:
            self.transport.write(self._conversation.chunk(flight.delivery.message))
            if self._depth > 1:
                self._go_deeper()
            return
        behind = b""
        self.use_policy(self.path.policy)
        if (
            self._is_pipelining
            and not self._is_quitting
            and self.messages < self._policy.max_messages_per_connection
        ):
            following = self._take()
            if following is not None:
                behind = self._begin(following)
        self.transport.write(self._conversation.content(stuff(flight.delivery.message), behind))

    def _settle_outcomes(self) -> None:
        pop = self._conversation.pop_outcome
        outcome = pop()
        while outcome is not None:
            flight: Flight = outcome.token
            if flight is self._waiting:
                self._stop_waiting()
            if outcome.is_untried:
                self._put_back(flight)
            elif outcome.is_misunderstood:
                self._observe(flight)
                self._settler.put_back(flight)
                self._note_fault()
                self.abort()
            else:
                self._observe(flight)
                self._dispatcher.step.begin(flight.delivery.key)
                self._settler.settle(flight, outcome, self)
                self._dispatcher.step.end()
                if len(flight.recipients) > 1:
                    self._most_recipients = limit_seen(outcome) or self._most_recipients
                if self.path.heeds_successes and outcome.final is not None and outcome.final.code < 300:
                    self._dispatcher.hearer.succeeded(self.path)
                if self._is_chunking:
                    self._depth = next_depth(outcome, self._depth, self._policy.outstanding)
            outcome = pop()

    def _put_back(self, flight: Flight) -> None:
        if not flight.permit_at:
            self.path.cancel_message(flight.reserved_at)
        self._settler.put_back(flight)

    def _observe(self, flight: Flight) -> None:
        """Tell the rates what became of a transaction's place in them."""
        now = self._heard_at = self._now()
        demand, took_s = self.demand, now - flight.begun_at
        known_s = demand.attempt_s
        demand.attempt_s = took_s if known_s < 0.0 else known_s + (took_s - known_s) / 8
        observe_end(flight, self.path, now)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._waiting = None

    def _note_fault(self) -> None:
        """The peer lost step, or did not know what it offers: the next session does without."""
        if self._on_fault is not None and self._is_pipelining:
            self._on_fault(self, "chunking" if self._is_chunking else "pipelining")

    # -- ends -------------------------------------------------------------------------------------

    def _say_quit(self) -> None:
        if self._conversation.is_closing:
            return
        self.transport.write(self._conversation.quit())
        self.deadline = self._now() + self._policy.quit_timeout_s

    def _peer_ends(self) -> None:
        """421 or the reply to QUIT: the peer closes; give it a moment, so that its EOF frees the slot."""
        self._is_quitting = True
        self._leave_idle()
        self.deadline = min(self.deadline, self._now() + WAIT_FOR_EOF_S)  # whatever else it says

    def lose(self, reason: str) -> None:
        self._settle_lost(reason)
        self._we_closed = True
        self.transport.abort()

    def __repr__(self) -> str:
        facts = self.facts
        return f"<Session {facts.id} {facts.source}->{facts.peer.host}[{facts.peer.address}] {self.phase}>"
