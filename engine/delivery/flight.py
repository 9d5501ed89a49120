"""What is in flight: a transaction on its way, the session that carries it, and who is told how it ended.

Owns: these values.
Never: talks, decides.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from engine.core.envelope import Delivery
from engine.delivery.securing import Secured
from engine.delivery.site_queue import SiteQueue
from engine.net.extensions import Extensions
from engine.policy.on_reply import ReplyRule
from engine.queue.path import Path
from engine.smtp.client import Outcome
from engine.telemetry.events import Peer


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
    proxy: str = ""
    secured: Secured | None = None  # what it had to show of TLS


class Met(NamedTuple):
    """Whom an attempt met that ended before any transaction, and in which phase of opening a session."""

    peer: Peer | None = None
    phase: str = ""
    rule: ReplyRule | None = None  # for replies, which what the peer said has met


NOBODY = Met()


class Flight(msgspec.Struct, gc=False, eq=False):
    """A transaction in flight: all, or the first so many, of a delivery's recipients."""

    delivery: Delivery
    recipients: list[str]
    site_queue: SiteQueue  # where it was taken from
    begun_at: float  # loop time
    reserved_at: float  # names its reservation at the path's rates
    permit_at: float = 0.0  # names its permit there, once it has one
    fired: dict[int, ReplyRule] | None = None  # by identity of a reply: the rule that it has met


class Bearer(Protocol):
    """What settling needs of the session."""

    facts: SessionFacts
    extensions: Extensions
    path: Path

    @property
    def now(self) -> float:
        """Loop time."""


class Settler(Protocol):
    """What becomes of a transaction."""

    def settle(self, flight: Flight, outcome: Outcome, session: Bearer) -> None:
        """Give every recipient of the flight its disposition."""

    def put_back(self, flight: Flight) -> None:
        """The peer never looked at it: it is ready again, and this was no attempt."""


def recipients_to_try(delivery: Delivery, most: int) -> list[str]:
    """Return the recipients of the next transaction: those not deferred in this attempt, at most so many."""
    recipients = delivery.recipients
    untried = len(recipients) - delivery.deferred
    return recipients[: min(untried, most)] if delivery.deferred or untried > most else recipients


def observe_end(flight: Flight, path: Path, now: float) -> None:
    """Tell the rates of a path that a transaction has ended."""
    if not flight.permit_at:  # refused before its content: that counts too
        path.redeem_message(now, flight.reserved_at)
    elif flight.permit_at <= now:  # else its content was never written
        path.observe_reply(flight.permit_at, now)


def next_depth(outcome: Outcome, depth: int, outstanding: int) -> int:
    """Return how many transactions may await their final reply behind this outcome.

    Design section 6: deeper than one only after a success, back to one after a refusal of MAIL or content.
    """
    final = outcome.final
    if outcome.mail is None or outcome.mail.code >= 300:
        return 1
    if final is None or not any(reply.code < 300 for reply in outcome.recipients):
        return depth  # nobody stood: that says nothing of the message
    return outstanding if final.code < 300 else 1
