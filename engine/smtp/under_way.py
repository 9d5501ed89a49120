"""A transaction between its beginning and its outcome, and what a reply to it is about.

Owns: which of a transaction's replies answers what.
Never: reads or writes (client does).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.core.reply import Reply

# What a peer says to BDAT, although a recipient stands, when it doesn't know what it has offered.
MISUNDERSTOOD = frozenset((500, 501, 502, 503, 504))


class Refusal(NamedTuple):
    """A reply above 399, as soon as it was read: which transaction it answers, and what of it."""

    token: Any
    phase: str  # mail, rcpt or data (the message too)
    reply: Reply


class Flight:
    """One transaction between `begin` and its outcome."""

    __slots__ = (
        "accepted",
        "awaits_reset",
        "commands",
        "content_end",
        "is_behind",
        "is_chunked",
        "is_dotted",
        "recipients",
        "replies",
        "token",
    )

    def __init__(self, token: Any, recipients: int, *, is_chunked: bool, is_behind: bool) -> None:
        self.token = token
        self.recipients = recipients
        self.is_chunked = is_chunked
        self.is_behind = is_behind  # it went out before the transaction ahead of it was answered
        self.replies: list[Reply] = []  # MAIL, each RCPT, DATA, content
        self.accepted = 0  # recipients
        self.awaits_reset = False  # an RSET went ahead of it
        self.content_end = 0  # where its end is in all that was written; 0: the transport was not given it
        self.is_dotted = False  # a lone dot went instead of content
        self.commands: list[bytes] = []  # lockstep: those not sent yet, last one first


def phase_of(flight: Flight, answered: int) -> str:
    """Return what the reply behind so many answers."""
    return "mail" if not answered else "rcpt" if answered <= flight.recipients else "data"


def is_misunderstood(flight: Flight) -> bool:
    """Return whether the peer did not follow what it has offered."""
    if flight.is_behind and flight.replies[0].code == 503:
        return True  # MAIL in the group of the message before: it holds that transaction still
    return (
        flight.is_chunked
        and flight.accepted > 0
        and len(flight.replies) == flight.recipients + 2  # else LMTP's, of which one was answered by its word
        and flight.replies[-1].code in MISUNDERSTOOD
    )
