"""The transactions of an LMTP session: those of SMTP, but the message is answered once for each recipient.

    wire    MAIL RCPT RCPT DATA                  content . MAIL ...
    peer                       250 250 250 354             250 452      250 ...
                                                           one reply for each RCPT that was accepted

Owns: which of those replies is whose.
Never: slows SMTP: a conversation of one recipient, and all before the message, is its parent's.
Fails: as its parent; where the peer wants a message that is for nobody, too.
Source: RFC 2033 section 4.2 (DATA), 4.3 (BDAT).
"""

from __future__ import annotations

from engine.core.reply import Reply
from engine.smtp.client import ClientConversation, Outcome
from engine.smtp.under_way import MISUNDERSTOOD, Flight, Refusal


class LmtpOutcome(Outcome, gc=False):
    """What the peer said to one transaction, the message answered for several recipients.

    `finals` has one entry for each recipient: None where it was refused at RCPT, or not answered any more.
    `final` decides for those that were accepted and not answered.
    """

    finals: list[Reply | None] = []

    def reply_for(self, index: int) -> Reply | None:
        return (self.finals[index] if index < len(self.finals) else None) or super().reply_for(index)


class LmtpConversation(ClientConversation):
    """Transactions on one LMTP session that is open."""

    __slots__ = ()

    def _take(self, reply: Reply) -> bytes:
        flight = self._flights[0] if self._flights else None
        if (
            flight is not None
            and flight.accepted > 1
            and flight.content_end
            and 0 <= (answered := _finals_in(flight)) < flight.accepted - 1
            and not 300 <= reply.code < 400
            and reply.code != 421
            and not (flight.is_chunked and not answered and reply.code in MISUNDERSTOOD)
        ):
            if reply.code >= 400:
                self.refusals.append(Refusal(flight.token, "data", reply))
            flight.replies.append(reply)  # the last one ends the transaction, as the only one does
            return b""
        return super()._take(reply)

    def _take_data(self, flight: Flight, reply: Reply) -> bytes:
        # RFC 2033 section 4.2: without a recipient "the DATA command MUST fail with a 503"; whether a lone
        # dot would be answered once or, for no recipient, not at all, is nowhere said.
        if reply.code == 354 and not flight.accepted:
            raise self._out_of_step(reply)
        return super()._take_data(flight, reply)

    def _outcome_of(self, flight: Flight, final: Reply | None = None) -> Outcome:
        answered = _finals_in(flight)
        if flight.accepted < 2 or answered < 1:
            return super()._outcome_of(flight, final)
        replies, count = flight.replies, flight.recipients
        each = iter(replies[-answered:])
        finals = [
            next(each, None) if position <= count and rcpt.code < 300 else None
            for position, rcpt in enumerate(replies[1 : count + 1], 1)
        ]
        if answered == flight.accepted:  # for the transaction as a whole: taken, if for anybody
            final = next((found for found in finals if found and found.code < 300), replies[-1])
        return LmtpOutcome(flight.token, replies[0], replies[1 : count + 1], final, finals=finals)


def _finals_in(flight: Flight) -> int:
    """Return how many replies to the message there are; below 0 before its turn has come."""
    return len(flight.replies) - flight.recipients - (1 if flight.is_chunked else 2)
