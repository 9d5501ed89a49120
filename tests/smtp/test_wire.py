"""Replies and dot-stuffing: whole, byte by byte, with trailing data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import RemoteProtocolError
from engine.core.reply import Reply
from engine.smtp.wire import (
    MAX_REPLY_BYTES,
    MAX_REPLY_LINE_BYTES,
    MAX_REPLY_LINES,
    ReplyReader,
    format_reply,
    split_enhanced,
    stuff,
)

CASES = [
    (b"250 2.1.0 Ok\r\n", Reply(250, "2.1.0", "Ok")),
    (b"250 Ok\r\n", Reply(250, "", "Ok")),
    (b"250\r\n", Reply(250, "", "")),
    (b"250 \r\n", Reply(250, "", "")),
    (b"250 2.0.0\r\n", Reply(250, "2.0.0", "")),
    (b"354 End data with <CR><LF>.<CR><LF>\r\n", Reply(354, "", "End data with <CR><LF>.<CR><LF>")),
    (b"250 Ok\n", Reply(250, "", "Ok")),
    (b"550-5.1.1 No such\r\n550 5.1.1 user here\r\n", Reply(550, "5.1.1", "No such\nuser here")),
    (b"550-No such\r\n550 5.1.1 user\r\n", Reply(550, "5.1.1", "No such\nuser")),
    (b"421-4.7.28 slow\r\n421-4.7.0 down\r\n421 bye\r\n", Reply(421, "4.7.28", "slow\n4.7.0 down\nbye")),
    (b"250-\r\n250 \r\n", Reply(250, "", "\n")),
    (b"550 4.1.1 contradicts\r\n", Reply(550, "", "4.1.1 contradicts")),
    (b"250 5.0.0 contradicts\r\n", Reply(250, "", "5.0.0 contradicts")),
    (b"550 5.1 not one\r\n", Reply(550, "", "5.1 not one")),
    (b"550 5.1.1234 not one\r\n", Reply(550, "", "5.1.1234 not one")),
    ("550 5.1.1 Empfänger unbekannt\r\n".encode(), Reply(550, "5.1.1", "Empfänger unbekannt")),
    (b"550 5.1.1 Empf\xe4nger\r\n", Reply(550, "5.1.1", "Empfänger")),
    (b"550 5.1.1 a\x1b[2Jb\tc\x00\r\n", Reply(550, "5.1.1", "a?[2Jb\tc?")),
    (b"550 5.1.1 bare\rreturn\r\n", Reply(550, "5.1.1", "bare?return")),
]

BAD = [
    b"hello\r\n",
    b"25\r\n",
    b"\r\n",
    b"2500 x\r\n",
    b"150 x\r\n",
    b"650 x\r\n",
    b"250_x\r\n",
    b"-50 x\r\n",
    b"\xb250 x\r\n",
    b"250-a\r\n251 b\r\n",
    b"HTTP/1.1 400 Bad Request\r\n",
    b"250 " + b"x" * MAX_REPLY_BYTES + b"\r\n",
    b"x" * (MAX_REPLY_LINE_BYTES + 1),
    (b"250-" + b"x" * 1000 + b"\r\n") * (MAX_REPLY_BYTES // 1000 + 1),
]


@pytest.mark.parametrize(("octets", "reply"), CASES)
def test_reply_is_the_same_whole_bytewise_and_with_trailing_data(octets: bytes, reply: Reply) -> None:
    """RFC 5321 section 4.2.1 (several lines), RFC 2034 4 (contradictions), RFC 3463 2, RFC 6531 3.7.4.2."""
    assert ReplyReader().feed(octets) == [reply]
    reader = ReplyReader()
    assert [r for i in range(len(octets)) for r in reader.feed(octets[i : i + 1])] == [reply]
    reader = ReplyReader()
    assert reader.feed(octets + b"220 2.0.0 nex") == [reply]
    assert reader.feed(b"t\r\n") == [Reply(220, "2.0.0", "next")]


@pytest.mark.parametrize("octets", BAD)
def test_what_is_no_reply_raises_whole_and_bytewise(octets: bytes) -> None:
    """RFC 5321 section 4.2 (its form), RFC 5321 4.5.3.1.5 (a bound on its length, here with room)."""
    with pytest.raises(RemoteProtocolError):
        ReplyReader().feed(octets)
    reader = ReplyReader()
    with pytest.raises(RemoteProtocolError):
        _ = [reader.feed(octets[i : i + 1]) for i in range(len(octets))]


@pytest.mark.parametrize("step", [1, 700, 1 << 20])
def test_reply_that_is_too_long_keeps_its_code_and_its_beginning(step: int) -> None:
    """RFC 5321 section 4.5.3.1.5: it decides all the same; the bound is on what we keep."""

    def read(octets: bytes) -> list[Reply]:
        reader = ReplyReader()
        return [r for i in range(0, len(octets), step) for r in reader.feed(octets[i : i + step])]

    (reply, after) = read(b"550 5.1.1 " + b"x" * 3000 + b"\r\n250 ok\r\n")
    assert (reply.code, reply.enhanced, len(reply.text)) == (550, "5.1.1", MAX_REPLY_LINE_BYTES - 10)
    assert after == Reply(250, "", "ok")
    (reply,) = read(b"550 x" + "ä".encode() * 2000 + b"\r\n")  # a character that would be cut in two
    assert reply.text == "x" + "ä" * ((MAX_REPLY_LINE_BYTES - 5) // 2)
    (reply, after) = read(b"550-5.7.1 no\r\n" * 299 + b"550 5.7.1 no\r\n250 ok\r\n")
    assert (reply.code, reply.text.count("\n")) == (550, MAX_REPLY_LINES - 1)
    assert after.code == 250


def test_replies_before_nonsense_are_kept() -> None:
    found: list[Reply] = []
    with pytest.raises(RemoteProtocolError):
        ReplyReader().feed(b"250 Ok\r\nnonsense\r\n", found)
    assert found == [Reply(250, "", "Ok")]


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_reader_raises_nothing_but_remote_protocol_error(chunks: list[bytes]) -> None:
    reader = ReplyReader()
    try:
        for chunk in chunks:
            for reply in reader.feed(chunk):
                reply.text.encode()
    except RemoteProtocolError:
        pass


@given(
    st.integers(200, 599),
    st.sampled_from(["", "1.0", "7.28", "12.999"]),
    st.lists(
        st.text(st.characters(categories=["L", "N", "P"], include_characters=" "), max_size=40), min_size=1
    ),
    st.data(),
)
def test_formatted_reply_reads_back(code: int, detail: str, lines: list[str], data: st.DataObject) -> None:
    enhanced = f"{code // 100}.{detail}" if detail and code // 100 != 3 else ""
    text = "\n".join(line.strip() for line in lines)[:1000].rstrip("\n")
    octets = format_reply(code, enhanced, text)
    cut = data.draw(st.integers(0, len(octets)))
    reader = ReplyReader()
    [reply] = reader.feed(octets[:cut]) + reader.feed(octets[cut:])
    assert reply.code == code
    if enhanced or not any(split_enhanced(line)[0] for line in text.split("\n")):
        assert (reply.enhanced, reply.text) == (enhanced, text)


def test_format_reply_cannot_be_made_to_inject() -> None:
    assert format_reply(550, "5.1.1", "a\r\n250 b") == b"550-5.1.1 a\r\n550 5.1.1 250 b\r\n"
    assert format_reply(550, "", "\r") == b"550 \r\n"


@pytest.mark.parametrize(
    ("message", "stuffed"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b".a\r\n..b\r\n", b"..a\r\n...b\r\n.\r\n"),
        (b"\r\n.\r\n.\r\n", b"\r\n..\r\n..\r\n.\r\n"),
    ],
)
def test_stuff(message: bytes, stuffed: bytes) -> None:
    """RFC 5321 section 4.5.2."""
    assert stuff(message) == stuffed


lines = st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"."))).map(
    lambda parts: b"".join(part + b"\r\n" for part in parts)
)


@given(lines)
def test_stuffing_round_trip_and_only_one_end(message: bytes) -> None:
    """RFC 5321 section 4.5.2."""
    stuffed = stuff(message)
    read = [line.removeprefix(b".") for line in stuffed[:-3].split(b"\r\n")]
    assert b"\r\n".join(read) == message
    assert (b"\r\n" + stuffed).index(b"\r\n.\r\n") == len(stuffed) - 3


@pytest.mark.parametrize(
    ("line", "enhanced", "text"),
    [
        (b"250 5.1.1 taken\r\n", "", "5.1.1 taken"),
        (b"550 2.0.0 no\r\n", "", "2.0.0 no"),
        (b"450 5.7.1 later\r\n", "", "5.7.1 later"),
        (b"550 5.1.1 no\r\n", "5.1.1", "no"),
        (b"550 no\r\n", "", "no"),
    ],
)
def test_enhanced_code_of_another_class_than_the_reply_is_text(line: bytes, enhanced: str, text: str) -> None:
    """RFC 2034 4: the class must be that of the reply code; where it is not, the reply code counts."""
    (reply,) = ReplyReader().feed(line)
    assert (reply.enhanced, reply.text) == (enhanced, text)
