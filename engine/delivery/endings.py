"""How transactions of a session end before their time: refused while they go on, cut off by a hold, lost.

Owns: what is settled and what is put back then.
Never: decides that something is held (reacting does).
"""

from __future__ import annotations

from engine.core.reply import make_reply
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.flight import Flight, SessionFacts, Settler
from engine.delivery.hearing import Deaf, Whence
from engine.delivery.line import Line
from engine.queue.path import Path
from engine.smtp.client import ClientConversation

# A session that had nothing to do for so long may have been closed by the peer before our MAIL came.
# Nor is a message sent with its envelope then: a session that is gone would leave it uncertain.
UNUSED_S = 1.0


class Endings(Line):
    """The part of a session that ends transactions out of turn."""

    __slots__ = ()

    _conversation: ClientConversation
    _dispatcher: Dispatcher
    _settler: Settler
    facts: SessionFacts
    path: Path
    messages: int
    opened_at: float

    def _settle_outcomes(self) -> None:
        raise NotImplementedError

    def _put_back(self, flight: Flight) -> None:
        raise NotImplementedError

    def _observe(self, flight: Flight) -> None:
        raise NotImplementedError

    def _stop_waiting(self) -> None:
        raise NotImplementedError

    def _hear(self) -> None:
        """Tell whoever reacts what was refused, before anything that follows from the replies is written."""
        refusals, self._conversation.refusals = self._conversation.refusals, []
        if isinstance(self._dispatcher.hearer, Deaf):
            return
        for token, phase, reply in refusals:
            flight: Flight = token
            customer = flight.delivery.envelope.customer
            whence = Whence(self.path, flight.site_queue.destination, customer, self.facts.peer.host, phase)
            rule = self._dispatcher.hearer.heard(reply, whence)
            if rule is not None:
                flight.fired = {**(flight.fired or {}), id(reply): rule}

    def _write_on(self, out: bytes) -> bool:
        """Write what follows from a reply, within its transaction; False where a hold stops that."""
        if self._cut_if_stopped():
            return False
        self.transport.write(out)
        return True

    def _cut_if_stopped(self) -> bool:
        if not self._is_stopped():
            return False
        self._cut()
        return True

    def _is_stopped(self) -> bool:
        """Return whether a hold stops what is first in flight."""
        path = self.path
        if (not path.holds and path.held_customers is None) or not self._conversation.in_flight:
            return False
        flight: Flight = self._conversation.content_token
        return path.is_stopped(flight.delivery.envelope.customer, self._now())

    def _cut(self) -> None:
        """A hold came before the content of what is in flight: leave, and put back what was not refused.

        Without a word, since nothing is to be written; the peer forgets a transaction that has no end.
        """
        self._stop_waiting()
        self._settle_outcomes()
        for outcome in self._conversation.lost(self.least_unsent_bytes):
            flight: Flight = outcome.token
            outcome.is_cut = True
            if any(outcome.reply_for(index) is not None for index in range(len(flight.recipients))):
                self._observe(flight)
                self._settler.settle(flight, outcome, self)
            else:
                self._put_back(flight)
        self._we_closed = True
        self.transport.abort()

    def _settle_lost(self, reason: str) -> None:
        """Settle what was in flight. What the peer closed while idle says nothing of the next message."""
        for outcome in self._conversation.lost(self.least_unsent_bytes):
            flight: Flight = outcome.token
            unanswered = outcome.mail is None and not outcome.is_uncertain
            was_used = self.messages > 1 or flight.begun_at > self.opened_at + UNUSED_S
            if outcome.is_untried or (unanswered and was_used):
                self._put_back(flight)
                continue
            self._observe(flight)
            if outcome.final is None:
                text = "no reply to the message, it may have arrived" if outcome.is_uncertain else reason
                outcome.final = make_reply(451, "4.4.2", text)
            self._settler.settle(flight, outcome, self)
