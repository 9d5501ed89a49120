"""A delivery is rebuilt only where its message says for whom it is."""

import pytest

from engine.message.headers import format_received
from engine.store.rebuild import rebuild_delivery
from engine.store.records import encode_body


def stamped(delivery, recipient, message_id=""):
    stamp = format_received(
        "mta.example", message_id or delivery.message_id.hex(), "smtp", "h", "1.2.3.4", recipient, "now"
    )
    return encode_body(delivery.message_id, delivery.envelope, b"X: y\r\n" + stamp + b"Subject: x\r\n\r\n")


def test_only_recipient_is_known_from_our_received_field(make):
    delivery = make("d.example")
    found = rebuild_delivery(delivery.message_id, stamped(delivery, "user@d.example"))
    assert (found.key, found.domain, found.recipients) == (delivery.key, "d.example", ["user@d.example"])
    assert (found.envelope, found.due_at) == (delivery.envelope, delivery.envelope.accepted_at)


@pytest.mark.parametrize(
    ("recipient", "message_id"), [("", ""), ("no address", ""), ("user@d.example", "00" * 12)]
)
def test_nobody_is_guessed(make, recipient, message_id):
    delivery = make()
    assert rebuild_delivery(delivery.message_id, stamped(delivery, recipient, message_id)) is None


def test_damaged_message_has_no_delivery(make):
    delivery = make()
    raw = stamped(delivery, "user@d.example")
    assert rebuild_delivery(delivery.message_id, raw[:-1] + b"?") is None
