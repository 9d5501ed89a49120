"""One open SMTP session and its transactions. HOT.

The conversation (smtp.client) knows SMTP; this is its transport, its clock and its link to the
dispatcher. The next envelope goes out behind the dot of the message before (RFC 2920 section 3.1),
so that DATA costs one round trip a message.

Owns: deadlines of the session, when its connection slot comes back, which delivery is in flight.
Never: decides what a reply means for a recipient (settle), or which delivery is next (dispatcher).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from engine.core.envelope import Delivery
from engine.core.errors import LocalProtocolError, RemoteProtocolError
from engine.core.reply import Reply, make_reply
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.securing import Secured
from engine.delivery.site_queue import SiteQueue
from engine.net.connect import OpenSession
from engine.policy.model import Policy
from engine.queue.path import Path, SiteDemand
from engine.smtp.client import ClientConversation, Outcome
from engine.smtp.parameters import mail_parameters, rcpt_parameters, refusal
from engine.smtp.wire import stuff
from engine.telemetry.events import Peer

# Design section 5: a slot comes back at the peer's EOF or RST, or so long after our own close.
SLOT_AFTER_OUR_CLOSE_S = 5.0
# How long we wait, after the reply to QUIT, for the peer to close first: its EOF frees the slot at once.
WAIT_FOR_EOF_S = 2.0
# A session that had nothing to do for so long may have been closed by the peer before our MAIL came.
UNUSED_S = 1.0


class SessionFacts(NamedTuple):
    """What events say of a session."""

    id: str
    vmta: str
    source: str
    hostname: str
    peer: Peer
    tls: str
    tls_verification: str = ""
    tls_resumed: bool = False
    secured: Secured | None = None  # what it had to show of TLS


class Flight(NamedTuple):
    """A transaction in flight: all, or the first so many, of a delivery's recipients."""

    delivery: Delivery
    recipients: list[str]
    site_queue: SiteQueue  # where it was taken from
    begun_at: float  # loop time
    reserved_at: float  # names its reservation at the path's rates


class Settler(Protocol):
    """What becomes of a transaction."""

    def settle(self, flight: Flight, outcome: Outcome, session: Session) -> None:
        """Give every recipient of the flight its disposition."""

    def put_back(self, flight: Flight) -> None:
        """The peer never looked at it: it is ready again, and this was no attempt."""


