"""Frames of the injection socket: read whole, octet by octet, with trailing data; faulty ones named."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import make_reply
from engine.inject.frames import FrameReader, Misread, decode_submission, encode_answer

MAX = 1000


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def pack(**changes: Any) -> bytes:
    fields = {"id": 1, "sender": "a@acme.example", "recipients": ["b@x.example"], "message": b"x", **changes}
    return msgspec.msgpack.encode({key: value for key, value in fields.items() if value is not ...})


@given(
    payloads=st.lists(st.binary(max_size=40), max_size=6),
    cuts=st.lists(st.integers(min_value=0, max_value=300), max_size=8),
)
def test_frames_are_the_same_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    reader = FrameReader(MAX)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = [
        bytes(payload)
        for start, stop in itertools.pairwise(edges)
        for payload in reader.feed(stream[start:stop])
    ]
    assert found == payloads
    assert not reader.is_inside
    assert reader.awaited_bytes == 0


def test_frames_octet_by_octet() -> None:
    reader = FrameReader(MAX)
    stream = frame(b"one") + frame(b"") + frame(b"three")
    found = [bytes(payload) for at in range(len(stream)) for payload in reader.feed(stream[at : at + 1])]
    assert found == [b"one", b"", b"three"]


def test_unfinished_frame_says_how_long_it_will_be() -> None:
    reader = FrameReader(MAX)
    assert reader.feed(frame(b"whole") + (500).to_bytes(4, "big") + b"part") == [b"whole"]
    assert reader.is_inside
    assert reader.awaited_bytes == 504


def test_frame_of_the_longest_length_is_read() -> None:
    reader = FrameReader(MAX)
    assert reader.feed(frame(b"x" * MAX)) == [b"x" * MAX]
    assert reader.excess_bytes == 0


def test_frames_before_one_that_is_too_long_are_read_and_nothing_after() -> None:
    reader = FrameReader(MAX)
    assert reader.feed(frame(b"good") + (MAX + 1).to_bytes(4, "big") + b"zzz") == [b"good"]
    assert reader.excess_bytes == MAX + 1
    assert reader.feed(frame(b"good")) == []


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
