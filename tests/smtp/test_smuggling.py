"""SMTP smuggling: no end of a message but CRLF.CRLF, whatever came of it elsewhere.

The variants are those of the disclosures of December 2023 (SEC Consult; CVE-2023-51764 Postfix, -51765
Sendmail, -51766 Exim) and their relatives. A host that takes one of them for the end, behind one that does
not, is told a second message that nobody sent.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Refused
from engine.core.lines import line_fault
from engine.core.reply import make_reply
from engine.inject.submission import parse_message
from engine.smtp.hello import ServerLimits
from engine.smtp.server import ServerConversation
from engine.smtp.wire import stuff

VARIANTS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\n.\r",
    b"\r.\r",
    b"\r.\r\n",
    b"\r.\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\0\r\n.\0\r\n",
    b"\n\n.\n\n",
    b"\n\r.\n\r",
]
HEAD = b"EHLO client.example\r\nMAIL FROM:<a@acme.example>\r\nRCPT TO:<b@x.example>\r\n"
SMUGGLED = (
    b"MAIL FROM:<admin@acme.example>\r\nRCPT TO:<victim@x.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
)
LIMITS = ServerLimits("mta1.example.net")


def as_data(variant: bytes) -> bytes:
    content = b"Subject: x\r\n\r\ntext" + variant + SMUGGLED
    return HEAD + b"DATA\r\n" + content + b"\r\n.\r\nQUIT\r\n"


def as_chunk(variant: bytes) -> bytes:
    content = b"Subject: x\r\n\r\ntext" + variant + SMUGGLED + b"\r\n"
    return HEAD + f"BDAT {len(content)} LAST\r\n".encode() + content + b"QUIT\r\n"


def as_two_chunks(variant: bytes) -> bytes:
    """The variant lies across the edge of two chunks."""
    first = b"Subject: x\r\n\r\ntext" + variant[:1]
    second = variant[1:] + SMUGGLED + b"\r\n"
    head = HEAD + f"BDAT {len(first)}\r\n".encode() + first
    return head + f"BDAT {len(second)} LAST\r\n".encode() + second + b"QUIT\r\n"


def speak(pieces: list[bytes]) -> tuple[list[str], list[bytes]]:
    """Return what was said behind the envelope, and the messages that came through."""
    conversation = ServerConversation(LIMITS)
    said, messages = b"", []
    for piece in pieces:
        said += conversation.receive(piece)
        while conversation.completed is not None:
            messages.append(conversation.completed.message)
            said += conversation.finish(make_reply(250, "2.0.0", "taken"))
    replies = re.findall(rb"^(\d{3} [^ \r]+)", said, re.MULTILINE)
    return [reply.decode() for reply in replies][3:], messages


@pytest.mark.parametrize("way", [as_data, as_chunk, as_two_chunks])
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_of_an_end_is_one(variant: bytes, way: object) -> None:
    """RFC 5321 4.1.1.4, 2.3.8; RFC 3030 2: in every split, the whole is one message and is refused."""
    octets = way(variant)  # type: ignore[operator]
    expected: tuple[list[str], list[bytes]] | None = None
    splits = [[octets[:cut], octets[cut:]] for cut in range(len(octets))]
    splits.append([octets[at : at + 1] for at in range(len(octets))])
    for pieces in splits:
        replies, messages = speak(pieces)
        assert messages == []
        if way is as_data:  # where it ends is disputed: what is behind it is not heard
            assert replies[-1] in ("550 5.6.11", "550 5.6.0"), pieces
        else:
            assert replies[-2:] in (["550 5.6.11", "221 2.0.0"], ["550 5.6.0", "221 2.0.0"]), pieces
        assert expected in (None, (replies, messages))
        expected = (replies, messages)


@pytest.mark.parametrize("max_bytes", [100, 10_000])
@pytest.mark.parametrize("end", [b"\r\r\n.\r\n", b"\n\r\n.\r\n", b"\0\r\n.\r\n", b"\r\nx\n.\r\n\r\n.\r\n"])
def test_what_is_behind_a_disputed_end_is_not_heard(end: bytes, max_bytes: int) -> None:
    """RFC 5321 4.1.1.4: to the host ahead of us it may be the text of its message, and no end."""
    content = b"Subject: x\r\n\r\n" + b"text\r\n" * 40 + b"x" + end
    octets = HEAD + b"DATA\r\n" + content + SMUGGLED + b"\r\n.\r\n"
    for cut in range(len(octets)):
        conversation = ServerConversation(ServerLimits("mta1.example.net", max_message_bytes=max_bytes))
        said = conversation.receive(octets[:cut]) + conversation.receive(octets[cut:])
        assert conversation.completed is None
        assert conversation.is_closing
        assert said.splitlines()[-1][:3] == (b"552" if max_bytes == 100 else b"550"), cut


def test_session_goes_on_behind_a_large_message_whose_lines_are_right() -> None:
    """RFC 1870 6.3; in every split, a pair of CR and LF across its edge too."""
    octets = HEAD + b"DATA\r\n" + b"text\r\n" * 40 + b".\r\nNOOP\r\n"
    for cut in range(len(octets)):
        conversation = ServerConversation(ServerLimits("mta1.example.net", max_message_bytes=100))
        said = conversation.receive(octets[:cut]) + conversation.receive(octets[cut:])
        assert [line[:3] for line in said.splitlines()[-2:]] == [b"552", b"250"], cut


@pytest.mark.parametrize("way", [as_data, as_chunk])
def test_right_line_ends_and_a_dot_that_ends_nothing_are_taken(way: object) -> None:
    """The control: what is refused above is refused for its line ends."""
    octets = way(b"\r\n..\r\n")  # type: ignore[operator]
    replies, messages = speak([octets])
    assert replies[-2:] == ["250 2.0.0", "221 2.0.0"]
    assert len(messages) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_commands_with_other_line_ends_end_the_session(variant: bytes) -> None:
    """RFC 5321 2.3.8: no CR or LF apart in commands either."""
    conversation = ServerConversation(LIMITS)
    conversation.receive(HEAD + b"NOOP" + variant + b"NOOP\r\n")
    assert conversation.is_closing or not conversation.completed
    assert any(code in (500, 521) for code in conversation.refusals)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_socket_and_the_spool_refuse_it_too(variant: bytes) -> None:
    with pytest.raises(Refused, match=r"5\.6\.(11|0)"):
        parse_message(b"Subject: x\r\n\r\ntext" + variant + b"more\r\n", 10_000)


_LINES = st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"")), max_size=8)
_RAW = st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"\r\n.", b"x", b"\0"]), max_size=16)


@given(st.one_of(_LINES.map(lambda lines: b"".join(line + b"\r\n" for line in lines)), _RAW.map(b"".join)))
def test_no_bare_cr_or_lf_and_one_end_leave_us(message: bytes) -> None:
    """RFC 5321 2.3.8, 4.5.2: for every message that acceptance lets through."""
    if line_fault(message):
        return
    stuffed = stuff(message)
    assert re.search(rb"\r(?!\n)|(?<!\r)\n", stuffed) is None
    assert (b"\r\n" + stuffed).count(b"\r\n.\r\n") == 1
    assert stuffed.endswith(b".\r\n")
