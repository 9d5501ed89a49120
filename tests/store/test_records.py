"""Keys that sort and records that know when they were altered."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.envelope import Delivery, Envelope
from engine.core.terms import Terms
from engine.store import records

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
KEYS = st.binary(min_size=14, max_size=14)
DUE_AT = st.floats(0, 4e9)
DUE_MS = st.integers(0, records.MAX_DUE_MS)
TEXT = st.text(st.characters(exclude_categories=()), max_size=30)

ENVELOPES = st.builds(
    Envelope,
    sender=NAMES,
    customer=NAMES,
    pool=NAMES,
    accepted_at=DUE_AT,
    size_bytes=st.integers(0, 1 << 40),
    feed=st.sampled_from(["smtp", "spool"]),
    is_8bit=st.booleans(),
    tags=st.dictionaries(NAMES, NAMES, max_size=3),
)
DELIVERIES = st.builds(
    Delivery,
    message_id=st.binary(min_size=12, max_size=12),
    index=st.integers(0, 0xFFFF),
    envelope=ENVELOPES,
    domain=NAMES,
    recipients=st.lists(NAMES, min_size=1, max_size=4),
    due_at=DUE_AT,
    message=st.binary(max_size=300),
    attempts=st.integers(0, 1000),
    last_reply=NAMES,
    held=NAMES,
    is_remembered=st.booleans(),
    told=st.integers(0, 3),
    avoid=NAMES,
)


@given(DELIVERIES)
def test_what_is_decoded_is_what_was_encoded(delivery):
    envelope, message = records.decode_body(
        delivery.message_id, records.encode_body(delivery.message_id, delivery.envelope, delivery.message)
    )
    found = records.decode_delivery(delivery.key, records.encode_delivery(delivery), envelope, message)
    assert msgspec.to_builtins(found) == msgspec.to_builtins(delivery)
    assert (
        records.peek_envelope(records.encode_body(delivery.message_id, delivery.envelope, delivery.message))
        == envelope
    )
    place = delivery.envelope.customer, delivery.domain, records.due_ms(delivery.due_at)
    assert records.peek_place(delivery.key, records.encode_delivery(delivery)) == place


@given(DELIVERIES, st.data())
def test_one_flipped_bit_anywhere_is_noticed(delivery, data):
    body = bytearray(records.encode_body(delivery.message_id, delivery.envelope, delivery.message))
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(records.DamagedRecord):
        records.decode_body(delivery.message_id, bytes(body))
    record = bytearray(records.encode_delivery(delivery))
    record[data.draw(st.integers(0, len(record) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(records.DamagedRecord):
        records.decode_delivery(delivery.key, bytes(record), delivery.envelope, b"")


@given(DELIVERIES, st.data())
def test_truncated_records_are_damaged(delivery, data):
    body = records.encode_body(delivery.message_id, delivery.envelope, delivery.message)
    record = records.encode_delivery(delivery)
    with pytest.raises(records.DamagedRecord):
        records.decode_body(delivery.message_id, body[: data.draw(st.integers(0, len(body) - 1))])
    with pytest.raises(records.DamagedRecord):
        records.peek_place(delivery.key, record[: data.draw(st.integers(0, len(record) - 1))])


def test_records_of_a_later_version_say_so():
    with pytest.raises(records.DamagedRecord, match="version 9, not 2"):
        records.decode_body(bytes(12), b"\x09" + bytes(20))
    with pytest.raises(records.DamagedRecord, match="version 9, not 2"):
        records.peek_place(bytes(14), b"\x09" + bytes(20))


@given(TEXT, TEXT)
def test_text_that_utf_8_cannot_hold_is_stored_with_question_marks(sender, last_reply):
    envelope = Envelope(sender, "acme", "pool", 1.0, 1, "smtp", tags={"a": sender})
    delivery = Delivery(bytes(12), 0, envelope, "x.example", [sender], 1.0, last_reply=last_reply)
    stored, message = records.decode_body(bytes(12), records.encode_body(bytes(12), envelope, b"m"))
    found = records.decode_delivery(delivery.key, records.encode_delivery(delivery), stored, message)
    assert found.last_reply == last_reply.encode("utf-8", "replace").decode()
    assert found.envelope.tags["a"] == sender.encode("utf-8", "replace").decode()


@given(NAMES, NAMES, DUE_MS, KEYS)
def test_keys_parse_back(customer, domain, due, key):
    queue = records.queue_name(customer, domain)
    assert records.parse_queue(queue) == (customer, domain)
    entry = records.schedule_key(queue, due, key)
    assert entry == queue + records.position(due, key)
    assert records.parse_schedule_key(entry) == (queue, due, key)
    assert records.parse_head_key(records.head_key(due, queue)) == (due, queue)


@given(st.lists(st.tuples(DUE_MS, KEYS), min_size=2, max_size=5), NAMES)
def test_schedule_keys_of_a_queue_sort_by_due_time(entries, domain):
    queue = records.queue_name("acme", domain)
    by_key = sorted(entries, key=lambda entry: records.schedule_key(queue, *entry))
    assert by_key == sorted(entries)


@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES))
def test_no_queue_name_is_the_beginning_of_another(one, other):
    if one != other:
        assert not records.queue_name(*one).startswith(records.queue_name(*other))


@given(DELIVERIES)
def test_a_delivery_knows_its_schedule_key(delivery):
    queue = records.queue_name(delivery.envelope.customer, delivery.domain)
    expected = records.schedule_key(queue, records.due_ms(delivery.due_at), delivery.key)
    assert records.schedule_key_of(delivery) == expected


@pytest.mark.parametrize(
    ("due_at", "ms"),
    [(0.0, 0), (-5.0, 0), (1.0015, 1001), (float("inf"), records.MAX_DUE_MS), (1e300, records.MAX_DUE_MS)],
)
def test_due_times_out_of_range_are_clamped(due_at, ms):
    assert records.due_ms(due_at) == ms


def test_records_from_before_terms_and_notices_are_read():
    envelope = Envelope("s@a.example", "acme", "pool", 1.0, 1, "smtp", True, "192.0.2.1", "job", {"a": "b"})
    old = msgspec.msgpack.encode(msgspec.to_builtins(envelope)[:10])
    assert msgspec.msgpack.Decoder(Envelope).decode(old) == envelope
    record = msgspec.msgpack.encode(("x.example", ["r@x.example"], 1.0, 2, "later", "", True))
    raw = records._HEAD.pack(records.KEYLESS_VERSION, records.crc32(record)) + record
    found = records.decode_delivery(bytes(14), raw, envelope, b"")
    assert (found.attempts, found.is_remembered, found.told, found.avoid) == (2, True, 0, "")


def test_checksum_over_octets_that_are_no_text_is_damage_all_the_same():
    record = msgspec.msgpack.encode(("x.example", ["r"], 1.0)).replace(b"x.ex", b"\xff\xfe\xfd\xfc")
    key = bytes(14)
    raw = records._HEAD.pack(records.RECORD_VERSION, records.crc32(record, records.crc32(key))) + record
    with pytest.raises(records.DamagedRecord, match="decode"):
        records.peek_place(key, raw)


def test_terms_come_back():
    terms = Terms(True, "id", "FULL", "NEVER", {"r@x.example": ("SUCCESS", "rfc822;r")}, 5.0, "RT", 2.0, True)
    envelope = Envelope("s@a.example", "acme", "pool", 1.0, 1, "smtp", terms=terms)
    assert records.decode_body(bytes(12), records.encode_body(bytes(12), envelope, b"m"))[0] == envelope


@given(DELIVERIES, st.integers(0, 8 * 14 - 1))
def test_record_under_a_key_with_one_flipped_bit_is_damaged_and_known_by_its_own(delivery, bit):
    record = records.encode_delivery(delivery)
    other = list(records.one_bit_away(delivery.key))[bit]
    with pytest.raises(records.DamagedRecord, match="checksum"):
        records.decode_delivery(other, record, delivery.envelope, b"")
    assert records.find_own_key(other, record) == delivery.key
    assert records.is_record_of(delivery.key, record)


@given(DELIVERIES)
def test_body_of_another_message_is_damaged(delivery):
    body = records.encode_body(delivery.message_id, delivery.envelope, b"m")
    with pytest.raises(records.DamagedRecord, match="checksum"):
        records.decode_body(next(records.one_bit_away(delivery.message_id)), body)


def test_damaged_text_that_is_no_utf_8_is_damage_and_not_another_error():
    envelope = Envelope("news@acme.example", "acme", "pool", 1.0, 1, "smtp")
    body = records.encode_body(bytes(12), envelope, b"m").replace(b"news", b"n\xffws")
    with pytest.raises(records.DamagedRecord):
        records.peek_envelope(body)


@pytest.mark.parametrize("name", [b"", b"a", b"a\0b", b"a\0b\0c", b"\xff\0b\0"])
def test_what_is_no_queue_is_none(name):
    assert records.is_queue(records.queue_name("acme", "x.example"))
    assert not records.is_queue(name)
