"""A peer's SIZE: what is larger is not sent to it."""

from __future__ import annotations

from engine.core.reply import make_reply
from engine.delivery.settle import disposition_of
from engine.delivery.settle_cells import result_of
from engine.smtp.client import Outcome


def test_a_message_larger_than_the_peer_takes_bounces() -> None:
    """RFC 1870 section 4."""
    outcome = Outcome(None, make_reply(552, "5.3.4", "message of 20 octets; mx takes 10"), [], None)
    reply = outcome.reply_for(0)
    assert reply is not None
    assert disposition_of(reply, outcome, 0) == "bounced"
    assert result_of(outcome) == "permanent"


def test_552_at_rcpt_is_temporary() -> None:
    """RFC 5321 section 4.5.3.1.10."""
    refused = make_reply(552, "5.5.3", "too many recipients")
    outcome = Outcome(None, make_reply(250, "2.1.0", "ok"), [refused], None)
    assert disposition_of(refused, outcome, 0) == "deferred"
