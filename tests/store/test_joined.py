"""Messages: body and deliveries of one id, and which of several copies counts."""

from engine.store.joined import make_message
from engine.store.records import encode_body, encode_delivery


def test_whole_message(make):
    first = make()
    second = make("y.example", sibling_of=first, index=1)
    body = encode_body(first.message_id, first.envelope, first.message)
    rows = [(each.key, encode_delivery(each)) for each in (second, first)]
    message = make_message(first.message_id, [body], rows)
    assert (message.raw, message.why, message.content) == (body, "", first.message)
    assert [each.domain for each in message.deliveries] == ["x.example", "y.example"]
    assert message.records == [rows[1][1], rows[0][1]]


def test_first_body_whose_checksum_is_right_counts(make):
    delivery = make()
    good = encode_body(delivery.message_id, delivery.envelope, delivery.message)
    message = make_message(delivery.message_id, [good[:-1] + b"?", good], [])
    assert (message.raw, message.why) == (good, "")
    message = make_message(delivery.message_id, [good[:-1] + b"?"], [])
    assert (message.raw, message.why) == (b"", "body: checksum does not match")


def test_delivery_that_was_tried_most_often_counts(make):
    delivery = make()
    rows = []
    for attempts in (1, 3, 2):
        delivery.attempts = attempts
        rows.append((delivery.key, encode_delivery(delivery)))
    rows.append((delivery.key, b"damaged"))
    (found,) = make_message(delivery.message_id, [], rows).deliveries
    assert found.attempts == 3


def test_delivery_that_can_not_be_read_is_named(make):
    delivery = make()
    message = make_message(delivery.message_id, [], [(delivery.key, b"damaged")])
    assert message.deliveries == []
    assert message.unreadable == [(delivery.key, "delivery: version 100, not 2")]


def test_record_under_anothers_key_is_known_by_its_own(make):
    one, other = make(), make("y.example")
    rows = [(other.key, encode_delivery(one)), (other.key, encode_delivery(other))]
    flipped = other.key[:-1] + b"\x08"
    message = make_message(other.message_id, [], [*rows[1:], (flipped, encode_delivery(other))])
    assert [each.key for each in message.deliveries] == [other.key]
    assert message.displaced == [(other.key, rows[1][1])]
    assert message.unreadable == []
