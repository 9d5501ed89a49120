"""What BDAT carries (RFC 3030)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import make_reply
from engine.smtp.chunks import ChunkReader, parse_bdat
from engine.smtp.hello import ServerLimits
from engine.smtp.server import ServerConversation

ENVELOPE = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
LINES = st.lists(st.sampled_from([b"", b".", b"..", b"QUIT", b"x" * 70]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(b" 10", (10, False)), (b" 0 last", (0, True)), (b" 7 LAST", (7, True))],
)
def test_arguments(arguments: bytes, expected: tuple[int, bool]) -> None:
    assert parse_bdat(arguments) == expected


@pytest.mark.parametrize("arguments", [b"", b" x", b" -1", b" 1 LAST LAST", b" 1 FIRST", b" " + b"9" * 21])
def test_bad_arguments(arguments: bytes) -> None:
    assert parse_bdat(arguments) is None


def test_last_line_without_an_end_gets_one() -> None:
    chunks = ChunkReader(100)
    chunks.begin(3, is_last=True, is_dropping=False)
    assert chunks.read(b"abcdef", 0) == (3, True)
    assert chunks.take() == b"abc\r\n"


def test_what_is_over_the_bound_is_not_kept() -> None:
    chunks = ChunkReader(4)
    chunks.begin(5, is_last=False, is_dropping=False)
    assert chunks.is_oversize
    chunks.read(b"abcde", 0)
    assert not chunks.is_reading
    assert chunks.take() == b""


@given(LINES, st.lists(st.integers(1, 40), max_size=6), st.integers(1, 50))
def test_message_is_the_chunks_whatever_their_lengths_and_the_pieces_of_the_wire(
    lines: list[bytes], lengths: list[int], piece: int
) -> None:
    """RFC 3030 2: content is octets, no dots are stuffed, no line is a command."""
    message = b"".join([line + b"\r\n" for line in lines])
    octets, rest = ENVELOPE, message
    for length in lengths:
        chunk, rest = rest[:length], rest[length:]
        octets += b"BDAT %d\r\n%b" % (len(chunk), chunk)
    octets += b"BDAT %d LAST\r\n%bNOOP\r\n" % (len(rest), rest)
    conv = ServerConversation(ServerLimits("mta.example"))
    for start in range(0, len(octets), piece):
        conv.receive(octets[start : start + piece])
    assert conv.completed is not None
    assert conv.completed.message == message
    assert conv.deadline_kind is None
    assert conv.finish(make_reply(250, "2.0.0", "Ok")).count(b"\r\n") == 2


def test_session_in_chunks_is_timed_as_one_in_a_message() -> None:
    conv = ServerConversation(ServerLimits("mta.example"))
    conv.receive(ENVELOPE + b"BDAT 9\r\nabc")
    assert conv.deadline_kind == "data"
    assert conv.content_bytes == 9
    conv.receive(b"defghi")
    assert conv.deadline_kind == "data"
    conv.receive(b"RSET\r\n")
    assert (conv.deadline_kind, conv.content_bytes) == ("command", 0)


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"a" * 999 + b"\r\n"])
def test_chunks_obey_the_rules_for_lines(content: bytes) -> None:
    """BINARYMIME is not offered (RFC 3030 3): what DATA could not carry is refused."""
    conv = ServerConversation(ServerLimits("mta.example"))
    out = conv.receive(ENVELOPE + b"BDAT %d LAST\r\n%b" % (len(content), content))
    assert out.splitlines()[-1].startswith(b"550 5.6.")
    assert not conv.in_transaction


def test_announced_flood_ends_the_session() -> None:
    conv = ServerConversation(ServerLimits("mta.example", max_message_bytes=10))
    assert conv.receive(ENVELOPE + b"BDAT 99999999\r\n").splitlines()[-1].startswith(b"552 ")
    assert conv.is_closing
