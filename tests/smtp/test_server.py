"""The receiving side: order of commands, bounds, and what is a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import Reply, make_reply
from engine.smtp.hello import ServerLimits
from engine.smtp.server import ServerConversation
from engine.smtp.transaction import Transaction
from engine.smtp.wire import stuff

DONE = make_reply(250, "2.0.0", "Accepted")
RECIPIENT = b"MAIL FROM:<a@b.example> SMTPUTF8\r\nRCPT TO:<c@d.example> NOTIFY=NEVER\r\n"
ENVELOPE = b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"
HELLO = b"EHLO client.example\r\n"
LIMITS = ServerLimits("mta1.example.net", max_message_bytes=5000, max_recipients=3)


def conversation(limits: ServerLimits = LIMITS) -> ServerConversation:
    conv = ServerConversation(limits)
    conv.receive(HELLO)
    return conv


def codes(octets: bytes) -> list[int]:
    return [int(line[:3]) for line in octets.split(b"\r\n")[:-1] if line[3:4] != b"-"]


def drive(conv: ServerConversation, chunks: list[bytes]) -> tuple[list[Transaction], bytes]:
    """Feed chunks, finishing each message as it comes; return messages and all that was written."""
    messages, out = [], b""
    for chunk in chunks:
        out += conv.receive(chunk)
        while conv.completed is not None:
            messages.append(conv.completed)
            out += conv.finish(DONE)
    return messages, out


def test_greeting_and_extensions() -> None:
    """RFC 5321 section 3.2."""
    conv = ServerConversation(LIMITS)
    assert conv.greeting() == b"220 mta1.example.net ESMTP Mailrail\r\n"
    assert conv.receive(HELLO).splitlines() == [
        b"250-mta1.example.net",
        b"250-PIPELINING",
        b"250-SIZE 5000",
        b"250-8BITMIME",
        b"250-ENHANCEDSTATUSCODES",
        b"250-CHUNKING",
        b"250-SMTPUTF8",
        b"250-DSN",
        b"250 DELIVERBY",
    ]
    assert conv.helo == "client.example"
    assert conv.receive(b"helo old.example\r\n") == b"250 mta1.example.net\r\n"


def test_message_rests_until_finished_and_keeps_what_is_behind() -> None:
    """RFC 2920 section 3.2."""
    conv = conversation()
    assert codes(conv.receive(ENVELOPE)) == [250, 250, 354]
    assert conv.deadline_kind == "data"
    assert conv.receive(b"Subject: x\r\n\r\n..dot\r\n.\r\n" + ENVELOPE) == b""
    assert conv.deadline_kind is None
    assert conv.buffered_bytes == len(ENVELOPE)
    assert conv.receive(b"second\r\n.\r\nQUIT\r\n") == b""
    assert conv.completed is not None
    assert conv.completed.message == b"Subject: x\r\n\r\n.dot\r\n"
    assert conv.completed.sender == "a@acme.example"
    assert conv.completed.recipients == ["b@x.example"]
    assert codes(conv.finish(DONE)) == [250, 250, 250, 354]
    assert conv.completed is not None
    assert conv.completed.message == b"second\r\n"
    assert codes(conv.finish(make_reply(452, "4.3.1", "full"))) == [452, 221]
    assert conv.is_closing
    assert conv.transactions == 2


def test_helo_and_esmtp_are_told_apart() -> None:
    """RFC 5321 section 3.2."""
    conv = ServerConversation(LIMITS)
    [first], _ = drive(conv, [b"HELO x\r\n" + ENVELOPE + b".\r\n"])
    [second], _ = drive(conv, [HELLO + ENVELOPE + b".\r\n"])
    assert (first.is_esmtp, first.helo) == (False, "x")
    assert (second.is_esmtp, second.helo) == (True, "client.example")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n..\r\n..b\r\n.c\r\n\r\n.\r\n", b"a\r\n.\r\n.b\r\nc\r\n\r\n"),
        (b"\xc3\xa4\r\n.\r\n", b"\xc3\xa4\r\n"),
    ],
)
def test_content_is_the_same_whole_bytewise_and_with_trailing_data(content: bytes, message: bytes) -> None:
    """RFC 5321 section 4.5.2."""
    octets = ENVELOPE + content
    for chunks in ([octets], [octets[i : i + 1] for i in range(len(octets))], [octets + b"NOOP\r\n"]):
        [transaction], out = drive(conversation(), chunks)
        assert transaction.message == message
        assert transaction.is_8bit == (not message.isascii())
        assert codes(out)[:4] == [250, 250, 354, 250]


def test_content_split_anywhere() -> None:
    """RFC 5321 section 4.5.2."""
    octets = ENVELOPE + b"one\r\n..two\r\n.three\r\n\r\n.\r\n"
    for first in range(len(octets)):
        for second in range(first, len(octets)):
            chunks = [octets[:first], octets[first:second], octets[second:]]
            [transaction], _ = drive(conversation(), chunks)
            assert transaction.message == b"one\r\n.two\r\nthree\r\n\r\n"


SMUGGLING = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n\x00.\r\n",
    b"\n\n.\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\x00\r\n",
]


@pytest.mark.parametrize("variant", SMUGGLING)
@pytest.mark.parametrize("is_bytewise", [False, True])
def test_only_crlf_dot_crlf_ends_a_message(variant: bytes, is_bytewise: bool) -> None:
    """RFC 5321 sections 2.3.8 and 4.1.1.4."""
    octets = ENVELOPE + b"hello" + variant + ENVELOPE + b"smuggled\r\n.\r\nNOOP\r\n"
    chunks = [octets[i : i + 1] for i in range(len(octets))] if is_bytewise else [octets]
    conv = conversation()
    messages, out = drive(conv, chunks)
    assert messages == []
    assert codes(out) == [250, 250, 354, 550]
    assert conv.is_closing


@given(
    st.lists(
        st.sampled_from(
            [b"\r", b"\n", b".", b"\r\n", b"a", b"\x00", b"MAIL FROM:<x@evil.example>", b"\r\n.\r\n"]
        ),
        max_size=14,
    ),
    st.integers(0, 60),
)
def test_no_other_end_of_data_is_ever_accepted(parts: list[bytes], cut: int) -> None:
    """RFC 5321 sections 2.3.8 and 4.1.1.4."""
    octets = ENVELOPE + b"".join(parts)
    conv = conversation()
    conv.receive(octets[:cut])
    conv.receive(octets[cut:])
    expected = naive_message(b"".join(parts))
    assert (conv.completed.message if conv.completed else None) == expected


def naive_message(content: bytes) -> bytes | None:
    """Return the message that ends with CRLF.CRLF and has only CRLF, by the slowest reading of RFC 5321."""
    content, terminator, _ = (b"\r\n" + content).partition(b"\r\n.\r\n")
    lines = content.split(b"\r\n")[1:]
    if not terminator or any(c in line for line in lines for c in (b"\r", b"\n", b"\0")):
        return None
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)


@given(
    st.binary(max_size=400).map(lambda b: b.replace(b"\r", b"").replace(b"\0", b".").replace(b"\n", b"\r\n"))
)
def test_what_was_stuffed_comes_back(text: bytes) -> None:
    """RFC 5321 section 4.5.2."""
    message = text + b"\r\n"
    [transaction], _ = drive(conversation(), [ENVELOPE + stuff(message)])
    assert transaction.message == message


@given(
    st.lists(
        st.binary(max_size=50)
        | st.sampled_from(
            [HELLO, ENVELOPE, b"\r\n.\r\n", b"RSET\r\n", b"BDAT 5\r\n", b"BDAT 7 LAST\r\n", RECIPIENT]
        ),
        max_size=12,
    )
)
def test_nothing_escapes_whatever_arrives(chunks: list[bytes]) -> None:
    conv = ServerConversation(LIMITS)
    _, out = drive(conv, chunks)
    assert out == b"" or out.endswith(b"\r\n")
    joined = ServerConversation(LIMITS)
    _, whole = drive(joined, [b"".join(chunks)])
    assert out == whole


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (b"MAIL FROM:<a@b.example>\r\n", [503]),
        (HELLO + b"RCPT TO:<a@b.example>\r\n", [250, 503]),
        (HELLO + b"DATA\r\n", [250, 503]),
        (HELLO + b"MAIL FROM:<>\r\nDATA\r\n", [250, 250, 554]),
        (HELLO + b"MAIL FROM:<>\r\nMAIL FROM:<>\r\n", [250, 250, 503]),
        (HELLO + b"MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n", [250, 250, 250, 250]),
        (HELLO + b"MAIL FROM:<>\r\n" + HELLO + b"RCPT TO:<a@b.example>\r\n", [250, 250, 250, 503]),
        (HELLO + b"MAIL a@b.example\r\n", [250, 501]),
        (HELLO + b"MAIL FROM:<>\r\nRCPT a@b.example\r\n", [250, 250, 501]),
        (HELLO + b"MAIL FROM:<> SIZE=5001\r\n", [250, 552]),
        (HELLO + b"MAIL FROM:<> SIZE=5000 BODY=8BITMIME\r\n", [250, 250]),
        (HELLO + b"MAIL FROM:<> FOO=1\r\n", [250, 555]),
        (HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@b.example> FOO=NEVER\r\n", [250, 250, 555]),
        (b"HELO c\r\nMAIL FROM:<a@b.example> SIZE=1\r\n", [250, 555]),
        (b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 1 LAST\r\nx", [250, 250, 250, 503]),
        (HELLO + b"mail from:<>\r\nrcpt to:<a@b.example>\r\ndata\r\n", [250, 250, 250, 354]),
        (HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA now\r\n", [250, 250, 250, 501]),
        (b"NOOP anything\r\nVRFY root\r\nHELP\r\nEXPN list\r\nFOO\r\n\r\n", [250, 252, 214, 502, 500, 500]),
        (b"RSET now\r\n", [501]),
        (b"EHLO\r\n", [501]),
        (b"EHLO a(b\r\n", [501]),
        (b"EHLO a b\r\n", [501]),
        (b"EHLO [192.0.2.1]\r\n", [250]),
        (b"STARTTLS\r\nAUTH PLAIN\r\nBDAT 1 LAST\r\nx", [500, 500, 503]),
        (b"MAILFROM:<>\r\nNOOP\0\r\n", [500, 500]),
        (b"QUIT\r\nNOOP\r\n", [221]),
    ],
)
def test_replies_in_order(commands: bytes, expected: list[int]) -> None:
    """RFC 5321 sections 4.1.4, 2.4 and 7.3."""
    assert codes(ServerConversation(LIMITS).receive(commands)) == expected


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 521),
        (b"POST / HTTP/1.1\r\n", 521),
        (b"CONNECT x:25 HTTP/1.1\r\n", 521),
        (b"\x16\x03\x01\x02\x00\x01", 521),
        (b"\x16\x03\x01\x02\x00\x01\r\n", 521),
        (b"NOOP\n", 500),
        (b"NOOP\rNOOP\r\n", 500),
        (b"NOOP\r\r\n", 500),
        (b"x" * 2049, 500),
        (b"NOOP " + b"x" * 2049 + b"\r\n", 500),
    ],
)
def test_strangers_and_sloppy_lines_are_dismissed(octets: bytes, code: int) -> None:
    """RFC 5321 sections 2.3.8 and 7.8."""
    conv = ServerConversation(LIMITS)
    assert codes(conv.receive(octets + b"NOOP\r\n")) == [code]
    assert conv.is_closing
    assert conv.receive(b"NOOP\r\n") == b""
    assert conv.buffered_bytes == 0


def test_hooks_refuse_without_ending_the_transaction() -> None:
    def on_mail(sender: str) -> Reply | None:
        return None if sender.endswith("@acme.example") else make_reply(550, "5.7.1", "not yours")

    def on_rcpt(recipient: str) -> Reply | None:
        return make_reply(450, "4.2.1", "later") if recipient.startswith("late") else None

    conv = ServerConversation(LIMITS, on_mail, on_rcpt)
    conv.receive(HELLO)
    assert codes(conv.receive(b"MAIL FROM:<a@evil.example>\r\nMAIL FROM:<a@acme.example>\r\n")) == [550, 250]
    assert codes(conv.receive(b"RCPT TO:<late@x.example>\r\nRCPT TO:<ok@x.example>\r\n")) == [450, 250]
    conv.receive(b"DATA\r\n.\r\n")
    assert conv.completed is not None
    assert conv.completed.recipients == ["ok@x.example"]


def test_postmaster_without_domain_is_ours() -> None:
    """RFC 5321 section 4.5.1."""
    [transaction], _ = drive(conversation(), [b"MAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n.\r\n"])
    assert transaction.recipients == ["postmaster@mta1.example.net"]


def test_recipients_over_the_limit_get_452_and_the_rest_goes() -> None:
    """RFC 5321 section 4.5.3.1.10, RFC 1870 section 6.1."""
    rcpts = b"".join(b"RCPT TO:<r%d@x.example>\r\n" % i for i in range(5))
    [transaction], out = drive(conversation(), [b"MAIL FROM:<>\r\n" + rcpts + b"DATA\r\n.\r\n"])
    assert codes(out) == [250, 250, 250, 250, 452, 452, 354, 250]
    assert len(transaction.recipients) == 3


@pytest.mark.parametrize("piece", [100, 5001, 20_000])
def test_oversize_message_is_read_to_its_end_and_refused(piece: int) -> None:
    """RFC 1870 section 6.3."""
    body = b"x" * 98 + b"\r\n"
    octets = ENVELOPE + body * 60 + b".\r\nNOOP\r\n"
    messages, out = drive(conversation(), [octets[i : i + piece] for i in range(0, len(octets), piece)])
    assert messages == []
    assert codes(out) == [250, 250, 354, 552, 250]


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_message_of_exactly_the_limit_is_accepted(piece: int) -> None:
    """RFC 1870 section 6.3."""
    octets = ENVELOPE + (b"x" * 98 + b"\r\n") * 50 + b".\r\n"
    messages, _ = drive(conversation(), [octets[i : i + piece] for i in range(0, len(octets), piece)])
    assert [len(m.message) for m in messages] == [5000]


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_message_one_over_the_limit_is_refused(piece: int) -> None:
    """RFC 1870 section 6.3."""
    octets = ENVELOPE + (b"x" * 98 + b"\r\n") * 49 + b"x" * 99 + b"\r\n.\r\n"
    messages, out = drive(conversation(), [octets[i : i + piece] for i in range(0, len(octets), piece)])
    assert messages == []
    assert codes(out)[-1] == 552


def test_flood_far_past_the_limit_is_cut() -> None:
    conv = conversation()
    conv.receive(ENVELOPE)
    out = b""
    for _ in range(30):
        out += conv.receive(b"x" * 50_000)
    assert codes(out) == [552]
    assert conv.is_closing


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"nul\0\r\n.\r\n", b"550 5.6.0"),
        (b"bare\nlf\r\n.\r\n", b"550 5.6.11"),
        (b"bare\rcr\r\n.\r\n", b"550 5.6.11"),
    ],
)
def test_message_whose_end_is_disputed_is_refused_and_ends_the_session(content: bytes, reply: bytes) -> None:
    """RFC 5321 section 2.3.8."""
    conv = conversation()
    conv.receive(ENVELOPE)
    assert conv.receive(content + ENVELOPE).startswith(reply)
    assert conv.is_closing
    assert conv.receive(ENVELOPE) == b""


def test_message_that_cannot_be_relayed_is_refused_and_the_session_goes_on() -> None:
    """RFC 5321 section 4.5.3.1.6."""
    conv = conversation()
    conv.receive(ENVELOPE)
    assert conv.receive(b"x" * 999 + b"\r\n.\r\n").startswith(b"550 5.6.0")
    assert not conv.in_transaction
    assert codes(conv.receive(ENVELOPE)) == [250, 250, 354]


def test_too_many_errors_close() -> None:
    """RFC 5321 section 7.8."""
    conv = conversation()
    out = conv.receive(b"FOO\r\n" * 50)
    assert codes(out) == [500] * 21 + [421]
    assert conv.is_closing


def test_a_message_forgives_errors() -> None:
    conv = conversation()
    for _ in range(3):
        drive(conv, [b"FOO\r\n" * 15 + ENVELOPE + b".\r\n"])
    assert not conv.is_closing


def test_too_many_idle_commands_close() -> None:
    """RFC 5321 section 7.8."""
    conv = conversation()
    assert codes(conv.receive(b"NOOP\r\n" * 200)) == [250] * 99 + [421]
    assert conv.is_closing


def test_enough_messages_for_one_connection() -> None:
    conv = conversation(ServerLimits("mta1.example.net", max_transactions=1))
    drive(conv, [ENVELOPE + b".\r\n"])
    assert codes(conv.receive(ENVELOPE)) == [421]
    assert conv.is_closing


def test_shut_when_idle_is_at_once() -> None:
    conv = conversation()
    assert codes(conv.shut(make_reply(421, "4.3.2", "stopping"))) == [421]
    assert conv.is_closing
    assert conv.shut(make_reply(421, "4.3.2", "stopping")) == b""


LONG = b"x" * 999 + b"\r\n.\r\n"


@pytest.mark.parametrize("end", [b"RSET\r\n", HELLO, b"RCPT TO:<a@b.example>\r\nDATA\r\nnot\r\n" + LONG])
def test_shut_waits_for_a_transaction_that_is_given_up(end: bytes) -> None:
    conv = conversation()
    conv.receive(b"MAIL FROM:<>\r\n")
    assert conv.shut(make_reply(421, "4.3.2", "stopping")) == b""
    assert not conv.is_closing
    assert codes(conv.receive(end + b"NOOP\r\n"))[-1] == 421
    assert conv.is_closing


def test_shut_waits_for_the_message() -> None:
    """RFC 5321 section 3.8."""
    conv = conversation()
    conv.receive(ENVELOPE)
    assert conv.shut(make_reply(421, "4.3.2", "stopping")) == b""
    conv.receive(b"x\r\n.\r\n" + ENVELOPE)
    assert codes(conv.finish(DONE)) == [250, 421]
    assert conv.is_closing


def test_time_out_says_so() -> None:
    conv = conversation()
    assert conv.deadline_kind == "command"
    assert codes(conv.time_out()) == [421]
    assert conv.is_closing


def test_a_421_from_the_shell_closes() -> None:
    conv = conversation()
    conv.receive(ENVELOPE + b".\r\n" + ENVELOPE)
    assert codes(conv.finish(make_reply(421, "4.3.2", "store"))) == [421]
    assert conv.is_closing
