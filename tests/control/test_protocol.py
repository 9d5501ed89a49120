"""Frames, cut anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control.protocol import Frame, LinkReader, encode_frame
from engine.core.errors import RemoteProtocolError

FRAMES: list[Frame] = [
    ("forward", 1, b"x" * 300),
    ("", 1, None),
    ("peer", 0, {"shard": 3, "up": True}),
    ("!", 2, "too late"),
]


def encode(frames: list[Frame]) -> bytes:
    return b"".join(b"".join(encode_frame(*frame)) for frame in frames)


def read(pieces: list[bytes], reader: LinkReader | None = None) -> list[Frame]:
    reader = reader or LinkReader()
    return [frame for piece in pieces for frame in reader.feed(piece)]


def test_frames_read_whole_and_byte_by_byte_are_the_same() -> None:
    octets = encode(FRAMES)
    assert read([octets]) == FRAMES
    assert read([octets[i : i + 1] for i in range(len(octets))]) == FRAMES


@given(st.lists(st.integers(0, 420), max_size=12))
def test_frames_survive_any_cut(cuts: list[int]) -> None:
    octets = encode(FRAMES)
    ends = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    assert read([octets[a:b] for a, b in itertools.pairwise(ends)]) == FRAMES


def test_an_unfinished_frame_is_held_and_nothing_else() -> None:
    reader = LinkReader()
    octets = encode(FRAMES)
    assert read([octets[:-1]], reader) == FRAMES[:-1]
    assert reader.held_bytes == len(encode(FRAMES[-1:])) - 1
    assert read([octets[-1:]], reader) == FRAMES[-1:]
    assert reader.held_bytes == 0


def test_a_frame_over_the_bound_is_refused_by_its_head() -> None:
    with pytest.raises(RemoteProtocolError, match="over 100"):
        LinkReader(max_frame_bytes=100).feed((101).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x01",
        b"\x92\xa1x\x01",
        b"\x93\x01\x01\x01",
        b"\x93\xa1\xff\x01\xc0",
        b"\x93\xa1x\x01" + b"\x91" * 200_000 + b"\x01",
        b"\x93\xa1x" + b"\x91" * 200_000 + b"\x01",
    ],
)
def test_what_is_no_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not a frame"):
        LinkReader().feed(len(payload).to_bytes(4, "big") + payload)


def test_bytes_of_a_body_do_not_keep_the_read_buffer_alive() -> None:
    [(_, _, body)] = LinkReader().feed(encode([("forward", 1, b"message")]))
    assert type(body) is bytes