class Session(asyncio.Protocol):
    """A session of a path to one host of a site."""

    __slots__ = (
        "_conversation",
        "_dispatcher",
        "_is_idle",
        "_is_pipelining",
        "_is_quitting",
        "_now",
        "_on_gone",
        "_permit_at",
        "_policy",
        "_settler",
        "_timeouts",
        "_timer",
        "_unsent_bytes",
        "_we_closed",
        "deadline",
        "demand",
        "extensions",
        "facts",
        "messages",
        "opened_at",
        "path",
        "reserved_at",
        "site_queues",
        "taken_from",
        "transport",
    )

    transport: asyncio.Transport
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
    ) -> None:
        """`on_gone(session, slot_at)`: the connection is gone, and its slot free from `slot_at`."""
        extensions = opened.extensions
        self._is_pipelining = extensions.has_pipelining
        self._conversation = ClientConversation(
            pipelining=extensions.has_pipelining, size_limit=None, has_8bitmime=False
        )  # parameters are smtp.parameters' to write
        self.extensions = extensions
        self.facts = facts
        self.path = path
        self.demand = demand
        self.site_queues = site_queues
        self._policy = policy
        self._timeouts = session_timeouts(policy)
        self._dispatcher = dispatcher
        self._settler = settler
        self._on_gone = on_gone
        self._is_idle = False
        self._is_quitting = False
        self._we_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._permit_at = 0.0
        self._unsent_bytes = 0  # when it was looked at last; 0: the transport takes what we write
        self.reserved_at = 0.0
        self.messages = 0
        self._now = asyncio.get_running_loop().time
        self.opened_at = self._now()
        self.deadline = self.opened_at + policy.idle_timeout_s

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
            return
        if self._unsent_bytes:
            unsent_bytes = self.transport.get_write_buffer_size()
            if unsent_bytes < self._unsent_bytes:  # RFC 5321 section 4.5.3.2.5: the timer is for each block
                self._unsent_bytes = unsent_bytes
                self.deadline = now + self._policy.content_timeout_s
                return
        self._lose(f"timed out waiting for {self.phase}")

    def abort(self) -> None:
        """Close at once; what is in flight is settled as lost."""
        self._we_closed = True
        self.transport.abort()

    @property
    def now(self) -> float:
        """Loop time."""
        return self._now()

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
            self._settle_outcomes()
            self._lose(f"protocol error: {error}")
            return
        if out:
            self.transport.write(out)
        self._settle_outcomes()
        if conversation.is_closing:
            self._peer_ends()
            return
        if conversation.wants_content:
            if self._timer is None:
                self._redeem()
            return
        if conversation.is_idle:
            self._next()
            return
        if b"\n" in data:  # else a peer could hold us for ever, octet by octet
            self.deadline = self._now() + self._timeouts[conversation.waiting_for]

    def eof_received(self) -> bool:
        self._is_quitting = True  # nothing is begun in what is left of this turn of the loop
        self._leave_idle()
        return False

    def pause_writing(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self.deadline = self._now() + self._policy.content_timeout_s

    def resume_writing(self) -> None:
        self._unsent_bytes = 0
        self.deadline = self._now() + self._timeouts[self._conversation.waiting_for]

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
        if self._is_quitting or self.messages >= self._policy.max_messages_per_connection:
            self._is_quitting = True
            self._leave_idle()
            self._say_quit()
            return
        delivery = self._take()
        if delivery is not None:
            self._leave_idle()
            self.transport.write(self._begin(delivery))
            self.deadline = self._now() + self._timeouts["mail"]
        elif not self._is_quitting and not self._is_idle:
            self._is_idle = True
            self.deadline = self._now() + self._policy.idle_timeout_s
            self._dispatcher.idle(self)

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
        recipients = delivery.recipients
        untried = len(recipients) - delivery.deferred
        most = self._policy.max_recipients_per_message
        if delivery.deferred or untried > most:
            recipients = recipients[: min(untried, most)]
        envelope, message, extensions = delivery.envelope, delivery.message, self.extensions
        flight = Flight(delivery, recipients, self.taken_from, self._now(), self.reserved_at)
        try:
            written = self._conversation.begin(
                envelope.sender,
                recipients,
                token=flight,
                mail_parameters=mail_parameters(extensions, envelope, recipients, message, self._unix_now),
                rcpt_parameters=rcpt_parameters(extensions, envelope, recipients, message),
            )
        except LocalProtocolError as error:
            raise AssertionError(f"{delivery.key.hex()}: {error}") from error
        self.messages += 1
        self._dispatcher.step.end()
        return written

    def _redeem(self) -> None:
        """The peer wants content: write it when the rates say so."""
        now = self._now()
        flight: Flight = self._conversation.content_token
        at = self._permit_at = self.path.redeem_message(now, flight.reserved_at)
        if at <= now:
            self._write_content()
        else:
            self._write_at(at)

    def _write_at(self, at: float) -> None:
        self.deadline = at + self._policy.content_timeout_s
        self._timer = asyncio.get_running_loop().call_at(at, self._confirm)

    def _confirm(self) -> None:
        """The permit's time has come; permits before it may have been late, so that it must wait on."""
        self._timer = None
        if not self._conversation.wants_content:
            return  # lost or closed meanwhile
        now = self._now()
        due = self._permit_at = self.path.confirm_message(self._permit_at, now)
        if due > now:
            self._write_at(due)
        else:
            self._write_content()

    def _write_content(self) -> None:
        conversation = self._conversation
        flight: Flight = conversation.content_token
        behind = b""
        if (
            self._is_pipelining
            and not self._is_quitting
            and self.messages < self._policy.max_messages_per_connection
        ):
            following = self._take()
            if following is not None:
                behind = self._begin(following)
        self.deadline = self._now() + self._policy.final_timeout_s
        self.transport.write(conversation.content(stuff(flight.delivery.message), behind))

    def _settle_outcomes(self) -> None:
        pop = self._conversation.pop_outcome
        outcome = pop()
        while outcome is not None:
            flight: Flight = outcome.token
            if outcome.is_untried:
                self.path.cancel_message(flight.reserved_at)
                self._settler.put_back(flight)
            else:
                self._observe(flight)
                self._dispatcher.step.begin(flight.delivery.key)
                self._settler.settle(flight, outcome, self)
                self._dispatcher.step.end()
            outcome = pop()

    def _observe(self, flight: Flight) -> None:
        """Tell the rates what became of a transaction's place in them."""
        now = self._now()
        demand = self.demand
        demand.attempt_s += (now - flight.begun_at - demand.attempt_s) / 8
        if self._permit_at:
            if self._permit_at <= now:  # else its content was never written
                self.path.observe_reply(self._permit_at, now)
            self._permit_at = 0.0
        else:  # refused before its content: that counts too
            self.path.redeem_message(now, flight.reserved_at)

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

    def _lose(self, reason: str) -> None:
        self._settle_lost(reason)
        self._we_closed = True
        self.transport.abort()

    def _settle_lost(self, reason: str) -> None:
        """Settle what was in flight. What the peer closed while idle says nothing of the next message."""
        for outcome in self._conversation.lost():
            flight: Flight = outcome.token
            unanswered = outcome.mail is None and not outcome.is_uncertain
            was_used = self.messages > 1 or flight.begun_at > self.opened_at + UNUSED_S
            if outcome.is_untried or (unanswered and was_used):
                self.path.cancel_message(flight.reserved_at)
                self._settler.put_back(flight)
                continue
            self._observe(flight)
            if outcome.final is None:
                text = "no reply to the message, it may have arrived" if outcome.is_uncertain else reason
                outcome.final = make_reply(451, "4.4.2", text)
            self._settler.settle(flight, outcome, self)

    def __repr__(self) -> str:
        facts = self.facts
        return f"<Session {facts.id} {facts.source}->{facts.peer.host}[{facts.peer.address}] {self.phase}>"


def session_timeouts(policy: Policy) -> dict[Any, float]:
    """Return the timer for each thing that a conversation waits for (RFC 5321 section 4.5.3.2)."""
    return {
        "rset": policy.rset_timeout_s,
        "mail": policy.mail_timeout_s,
        "rcpt": policy.rcpt_timeout_s,
        "data": policy.data_timeout_s,
        "final": policy.final_timeout_s,
        "quit": policy.quit_timeout_s,
        None: policy.content_timeout_s,
    }
