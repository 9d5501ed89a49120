"""Content of messages: whole, in pieces, one after another."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.smtp.content import MAX_DROPPED_BYTES, ContentReader

MESSAGE = b"Subject: x\r\n\r\n.dot\r\n..\r\n\r\n"
STUFFED = b"Subject: x\r\n\r\n..dot\r\n...\r\n\r\n.\r\n"


@given(st.lists(st.integers(0, len(STUFFED)), max_size=6), st.booleans())
def test_message_in_pieces_is_the_same(cuts: list[int], is_later: bool) -> None:
    reader = ContentReader(1000)
    if is_later:
        assert reader.read(b"first\r\n.\r\n", 0) == (10, b"first\r\n")
        reader.clear()
    edges = [0, *sorted(cuts), len(STUFFED)]
    pieces = [STUFFED[a:b] for a, b in itertools.pairwise(edges) if a < b]
    for piece in pieces[:-1]:
        assert reader.read(piece, 0) == (-1, None)
    assert reader.read(pieces[-1] + b"trailing", 0) == (len(pieces[-1]), MESSAGE)


def test_reading_begins_where_it_is_told() -> None:
    assert ContentReader(1000).read(b"DATA\r\n.\r\n", 6) == (9, b"")
    assert ContentReader(1000).read(b"DATA\r\nx\r\n.\r\nQUIT", 6) == (12, b"x\r\n")


@pytest.mark.parametrize("size", [1, 3, 50])
def test_oversize_is_not_kept(size: int) -> None:
    reader = ContentReader(10)
    octets = b"0123456789\r\n.\r\n"
    pieces = [octets[i : i + size] for i in range(0, len(octets), size)]
    for piece in pieces[:-1]:
        reader.read(piece, 0)
    _, message = reader.read(pieces[-1], 0)
    assert message is not None
    assert reader.is_oversize
    reader.clear()
    assert not reader.is_oversize


def test_flood_is_told() -> None:
    reader = ContentReader(10)
    reader.read(b"x" * (MAX_DROPPED_BYTES + 20), 0)
    assert not reader.is_flood
    reader.read(b"x", 0)
    assert reader.is_flood
