"""What is in flight: a transaction on its way, the session that carries it, and who is told how it ended.

Owns: these values.
Never: talks, decides.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import msgspec

from engine.core.envelope import Delivery
from engine.delivery.site_queue import SiteQueue
from engine.policy.model import Policy
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


class Flight(msgspec.Struct, gc=False, eq=False):
    """A transaction in flight: all, or the first so many, of a delivery's recipients."""

    delivery: Delivery
    recipients: list[str]
    site_queue: SiteQueue  # where it was taken from
    begun_at: float  # loop time
    reserved_at: float  # names its reservation at the path's rates
    permit_at: float = 0.0  # names its permit there, once it has one


class Bearer(Protocol):
    """What settling needs of the session."""

    facts: SessionFacts

    @property
    def now(self) -> float:
        """Loop time."""


class Settler(Protocol):
    """What becomes of a transaction."""

    def settle(self, flight: Flight, outcome: Outcome, session: Bearer) -> None:
        """Give every recipient of the flight its disposition."""

    def put_back(self, flight: Flight) -> None:
        """The peer never looked at it: it is ready again, and this was no attempt."""


def next_depth(outcome: Outcome, depth: int, outstanding: int) -> int:
    """Return how many transactions may await their final reply behind this outcome.

    Design section 6: deeper than one only after a success, back to one after a refusal of MAIL or content.
    """
    final = outcome.final
    if outcome.mail is None or outcome.mail.code >= 300:
        return 1
    if final is None or outcome.reply_for(0) is not final:
        return depth
    return outstanding if final.code < 300 else 1


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
