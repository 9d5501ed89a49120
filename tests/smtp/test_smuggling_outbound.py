"""Ends of data, outbound: whatever a feed takes, a peer of any leniency sees one message (December 2023).

Peers that took LF.LF, CR.CR and their kin for an end of data made two messages out of one. So no octets that
could be one may leave: the feeds refuse them, and what they take leaves with CRLF alone. Inbound is in
test_server and in tests/dialogues.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Refused
from engine.inject.submission import parse_message
from engine.message.pickup import PickupError, parse_pickup
from engine.smtp.client import ClientConversation
from engine.smtp.server import ServerConversation, ServerLimits
from engine.smtp.wire import ReplyReader, stuff

# A lone dot between any two line ends, but for CRLF twice; and with a NUL or another CR about it.
_ENDS = [b"\n", b"\r", b"\r\n"]
VARIANTS = [before + b"." + after for before in _ENDS for after in _ENDS if before + after != b"\r\n\r\n"]
VARIANTS += [b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n"]
ENVELOPE = b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_OK, _GO = b"250 2.0.0 ok\r\n", b"354 go\r\n"


def taken_by_feeds(message: bytes) -> Iterator[bytes]:
    """Yield what each feed makes of a message, where it takes it."""
    conversation = ServerConversation(ServerLimits("mta1.example.net"))
    conversation.receive(b"EHLO client.example\r\n" + ENVELOPE + message + b"\r\n.\r\n")
    if conversation.completed is not None:
        yield conversation.completed.message
    with contextlib.suppress(Refused):
        yield parse_message(message, 100_000)
    with contextlib.suppress(PickupError):
        yield parse_pickup(b"X-Sender: a@acme.example\nX-Receiver: b@x.example\n" + message).message


def sent(message: bytes, *, is_chunked: bool) -> bytes:
    """Return what a peer gets of a message: the octets behind 354, or the chunk."""
    conversation = ClientConversation(pipelining=True)
    conversation.begin("a@acme.example", ["b@x.example"], is_chunked=is_chunked)
    if is_chunked:
        head, _, chunk = conversation.chunk(message).partition(b" LAST\r\n")
        assert head == b"BDAT %d" % len(chunk)
        return chunk
    conversation.receive(_OK + _OK + _GO)
    return conversation.content(stuff(message))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_ever_leaves(variant: bytes) -> None:
    """RFC 5321 sections 2.3.8 and 4.1.1.4: the 12 ends of data that are none."""
    message = b"Subject: x\r\n\r\nhello" + variant + ENVELOPE + b"smuggled\r\n.\r\n"
    for taken in taken_by_feeds(message):
        check(taken)


parts = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"a", b"\0", b": ", b"\r\n.\r\n", ENVELOPE]), max_size=14
)


@given(parts.map(b"".join))
def test_what_leaves_has_one_end_and_no_bare_line_end(message: bytes) -> None:
    """RFC 5321 sections 2.3.8 and 4.1.1.4, RFC 3030 section 2."""
    for taken in taken_by_feeds(message):
        check(taken)


def check(taken: bytes) -> None:
    stuffed, chunk = sent(taken, is_chunked=False), sent(taken, is_chunked=True)
    assert _BARE.search(stuffed) is None
    assert (b"\r\n" + stuffed).index(b"\r\n.\r\n") == len(stuffed) - 3
    assert chunk == taken
    assert _BARE.search(chunk) is None


@given(parts.map(b"".join))
def test_what_our_sender_writes_our_receiver_reads_as_one_message(message: bytes) -> None:
    """RFC 5321 section 4.5.2."""
    for taken in taken_by_feeds(message):
        receiver = ServerConversation(ServerLimits("mx.example"))
        receiver.receive(b"EHLO mta1.example.net\r\n" + ENVELOPE)
        replies = ReplyReader().feed(receiver.receive(sent(taken, is_chunked=False)))
        assert replies == []
        assert receiver.completed is not None
        assert receiver.completed.message == taken
        assert receiver.buffered_bytes == 0
