"""bounces: the sender of what failed is told, and the null sender never is."""

from __future__ import annotations

from email import message_from_bytes
from types import SimpleNamespace
from typing import Any

from engine.core.envelope import Delivery, MessageIds
from engine.core.errors import StoreFull
from engine.core.reply import Reply
from engine.core.terms import Terms
from engine.delivery.bounces import Bouncer
from engine.message.dsn import Failure
from engine.store.memory import MemoryStore
from engine.telemetry.events import Event
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import UNIX_START, make_delivery

NEVER = Reply(550, "5.1.1", "no such user")


class Desk:
    def __init__(self) -> None:
        self.store = MemoryStore(clock=lambda: UNIX_START)
        self.arrived: list[Delivery] = []
        self.events: list[Event] = []
        ids = MessageIds(1, b"test")
        self.bouncer = Bouncer(
            self.store,
            ids,
            self.arrived.append,
            self.events.append,
            Counters(),
            shard=1,
            unix_clock=lambda: UNIX_START + 60.0,
        )
        engine: Any = SimpleNamespace(hostname="mta1.example", postmaster="postmaster@mta1.example")
        self.bouncer.use(SimpleNamespace(engine=engine))  # type: ignore[arg-type]

    def bounce(self, delivery: Delivery, reason: str = "") -> None:
        self.bouncer.bounce(delivery, [Failure("u0@x.example", NEVER, "mx.x.example")], reason)


def test_the_sender_is_told_once_that_is_on_disk() -> None:
    desk = Desk()
    desk.bounce(make_delivery())
    assert not desk.arrived
    desk.store.commit()
    (told,) = desk.arrived
    assert (told.recipients, told.domain) == (["news@acme.example"], "acme.example")
    assert (told.envelope.sender, told.envelope.feed) == ("", "bounce")
    assert (told.envelope.customer, told.envelope.pool) == ("acme", "pool")
    assert desk.store.load(told.key) is not None
    message = message_from_bytes(told.message)
    assert message.get_content_type() == "multipart/report"
    assert message["From"] == "Mail Delivery System <postmaster@mta1.example>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert b"550 5.1.1 no such user" in told.message
    assert desk.bouncer.made == 1


def test_the_null_sender_is_never_told() -> None:
    """RFC 5321 section 4.5.5, RFC 3464 section 2."""
    desk = Desk()
    desk.bounce(make_delivery(sender=""))
    desk.store.commit()
    assert not desk.arrived
    assert not desk.events
    assert desk.store.count() == 0


def test_a_bounce_of_a_bounce_can_not_be() -> None:
    """RFC 5321 section 4.5.5, RFC 3464 section 2."""
    desk = Desk()
    desk.bounce(make_delivery())
    desk.store.commit()
    desk.bounce(desk.arrived[0])
    desk.store.commit()
    assert len(desk.arrived) == 1


def test_the_bounce_is_an_accepted_message_of_its_customer() -> None:
    desk = Desk()
    desk.bounce(make_delivery())
    (event,) = desk.events
    assert (event.event, event.feed, event.customer) == ("accepted", "bounce", "acme")
    assert event.recipients == ["news@acme.example"]


def test_the_bounce_is_on_disk_no_later_than_the_removal() -> None:
    """RFC 5321 section 6.1."""
    desk = Desk()
    delivery = make_delivery()
    desk.store.put([delivery], delivery.message, lambda error: None)
    desk.store.commit()
    desk.bounce(delivery)
    desk.store.remove(delivery)
    desk.store.commit()
    assert desk.store.count() == 1


def test_a_store_full_for_new_mail_still_takes_a_bounce() -> None:
    desk = Desk()
    desk.store.full_reason = "past its watermark"
    desk.bounce(make_delivery())
    assert [event.feed for event in desk.events] == ["bounce"]


def test_a_commit_that_fails_brings_nothing_on() -> None:
    desk = Desk()
    desk.bounce(make_delivery())
    desk.store.commit(StoreFull("no room"))
    assert not desk.arrived


def test_what_the_sender_asked_for_is_in_what_it_gets() -> None:
    """RFC 3461 6: ENVID and ORCPT come back, and the whole message with RET=FULL."""
    desk = Desk()
    terms = Terms(envid="7", ret="FULL", recipients={"u0@x.example": ("", "rfc822;old@x.example")})
    desk.bounce(make_delivery(terms=terms))
    desk.store.commit()
    (told,) = desk.arrived
    assert b"Original-Envelope-Id: 7\r\n" in told.message
    assert b"Original-Recipient: rfc822; old@x.example\r\n" in told.message
    assert b"Content-Type: message/rfc822\r\n" in told.message
    assert told.envelope.terms is None


def test_sender_in_utf8_is_told_by_smtputf8() -> None:
    """RFC 6533 with RFC 6531 3.2."""
    desk = Desk()
    desk.bounce(make_delivery(sender="jürgen@acme.example"))
    desk.store.commit()
    (told,) = desk.arrived
    assert told.recipients == ["jürgen@acme.example"]
    assert told.envelope.terms == Terms(is_utf8=True)
    assert told.envelope.is_8bit


def test_other_actions_are_told_alike() -> None:
    desk = Desk()
    relayed = [Failure("u0@x.example", Reply(250, "2.0.0", "ok"), "mx.x.example")]
    desk.bouncer.bounce(make_delivery(), relayed, "", "relayed")
    desk.bouncer.bounce(make_delivery(sender=""), relayed, "", "relayed")
    desk.store.commit()
    (told,) = desk.arrived
    assert b"Action: relayed\r\n" in told.message


def test_message_that_requires_tls_does_not_go_back_whole() -> None:
    """RFC 8689 5: as if RET=HDRS; and its notification specifies REQUIRETLS, too."""
    desk = Desk()
    desk.bounce(make_delivery(terms=Terms(ret="FULL", requires_tls=True)))
    desk.store.commit()
    (told,) = desk.arrived
    assert b"Content-Type: text/rfc822-headers\r\n" in told.message
    assert told.envelope.sender == ""
    assert told.envelope.terms == Terms(requires_tls=True)
