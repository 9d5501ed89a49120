"""Leaves without a tree are known by their entries."""

import pytest

from engine.store.records import encode_body, encode_delivery, schedule_key_of
from engine.store.remembered import encode_remembered, reply_key
from engine.store.shapes import guess_table


def test_each_table_is_known_by_its_entries(make):
    delivery = make()
    seen = encode_remembered(2e9)
    entries = {
        "bodies": (delivery.message_id, encode_body(delivery.envelope, b"m")),
        "deliveries": (delivery.key, encode_delivery(delivery)),
        "schedule": (schedule_key_of(delivery), b""),
        "seen": (delivery.key, seen),
        "claims": (b"a-file.msg", delivery.message_id),
        "replies": (reply_key("acme", "id-1"), encode_remembered(2e9, b"reply")),
    }
    assert {table: guess_table([entry]) for table, entry in entries.items()} == {t: t for t in entries}


@pytest.mark.parametrize(
    "entry",
    [(b"format", b"1"), (b"k" * 14, b"x" * 30), (b"k" * 12, b"\x01" + bytes(20)), (bytes(8), bytes(16))],
    ids=["meta", "damaged delivery", "damaged body", "free list"],
)
def test_what_is_doubtful_is_of_no_table(entry):
    assert guess_table([entry]) == ""
