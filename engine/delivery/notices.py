"""Which notifications a sender is owed (RFC 3461), and when the next one is due.

Told once: of a delay, after the policy's `delay_notice_after`, who asked for that; of a deadline that passed,
who gave one with "N" (RFC 2852). What peers with DSN are responsible for, they tell.

Owns: who hears of what, and which notices are due.
Never: words or sends one (message.dsn, bounces); reads a clock.
Source: RFC 3461 4.1, 5.2; RFC 2852 4.
"""

from __future__ import annotations

import math

from engine.core.envelope import Delivery
from engine.core.terms import Terms
from engine.message.dsn import Failure
from engine.smtp.parameters import PeerExtensions

# Of Delivery.told, as the store keeps it.
DELAY = 1
DEADLINE = 2


def told_of_failure(terms: Terms | None, failed: list[Failure]) -> list[Failure]:
    """Return the recipients of whose failure the sender is told: not of those whose NOTIFY lacks FAILURE."""
    if terms is None:
        return failed
    return [failure for failure in failed if terms.wants(failure.recipient, "FAILURE")]


def is_told_of_relay(terms: Terms, recipient: str, extensions: PeerExtensions) -> bool:
    """Return whether the sender hears that a message was handed on to a peer.

    Yes where SUCCESS was asked for and the peer can't tell of it itself (RFC 3461 5.2.2); with a deadline of
    mode N, where the peer does not know it (RFC 2852 4.1.4.2); where a trace of relays was asked for (4.1.4).
    NEVER outranks it all.
    """
    notify = terms.notify_of(recipient)
    if notify == "NEVER":
        return False
    is_kept = "DELIVERBY" in extensions.parameters or terms.by_mode[:1] != "N"
    if not is_kept or terms.by_mode[1:] == "T":
        return True
    return "SUCCESS" in notify and not extensions.has_dsn


def told_of_delay(delivery: Delivery, kind: int) -> list[str]:
    """Return the recipients of whose delay the sender is told."""
    terms = delivery.envelope.terms
    if terms is None:
        return []
    if kind == DELAY:
        return [recipient for recipient in delivery.recipients if terms.wants(recipient, "DELAY")]
    return [recipient for recipient in delivery.recipients if terms.notify_of(recipient) != "NEVER"]


def next_notice(delivery: Delivery, delay_notice_after_s: float) -> tuple[float, int]:
    """Return when a delivery that still waits is to be told of, and as what; (inf, 0) for never."""
    envelope = delivery.envelope
    terms = envelope.terms
    if terms is None or not envelope.sender:
        return math.inf, 0
    found = (math.inf, 0)
    # RFC 2852 4: of a time that had passed when the message came, whoever let it pass has told the sender.
    is_due = terms.by_mode[:1] == "N" and not terms.is_overdue and not delivery.told & DEADLINE
    if is_due and told_of_delay(delivery, DEADLINE):
        found = (terms.deliver_by_at, DEADLINE)
    if not delivery.told & DELAY and told_of_delay(delivery, DELAY):
        found = min(found, ((terms.hold_until or envelope.accepted_at) + delay_notice_after_s, DELAY))
    return found
