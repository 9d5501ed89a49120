"""What the fuzzer does with its octets, and what must hold whatever they are.

    server      what a client sends to ServerConversation
    client      what a peer sends to ClientConversation; the first octet says which transactions are begun
    frames      what a client of the injection socket sends
    headers     a message, as acceptance looks at it
    extensions  the text of an EHLO reply

One invariant for all: only the documented exceptions, bounded memory, and the same result whole, octet by
octet and in any other split. Splits come from the octets themselves, so that a finding can be repeated.

Owns: the targets. Each takes octets, returns nothing, and fails with AssertionError.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from engine.core.errors import RemoteProtocolError
from engine.core.framing import HEAD_BYTES, FrameReader
from engine.core.lines import line_fault
from engine.core.reply import make_reply
from engine.inject.frames import Misread, decode_submission
from engine.message.headers import (
    CONTROL_PREFIX,
    complete,
    from_domain,
    read_fields,
    remove_fields,
    scan,
    split,
    take_controls,
)
from engine.net.extensions import parse_extensions
from engine.smtp.client import ClientConversation
from engine.smtp.content import MAX_DROPPED_BYTES
from engine.smtp.reading import MAX_COMMAND_BYTES
from engine.smtp.server import ServerConversation, ServerLimits
from engine.smtp.wire import MAX_REPLY_BYTES, MAX_REPLY_LINES

Target = Callable[[bytes], None]

MAX_INPUT_BYTES = (
    4096  # past MAX_COMMAND_BYTES and MAX_REPLY_LINE_BYTES; one octet at a time costs its square
)
_LIMITS = ServerLimits("mta1.example.net", max_message_bytes=300, max_recipients=2, max_transactions=4)
_ANSWERS = [
    make_reply(250, "2.0.0", "Accepted"),
    make_reply(452, "4.3.1", "No room"),
    make_reply(550, "5.7.1", "No"),
]


def cut(data: bytes) -> Iterator[list[bytes]]:
    """Yield the octets whole, one at a time, and in two other splits."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    chance = random.Random(zlib.crc32(data))
    for pieces in (2, 7):
        marks = sorted(chance.randrange(len(data) + 1) for _ in range(pieces))
        yield [data[start:end] for start, end in zip([0, *marks], [*marks, len(data)], strict=True)]


def same_result(results: Iterator[Any]) -> None:
    """All of them are the first one."""
    first = next(results)
    for other in results:
        assert other == first, f"{other!r}\nis not\n{first!r}"


# -- receiving ----------------------------------------------------------------------------------------------


def server(data: bytes) -> None:
    """Run what a client says through the receiving end."""
    same_result(_serve(pieces) for pieces in cut(data))


def _serve(pieces: list[bytes]) -> tuple[Any, ...]:
    conversation = ServerConversation(_LIMITS)
    messages, out = [], b""
    for piece in pieces:
        out += conversation.receive(piece)
        while conversation.completed is not None:
            messages.append(conversation.completed)
            out += conversation.finish(_ANSWERS[len(messages) % len(_ANSWERS)])
        assert conversation.buffered_bytes <= MAX_COMMAND_BYTES + 1
        assert conversation.content_bytes <= 2 * _LIMITS.max_message_bytes + MAX_DROPPED_BYTES + len(piece)
    for message in messages:
        assert len(message.message) <= _LIMITS.max_message_bytes
        assert len(message.recipients) <= _LIMITS.max_recipients
        assert line_fault(message.message, _LIMITS.max_line_bytes) == ""
        assert b"\0" not in message.message
    lines = out.split(b"\r\n")
    assert lines.pop() == b""
    assert all(line[:3].isdigit() and line[3:4] in b" -" for line in lines)
    return messages, out, conversation.is_closing, conversation.deadline_kind


# -- sending ------------------------------------------------------------------------------------------------


def client(data: bytes) -> None:
    """Run what a peer says through the sending end: as it reacts, and with all begun beforehand."""
    same_result(_converse(data[:1], pieces) for pieces in _cut_lines(data[1:]))
    same_result(_listen(data[:1], pieces) for pieces in cut(data[1:]))


