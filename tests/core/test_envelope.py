"""Message ids and delivery keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.core.envelope import (
    DELIVERY_KEY_BYTES,
    MESSAGE_ID_BYTES,
    Delivery,
    Envelope,
    MessageIds,
    accepted_at,
)


@given(clock=st.lists(st.floats(1.7e9, 1.8e9), min_size=1, max_size=50))
def test_ids_grow_and_never_repeat_whatever_the_clock_does(clock):
    ids = MessageIds(3, b"abcd")
    made = [ids.make(now) for now in clock]
    assert made == sorted(set(made))
    assert all(len(each) == MESSAGE_ID_BYTES for each in made)


def test_an_id_tells_when_its_message_was_accepted():
    assert accepted_at(MessageIds(0, b"abcd").make(1_700_000_000.25)) == 1_700_000_000.25


def test_shards_and_incarnations_never_share_an_id():
    made = {MessageIds(shard, inc).make(1.7e9) for shard in (0, 1) for inc in (b"aaaa", b"bbbb")}
    assert len(made) == 4


def test_a_delivery_key_is_the_message_id_and_the_index():
    envelope = Envelope("", "acme", "pool", 1.0, 1, "smtp")
    delivery = Delivery(b"123456789012", 258, envelope, "x.example", ["a@x.example"], 1.0)
    assert delivery.key == b"123456789012\x01\x02"
    assert len(delivery.key) == DELIVERY_KEY_BYTES
