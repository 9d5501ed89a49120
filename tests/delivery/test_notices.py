"""Who is told of what, and when."""

from __future__ import annotations

import math

import pytest

from engine.core.reply import Reply
from engine.core.terms import Terms
from engine.delivery.notices import (
    DEADLINE,
    DELAY,
    is_told_of_relay,
    next_notice,
    told_of_delay,
    told_of_failure,
)
from engine.message.dsn import Failure
from engine.net.extensions import parse_extensions
from engine.smtp.hello import ServerLimits, offered
from engine.smtp.transaction import read_mail
from tests.fakes.delivery_rig import UNIX_START, make_delivery

A, B, C = "u0@x.example", "u1@x.example", "u2@x.example"
FAILED = [Failure(recipient, Reply(550, "5.1.1", "no")) for recipient in (A, B, C)]


def own(**notify: str) -> Terms:
    return Terms(recipients={f"{name}@x.example": (text, "") for name, text in notify.items()})


def test_failure_is_told_unless_notify_leaves_it_out() -> None:
    """RFC 3461 4.1: NEVER, or a list without FAILURE; without NOTIFY it is told."""
    assert told_of_failure(None, FAILED) == FAILED
    told = told_of_failure(own(u0="NEVER", u1="SUCCESS,DELAY"), FAILED)
    assert [failure.recipient for failure in told] == [C]


@pytest.mark.parametrize(
    ("terms", "offer", "is_told"),
    [
        (own(u0="SUCCESS"), "", True),
        (own(u0="SUCCESS,FAILURE"), "DSN", False),
        (own(u0="FAILURE"), "", False),
        (own(u0="NEVER"), "", False),
        (Terms(envid="7"), "", False),
        (Terms(by_mode="N", deliver_by_at=1.0), "DSN", True),
        (Terms(by_mode="R", deliver_by_at=1.0), "DSN\nDELIVERBY 60", False),
        (Terms(by_mode="RT", deliver_by_at=1.0), "DSN\nDELIVERBY", True),
        (Terms(by_mode="NT", deliver_by_at=1.0, notify="NEVER"), "", False),
        (Terms(by_mode="E", deliver_by_at=1.0), "", False),
    ],
)
def test_relaying_is_told_where_the_peer_will_not(terms: Terms, offer: str, is_told: bool) -> None:
    """RFC 3461 5.2.2: relayed where SUCCESS was asked for; RFC 2852 4.1.4: deadlines and traces."""
    assert is_told_of_relay(terms, A, parse_extensions(offer)) == is_told


def test_delays_are_told_to_those_who_asked_deadlines_to_all_but_never() -> None:
    terms = Terms(recipients={A: ("DELAY", ""), B: ("NEVER", ""), C: ("SUCCESS", "")})
    delivery = make_delivery(recipients=3, terms=terms)
    assert told_of_delay(delivery, DELAY) == [A]
    assert told_of_delay(delivery, DEADLINE) == [A, C]
    assert told_of_delay(make_delivery(), DELAY) == []


def test_next_notice_is_the_earliest_that_was_not_given() -> None:
    terms = Terms(notify="DELAY", by_mode="N", deliver_by_at=UNIX_START + 100)
    delivery = make_delivery(terms=terms)
    assert next_notice(delivery, 60.0) == (UNIX_START + 60, DELAY)
    assert next_notice(delivery, 600.0) == (UNIX_START + 100, DEADLINE)
    delivery.told = DELAY
    assert next_notice(delivery, 60.0) == (UNIX_START + 100, DEADLINE)
    delivery.told = DELAY | DEADLINE
    assert next_notice(delivery, 60.0) == (math.inf, 0)


def test_deadline_that_had_passed_when_the_message_came_was_told_by_who_let_it_pass() -> None:
    """RFC 2852 4: with N the by-time may be zero or negative."""
    limits = ServerLimits("mta1.example")
    for text, at in ((b"0;N", math.inf), (b"-60;NT", math.inf), (b"60;N", UNIX_START + 60)):
        _, terms = read_mail(b"<a@b.example> BY=" + text, offered(limits), limits, lambda: UNIX_START)
        assert next_notice(make_delivery(terms=terms), 600.0)[0] == at


def test_delay_counts_from_the_release() -> None:
    """RFC 4865 4."""
    delivery = make_delivery(terms=Terms(notify="DELAY", hold_until=UNIX_START + 1000))
    assert next_notice(delivery, 60.0) == (UNIX_START + 1060, DELAY)


@pytest.mark.parametrize("terms", [None, Terms(envid="7"), Terms(notify="FAILURE"), Terms(notify="NEVER")])
def test_who_did_not_ask_has_no_notice_to_come(terms: Terms | None) -> None:
    assert next_notice(make_delivery(terms=terms), 60.0) == (math.inf, 0)


def test_null_sender_has_no_notice_to_come() -> None:
    """RFC 3461 4.1 with RFC 5321 6.1."""
    assert next_notice(make_delivery(sender="", terms=Terms(notify="DELAY")), 60.0) == (math.inf, 0)
