"""Frames of the injection socket: what a submission is, faulty ones named, answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.reply import make_reply
from engine.inject.frames import Misread, decode_submission, encode_answer


def pack(**changes: Any) -> bytes:
    fields = {"id": 1, "sender": "a@acme.example", "recipients": ["b@x.example"], "message": b"x", **changes}
    return msgspec.msgpack.encode({key: value for key, value in fields.items() if value is not ...})


def test_submission_of_required_fields() -> None:
    submission = decode_submission(pack(id="a-7"))
    assert submission.id == "a-7"
    assert submission.recipients == ["b@x.example"]
    assert not submission.idempotent


@pytest.mark.parametrize(
    ("changes", "frame_id", "words"),
    [
        ({"colour": "red"}, 1, "unknown field `colour`"),
        ({"sender": ...}, 1, "missing required field `sender`"),
        ({"message": "text"}, 1, "$.message"),
        ({"recipients": "b@x.example"}, 1, "$.recipients"),
        ({"recipients": [1]}, 1, "$.recipients[0]"),
        ({"tags": {"a": 1}}, 1, "$.tags"),
        ({"id": "x", "sender": 5}, "x", "$.sender"),
        ({"id": 1.5}, None, "$.id"),
        ({"id": True}, None, "$.id"),
        ({"id": ...}, None, "missing required field `id`"),
    ],
)
def test_faulty_submission_is_named_by_field_and_by_its_id(
    changes: dict[str, Any], frame_id: object, words: str
) -> None:
    with pytest.raises(Misread) as raised:
        decode_submission(pack(**changes))
    assert words in str(raised.value)
    assert raised.value.id == frame_id


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"GET / HTTP/1.1", b"\x90", b"\x82\xa2id", b"\x81\xa2id\xa2\xff\xff", pack() + b"z"],
)
def test_payload_that_is_no_map_has_no_id(payload: bytes) -> None:
    with pytest.raises(Misread) as raised:
        decode_submission(payload)
    assert raised.value.id is None


@pytest.mark.parametrize(
    "field",
    ["id", "sender", "recipients", "message", "customer", "pool", "job", "tags", "idempotent", "other"],
)
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\x81"])
def test_nesting_past_all_depth_is_misread_in_every_field(field: str, opening: bytes) -> None:
    named = b"\x82\xa2id\x01" + msgspec.msgpack.encode(field)
    for depth in (1_500, 200_000):
        with pytest.raises(Misread):
            decode_submission(named + opening * depth + b"\x01")
        with pytest.raises(Misread):
            decode_submission(opening * depth)


def test_answer_names_the_id_as_it_came() -> None:
    for frame_id in (7, "7", None):
        octets = encode_answer(frame_id, make_reply(250, "2.0.0", "Ok"), ["ab"])
        assert int.from_bytes(octets[:4], "big") == len(octets) - 4
        assert msgspec.msgpack.decode(octets[4:]) == {
            "id": frame_id,
            "code": 250,
            "enhanced": "2.0.0",
            "text": "Ok",
            "message_ids": ["ab"],
        }
