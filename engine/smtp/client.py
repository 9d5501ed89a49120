"""The transactions of one open session, as the sending side sees them.

The unit is a whole transaction: `begin` gives MAIL, every RCPT and DATA as one write (or MAIL alone to a
peer without PIPELINING), `receive` takes whatever the peer says, `content` is asked for when the peer wants
it, and `pop_outcome` hands back all replies at once. Replies come in the order of the commands, so a count of
replies tells which command each one answers; there is no table of states.

    wire    MAIL RCPT DATA          content . MAIL RCPT DATA        content .
    peer                   250 250 354                250 250 250 354        250
    shell   begin(1)       wants_content: content(1) + begin(2)     ...

A chunked transaction (CHUNKING and PIPELINING offered) has no DATA to wait for: `chunk` goes out in the write
of its envelope, or later where the shell has reasons to wait, and the next may begin behind it at once.

    wire    MAIL RCPT BDAT LAST  MAIL RCPT BDAT LAST
    peer                         250 250 250          250 250 250
    shell   begin(1) + chunk(1)  begin(2) + chunk(2)  ...

Owns: which reply answers which command; RSET where the peer may still hold a transaction.
Never: decides what a reply means for a recipient, reads a clock, opens or closes anything.
Fails: RemoteProtocolError when the peer loses step; LocalProtocolError for an address that would inject.
Source: RFC 5321 4.1.1, 4.3; RFC 2920 3.1; RFC 3030 2. After: Postfix's smtp_proto.c.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from engine.core.errors import LocalProtocolError, RemoteProtocolError
from engine.core.reply import Reply
from engine.smtp.under_way import Flight, Refusal, is_misunderstood, phase_of
from engine.smtp.wire import ReplyReader

_LONE_DOT = b".\r\n"


class Outcome(msgspec.Struct, gc=False):
    """What the peer said to one transaction.

    `recipients` has one reply for each recipient that was answered, in order; shorter if the session ended.
    `final` answers DATA where that was refused, else the content; a 421 that ended it early is here.
    `is_uncertain`: the content left whole and no reply came back: the peer may have the message.
    `is_untried`: the session ended before the peer looked at it; not an attempt.
    `is_cut`: we stopped in the middle: who was not answered for was not tried.
    `is_misunderstood`: the peer offers CHUNKING or PIPELINING and can't do it; not an attempt, and the
    session must end: it may take the message for commands.
    """

    token: Any
    mail: Reply | None
    recipients: list[Reply]
    final: Reply | None
    is_uncertain: bool = False
    is_untried: bool = False
    is_misunderstood: bool = False
    is_cut: bool = False

    def reply_for(self, index: int) -> Reply | None:
        """Return the reply that decides recipient `index`; None when the session was lost before one came."""
        if self.mail is not None and self.mail.code >= 300:
            return self.mail
        if index < len(self.recipients) and self.recipients[index].code >= 300:
            return self.recipients[index]
        return self.final


class ClientConversation:
    """Transactions on one session that is open: greeting, EHLO, STARTTLS and AUTH lie behind it."""

    __slots__ = (
        "_flights",
        "_outcomes",
        "_pipelining",
        "_quitting",
        "_reader",
        "_written",
        "is_closing",
        "needs_reset",
        "refusals",
    )

    def __init__(self, *, pipelining: bool) -> None:
        self._pipelining = pipelining
        self._reader = ReplyReader()
        self._flights: deque[Flight] = deque()
        self._outcomes: deque[Outcome] = deque()
        self._quitting = False
        self._written = 0  # octets of envelopes and messages
        self.needs_reset = False  # the peer may hold a transaction: `begin` sends RSET ahead
        self.is_closing = False  # nothing more may be begun; close when convenient
        self.refusals: list[Refusal] = []  # since the shell last took them; outcomes have them, too

    # -- what the shell asks ------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Nothing is in flight."""
        return not self._flights and not self._quitting

    @property
    def in_flight(self) -> int:
        """How many transactions have begun and not ended."""
        return len(self._flights)

    @property
    def may_begin(self) -> bool:
        """`begin` is legal: the session goes on, and the content of what is in flight has gone out."""
        if self.is_closing or self._quitting:
            return False
        if not self._flights:
            return True
        last = self._flights[-1]
        return self._pipelining and (last.content_end > 0 or last.is_dotted)

    @property
    def wants_content(self) -> bool:
        """The peer said 354, or answered for all recipients of a chunked one, and one at least stands."""
        if not self._flights:
            return False
        flight = self._flights[0]
        return (
            len(flight.replies) == flight.recipients + (1 if flight.is_chunked else 2)
            and flight.accepted > 0
            and not flight.content_end
            and not flight.is_dotted
        )

    @property
    def may_chunk(self) -> bool:
        """`chunk` is legal: the last transaction is a chunked one whose message has not gone out."""
        return bool(self._flights) and self._flights[-1].is_chunked and not self._flights[-1].content_end

    @property
    def content_token(self) -> Any:
        """The token of the transaction whose content is wanted."""
        return self._flights[0].token

    @property
    def waiting_for(self) -> str | None:
        """What the peer owes us: rset mail rcpt data final quit; None: it is our turn (RFC 5321 4.5.3.2)."""
        if not self._flights:
            return "quit" if self._quitting else None
        flight = self._flights[0]
        answered = len(flight.replies)
        if flight.awaits_reset:
            return "rset"
        if answered == 0:
            return "mail"
        if answered <= flight.recipients:
            return "rcpt"
        if answered == flight.recipients + 1 and not flight.is_chunked:
            return "data"
        return None if self.wants_content else "final"

    # -- what the shell does ------------------------------------------------------------------------------

    def begin(
        self,
        sender: str,
        recipients: list[str],
        *,
        is_chunked: bool = False,
        token: Any = None,
        mail_parameters: str = "",
        rcpt_parameters: list[str] | None = None,
    ) -> bytes:
        """Start a transaction; return what to write now.

        Args:
            mail_parameters: behind MAIL's path, each parameter behind its space (smtp.parameters).
            rcpt_parameters: behind each recipient's path; None: nothing behind any.

        Legal when `may_begin`, and when `wants_content` if what it returns is written behind that content.
        `is_chunked`: `chunk` follows, where the peer offers CHUNKING and PIPELINING.
        """
        assert recipients
        assert self._pipelining or not is_chunked
        assert self.may_begin or (self._pipelining and self.wants_content)
        if rcpt_parameters is None:
            names = ">\r\nRCPT TO:<".join(recipients) + ">"
        else:
            pairs = zip(recipients, rcpt_parameters, strict=True)
            names = "\r\nRCPT TO:<".join([f"{recipient}>{behind}" for recipient, behind in pairs])
        data = "" if is_chunked else "DATA\r\n"
        envelope = f"MAIL FROM:<{sender}>{mail_parameters}\r\nRCPT TO:<{names}\r\n{data}".encode()
        lines = len(recipients) + (1 if is_chunked else 2)
        if envelope.count(b"\n") != lines or envelope.count(b"\r") != lines:
            raise LocalProtocolError(f"address with a line end: {sender!r} {recipients!r}")
        flight = Flight(token, len(recipients), is_chunked=is_chunked, is_behind=bool(self._flights))
        self._flights.append(flight)
        # What a refused BDAT leaves is indeterminate (RFC 3030 section 2), and the one ahead may be:
        # a peer that keeps its MAIL would take this message for that sender's.
        is_behind_chunk = is_chunked and len(self._flights) > 1
        if self.needs_reset or is_behind_chunk:
            envelope = b"RSET\r\n" + envelope
            flight.awaits_reset = True
            self.needs_reset = False
        self._written += len(envelope)
        if self._pipelining:
            return envelope
        flight.commands = envelope.splitlines(keepends=True)[::-1]
        return flight.commands.pop()

    def content(self, stuffed: bytes, behind: bytes = b"") -> bytes:
        """Return the content to write now; from here on a lost session leaves the delivery uncertain.

        Args:
            stuffed: the message as `wire.stuff` made it, terminator included.
            behind: what `begin` returned for the next transaction.
        """
        assert self.wants_content
        self._written += len(stuffed)
        self._flights[0].content_end = self._written - len(behind)
        return stuffed + behind if behind else stuffed

    def chunk(self, message: bytes) -> bytes:
        """Return the message of the last transaction as one BDAT, to be written now; not stuffed."""
        assert self.may_chunk
        chunk = b"BDAT %d LAST\r\n%b" % (len(message), message)
        self._written = self._flights[-1].content_end = self._written + len(chunk)
        return chunk

    def quit(self) -> bytes:
        """End the session; nothing may be in flight."""
        assert not self._flights
        self._quitting = True
        return b"QUIT\r\n"

    def receive(self, data: bytes) -> bytes:
        """Take what the peer said; return what to write at once (lockstep commands, a lone dot).

        Raises:
            RemoteProtocolError: the peer lost step. Outcomes known before it can still be popped;
                the rest comes from `lost`.
        """
        if self.is_closing and not self._quitting:
            return b""
        replies: list[Reply] = []
        try:
            self._reader.feed(data, replies)
        except RemoteProtocolError:
            out = self._take_all(replies)
            if self.is_closing and not self._quitting:
                return out  # behind a 421; had it come later, nobody would have read it
            self.is_closing = True
            raise
        return self._take_all(replies)

    def pop_outcome(self) -> Outcome | None:
        """Return the oldest outcome not handed out yet."""
        return self._outcomes.popleft() if self._outcomes else None

    def lost(self, unsent_bytes: int = 0) -> list[Outcome]:
        """The connection is gone, `unsent_bytes` had not left: return all that was begun, oldest first."""
        self.is_closing = True
        outcomes = [*self._outcomes]
        self._outcomes.clear()
        for position, flight in enumerate(self._flights):
            outcome = self._outcome_of(flight)
            if 0 < flight.content_end <= self._written - unsent_bytes:
                outcome.is_uncertain = flight.accepted > 0 or len(flight.replies) <= flight.recipients
            elif position and not flight.replies:
                outcome.is_untried = True
            outcomes.append(outcome)
        self._flights.clear()
        return outcomes

    # -- replies ------------------------------------------------------------------------------------------

    def _take_all(self, replies: list[Reply]) -> bytes:
        out = b""
        for reply in replies:
            if self.is_closing and not self._quitting:
                break
            out += self._take(reply)
        return out

    def _take(self, reply: Reply) -> bytes:
        """Give the reply to the command that it answers; return what to write."""
        flights = self._flights
        if reply.code == 421:
            return self._close(reply)
        if not flights:
            return self._take_unasked(reply)
        flight = flights[0]
        if flight.awaits_reset:
            return self._take_reset(flight, reply)
        answered = len(flight.replies)
        is_last = answered > flight.recipients
        if is_last and not flight.is_chunked and answered == flight.recipients + 1:
            return self._take_data(flight, reply)
        if 300 <= reply.code < 400 or (is_last and not flight.content_end and not flight.is_dotted):
            raise self._out_of_step(reply)
        flight.replies.append(reply)
        if reply.code >= 400:
            self._note_refusal(flight, reply)
        if is_last:
            self._end(flight)
        elif answered and reply.code < 300 and flight.replies[0].code < 300:
            flight.accepted += 1
        if flight.is_chunked:
            self._settle_chunked(flight, answered + 1)
            return b""
        return self._next_command(flight) if flight.commands else b""

    def _settle_chunked(self, flight: Flight, answered: int) -> None:
        """Nothing stands and the message has not gone out: no need to; or it went, in vain or not."""
        mail_stands = flight.replies[0].code < 300
        if answered == flight.recipients + 1 and not flight.accepted and not flight.content_end:
            self.needs_reset = mail_stands
            self._end(flight)
        elif answered == flight.recipients + 2:
            # RFC 3030 section 2: what a failed BDAT leaves behind is indeterminate, RSET clears it.
            self.needs_reset = flight.replies[-1].code >= 300 and mail_stands and not self._flights

    def _take_data(self, flight: Flight, reply: Reply) -> bytes:
        """DATA was answered: content is wanted, a lone dot must go (RFC 2920 3.1), or it was refused."""
        if reply.code < 400 and reply.code != 354:
            raise self._out_of_step(reply)
        flight.replies.append(reply)
        if reply.code == 354:
            if flight.accepted:
                return b""
            flight.is_dotted = True
            return _LONE_DOT
        self._note_refusal(flight, reply)
        # The peer still holds MAIL, and perhaps recipients: RFC 5321 4.1.1.4 clears them only behind content.
        self.needs_reset = flight.replies[0].code < 300
        self._end(flight)
        return b""

    def _next_command(self, flight: Flight) -> bytes:
        """Lockstep: return the next command, or end the transaction if nothing stands."""
        refused = flight.replies[0].code >= 300
        if refused or (len(flight.replies) == flight.recipients + 1 and not flight.accepted):
            self.needs_reset = not refused
            self._end(flight)
            return b""
        return flight.commands.pop()

    def _take_reset(self, flight: Flight, reply: Reply) -> bytes:
        """A peer that can't reset would judge the next message by the last one's state: leave it."""
        if reply.code >= 300:
            self._give_up()
            return b""
        flight.awaits_reset = False
        return flight.commands.pop() if flight.commands else b""

    def _take_unasked(self, reply: Reply) -> bytes:
        if not self._quitting:
            raise self._out_of_step(reply)
        self._quitting = False
        self.is_closing = True
        return b""

    def _out_of_step(self, reply: Reply) -> RemoteProtocolError:
        self.is_closing = True
        return RemoteProtocolError(f"unexpected reply while waiting for {self.waiting_for}: {reply}")

    def _close(self, reply: Reply) -> bytes:
        """A 421: it answers the oldest command; the transactions behind it were never looked at."""
        if self._flights and not self._flights[0].awaits_reset:
            flight = self._flights[0]
            answered = len(flight.replies)
            if answered == 0:
                flight.replies.append(reply)
            self.refusals.append(Refusal(flight.token, phase_of(flight, answered), reply))
            self._outcomes.append(self._outcome_of(flight, reply))
            self._flights.popleft()
        self._give_up()
        return b""

    def _give_up(self) -> None:
        self.is_closing = True
        self._quitting = False
        for flight in self._flights:
            self._outcomes.append(Outcome(flight.token, None, [], None, is_untried=True))
        self._flights.clear()

    def _note_refusal(self, flight: Flight, reply: Reply) -> None:
        """Keep it for the shell, which may want to stop before it writes on. Nobody's reply is not one."""
        if not flight.is_dotted and not is_misunderstood(flight):
            self.refusals.append(Refusal(flight.token, phase_of(flight, len(flight.replies) - 1), reply))

    def _end(self, flight: Flight) -> None:
        outcome = self._outcome_of(flight)
        outcome.is_misunderstood = is_misunderstood(flight)
        self._outcomes.append(outcome)
        self._flights.popleft()
        if outcome.is_misunderstood:
            self._give_up()

    def _outcome_of(self, flight: Flight, final: Reply | None = None) -> Outcome:
        """Return the replies of a flight, apart; the reply to a lone dot is nobody's."""
        replies, count = flight.replies, flight.recipients
        if not replies:
            return Outcome(flight.token, None, [], final)
        if final is None and len(replies) > count + 1 and (flight.accepted or flight.is_chunked):
            last = replies[-1]
            final = last if last.code != 354 else None
        return Outcome(flight.token, replies[0], replies[1 : count + 1], final)