def _cut_lines(data: bytes) -> Iterator[list[bytes]]:
    """As `cut`, and at each line's end: how far a peer has come when we react is a part of the input."""
    lines = [piece + b"\n" for piece in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    for pieces in zip(*(list(cut(line)) for line in lines), strict=True):
        yield [piece for line in pieces for piece in line]


def _sending(kind: bytes) -> tuple[ClientConversation, bool, int]:
    """Return a conversation, whether its transactions are chunked, and for how many recipients."""
    flags = kind[0] if kind else 0
    pipelining = bool(flags & 1)
    conversation = ClientConversation(pipelining=pipelining)
    return conversation, pipelining and bool(flags & 4), 1 + (flags >> 3) % 3


def _converse(kind: bytes, pieces: list[bytes]) -> tuple[Any, ...]:
    """React after each piece, up to five transactions."""
    conversation, is_chunked, recipients = _sending(kind)
    written, outcomes, begun, is_broken = [], [], 0, False
    for piece in [b"", *pieces]:
        try:
            written.append(conversation.receive(piece))
        except RemoteProtocolError:
            is_broken = True
        while (outcome := conversation.pop_outcome()) is not None:
            outcomes.append(outcome)
        if is_broken:
            break
        while conversation.wants_content or (
            begun < 5 and conversation.may_begin and conversation.in_flight < 3
        ):
            if conversation.wants_content:
                written.append(conversation.content(b"body\r\n.\r\n"))
            else:
                written.append(_begin(conversation, is_chunked, recipients, begun))
                begun += 1
        _check_memory(conversation, begun)
    outcomes += conversation.lost()
    _check_outcomes(outcomes, begun, recipients)
    return b"".join(written), outcomes, is_broken, conversation.is_closing


def _listen(kind: bytes, pieces: list[bytes]) -> tuple[Any, ...]:
    """Begin first, then only listen."""
    conversation, is_chunked, recipients = _sending(kind)
    begun = 3 if is_chunked else 1
    written = [_begin(conversation, is_chunked, recipients, token) for token in range(begun)]
    outcomes, is_broken = [], False
    for piece in pieces:
        try:
            written.append(conversation.receive(piece))
        except RemoteProtocolError:
            is_broken = True
            break
        while (outcome := conversation.pop_outcome()) is not None:
            outcomes.append(outcome)
        _check_memory(conversation, begun)
    outcomes += conversation.lost()
    _check_outcomes(outcomes, begun, recipients)
    return b"".join(written) if not is_broken else b"", outcomes, is_broken


def _begin(conversation: ClientConversation, is_chunked: bool, recipients: int, token: int) -> bytes:
    names = [f"u{index}@x.example" for index in range(recipients)]
    if not is_chunked:
        return conversation.begin("a@acme.example", names, token=token)
    envelope = conversation.begin("a@acme.example", names, is_chunked=True, token=token)
    return envelope + conversation.chunk(b"body\r\n")


def _check_memory(conversation: ClientConversation, begun: int) -> None:
    reader = conversation._reader
    assert len(reader._buffer) <= MAX_REPLY_BYTES
    assert len(reader._lines) <= MAX_REPLY_LINES
    assert conversation.in_flight <= begun


def _check_outcomes(outcomes: list[Any], begun: int, recipients: int) -> None:
    assert [outcome.token for outcome in outcomes] == list(range(begun))
    for outcome in outcomes:
        assert not (outcome.is_uncertain and outcome.is_untried)
        assert len(outcome.recipients) <= recipients
        assert not (outcome.is_untried and outcome.mail is not None)


# -- the injection socket ------------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """Cut frames out of a stream and decode each."""
    same_result(_read_frames(pieces) for pieces in cut(data))


def _read_frames(pieces: list[bytes]) -> tuple[Any, ...]:
    reader = FrameReader(1000)
    found: list[Any] = []
    for piece in pieces:
        for payload in reader.feed(piece):
            assert len(payload) <= 1000
            try:
                found.append(decode_submission(payload))
            except Misread as misread:
                found.append((str(misread), misread.id))
        assert reader.held_bytes <= 1000 + HEAD_BYTES
    return found, reader.excess_bytes, reader.held_bytes, reader.awaited_bytes


# -- messages and EHLO replies -------------------------------------------------------------------------------


def headers(data: bytes) -> None:
    """Look at a message as acceptance does; with strict lines, as it is by then, complete it."""
    from_domain(data)
    take_controls(data, scan(data), is_trusted=True)
    said = data[:200].decode("latin-1")
    data = data.replace(b"\r", b"").replace(b"\n", b"\r\n")
    scanned = scan(data)
    header, body = split(data)
    assert (scanned.header, scanned.body) == (header, body)
    assert scanned.received_count <= len(re.findall(rb"received[ \t]*:", header.lower()))
    domain = from_domain(data)
    assert domain is None or (domain.isascii() and len(domain) <= 255)
    read_fields(header)
    assert len(remove_fields(data, frozenset({b"bcc", b"return-path"}))) <= len(data) + 2
    for is_trusted in (False, True):
        controls, left = take_controls(data, scanned, is_trusted=is_trusted)
        assert is_trusted or not (controls.customer or controls.pool)
        assert not any(name.startswith(CONTROL_PREFIX) for name in read_fields(split(left)[0]))
    added = complete(
        scanned,
        hostname="mta1.example.net",
        message_id="00ff",
        protocol="ESMTP",
        helo=said,
        peer=said,
        recipient=said,
        unix_now=1.0,
    )
    assert line_fault(added) == ""
    assert added.isascii()


def extensions(data: bytes) -> None:
    """Read an EHLO reply."""
    text = data.decode("latin-1")
    parsed = parse_extensions(text)
    assert 0 <= parsed.size_limit < 10**19
    assert len(parsed.parameters) <= text.count("\n") + 1
    assert all(keyword == keyword.upper() for keyword in parsed.parameters)


TARGETS: dict[str, Target] = {
    "server": server,
    "client": client,
    "frames": frames,
    "headers": headers,
    "extensions": extensions,
}
