"""Frames on a stream: read whole, octet by octet, with trailing data."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from engine.core.framing import FrameReader, make_head

MAX = 1000


def frame(payload: bytes) -> bytes:
    return make_head(payload) + payload


def test_head_is_the_length_in_four_octets() -> None:
    assert make_head(b"x" * 258) == b"\0\0\1\2"


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
