"""Leaves without a tree are known by their entries."""

import pytest

from engine.store.records import encode_body, encode_claim, encode_delivery, schedule_key_of
from engine.store.remembered import encode_remembered, reply_key
from engine.store.shapes import guess_table


def test_each_table_is_known_by_its_entries(make):
    delivery = make()
    seen = encode_remembered(delivery.key, 2e9)
    reply = reply_key("acme", "id-1")
    entries = {
        "bodies": (delivery.message_id, encode_body(delivery.message_id, delivery.envelope, b"m")),
        "deliveries": (delivery.key, encode_delivery(delivery)),
        "schedule": (schedule_key_of(delivery), b""),
        "seen": (delivery.key, seen),
        "claims": (b"a-file.msg", encode_claim(b"a-file.msg", delivery.message_id)),
        "replies": (reply, encode_remembered(reply, 2e9, b"reply")),
    }
    assert {table: guess_table([entry]) for table, entry in entries.items()} == {t: t for t in entries}


def test_entries_of_format_1_are_known_too(make):
    key, expiry = make().key, (2_000_000_000).to_bytes(5, "big")
    assert guess_table([(key, expiry)]) == "seen"
    assert guess_table([(b"a-file.msg", key[:12])]) == "claims"
    assert guess_table([(b"acme\0id-1", expiry + key[:12])]) == "replies"


@pytest.mark.parametrize(
    "entry",
    [(b"format", b"1"), (b"k" * 14, b"x" * 30), (b"k" * 12, b"\x01" + bytes(20)), (bytes(8), bytes(16))],
    ids=["meta", "damaged delivery", "damaged body", "free list"],
)
def test_what_is_doubtful_is_of_no_table(entry):
    assert guess_table([entry]) == ""
