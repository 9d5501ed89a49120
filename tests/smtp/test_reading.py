"""Octets taken apart, however they are cut: a reader that only notes what it was given."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.core.reply import make_reply
from engine.smtp.hello import ServerLimits
from engine.smtp.reading import MAX_COMMAND_BYTES, Reading

LIMITS = ServerLimits("mta1.example.net", max_message_bytes=100)
Feed = Callable[["Noting", bytes], bytes]


class Noting(Reading):
    """Notes commands and messages; a few commands say what follows."""

    def __init__(self) -> None:
        super().__init__(LIMITS)
        self.read: list[bytes] = []
        self.rests = 0

    def _command(self, command: bytes) -> bytes:
        self.read.append(command)
        if command == b"DATA":
            self._in_content = True
        elif command.startswith(b"CHUNK "):
            self._chunks.begin(int(command[6:]), is_last=True, is_dropping=False)
        elif command == b"REST":
            self.is_resting = True
        elif command == b"QUIT":
            self.is_closing = True
        return command[:1]

    def _complete(self, message: bytes, *, is_oversize: bool) -> bytes:
        self.read.append(b"too large" if is_oversize else message)
        self._content.clear()
        self.is_resting = True
        return b""

    def _end_chunk(self) -> bytes:
        self.read.append(self._chunks.take())
        self._chunks.clear()
        return b"c"

    def _rested(self) -> bytes:
        self.rests += 1
        return b"!"

    def wake(self) -> bytes:
        self.is_resting = False
        return self._go_on(b"")


def whole(reader: Noting, data: bytes) -> bytes:
    return reader.receive(data)


def bytewise(reader: Noting, data: bytes) -> bytes:
    return b"".join(reader.receive(data[at : at + 1]) for at in range(len(data)))


@pytest.mark.parametrize("feed", [whole, bytewise])
def test_commands_content_and_chunks_are_told_apart(feed: Feed) -> None:
    reader = Noting()
    out = feed(reader, b"ONE\r\nTWO x\r\nDATA\r\n..dotted\r\n.\r\nCHUNK 7\r\nDATA\r\n.THREE\r\n")
    assert out == b"OTD!"
    assert reader.read == [b"ONE", b"TWO x", b"DATA", b".dotted\r\n"]
    assert reader.deadline_kind is None
    assert reader.wake() == b"CcT"
    assert reader.read[4:] == [b"CHUNK 7", b"DATA\r\n.\r\n", b"THREE"]
    assert (reader.buffered_bytes, reader.deadline_kind) == (0, "command")


@pytest.mark.parametrize("feed", [whole, bytewise])
def test_what_comes_while_it_rests_is_kept_and_not_looked_at(feed: Feed) -> None:
    reader = Noting()
    feed(reader, b"REST\r\nONE\r\nQUIT\r\nNEVER\r\n")
    assert (reader.read, reader.buffered_bytes) == ([b"REST"], len(b"ONE\r\nQUIT\r\nNEVER\r\n"))
    assert reader.wake() == b"OQ"
    assert reader.read == [b"REST", b"ONE", b"QUIT"]
    assert reader.receive(b"MORE\r\n") == b""


@pytest.mark.parametrize("feed", [whole, bytewise])
@pytest.mark.parametrize("line", [b"ONE\n", b"O\rNE\r\n", b"ONE\r\r\n"])
def test_a_line_ends_with_crlf_and_has_none_within(feed: Feed, line: bytes) -> None:
    reader = Noting()
    assert feed(reader, line + b"TWO\r\n").startswith(b"500 5.5.2 Lines must end with CRLF")
    assert (reader.read, reader.is_closing) == ([], True)


@pytest.mark.parametrize("feed", [whole, bytewise])
def test_a_line_has_a_bound_with_and_without_an_end(feed: Feed) -> None:
    for end in (b"", b"\r\n"):
        reader = Noting()
        assert feed(reader, b"x" * (MAX_COMMAND_BYTES + 1) + end).startswith(b"500 5.5.2 Line too long")
        assert reader.is_closing
        assert reader.buffered_bytes <= MAX_COMMAND_BYTES
    reader = Noting()
    feed(reader, b"x" * (MAX_COMMAND_BYTES - 2) + b"\r\n")
    assert len(reader.read[0]) == MAX_COMMAND_BYTES - 2


@pytest.mark.parametrize("feed", [whole, bytewise])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_tls_handshake_is_a_strangers(feed: Feed, end: bytes) -> None:
    assert feed(Noting(), b"\x16\x03\x01" + end).startswith(b"521 ")


def test_the_timer_is_of_what_goes_on() -> None:
    reader = Noting()
    kinds = []
    for piece in (b"DA", b"TA\r\n", b"half of a message\r\n", b".\r\n"):
        reader.receive(piece)
        kinds.append(reader.deadline_kind)
    assert kinds == ["command", "data", "data", None]
    reader.wake()
    reader.receive(b"CHUNK 9\r\nhalf")
    assert (reader.deadline_kind, reader.content_bytes) == ("data", 9)


def test_a_message_over_the_bound_is_read_to_its_end_and_a_flood_is_not() -> None:
    reader = Noting()
    reader.receive(b"DATA\r\n" + b"x" * 200 + b"\r\n.\r\n")
    assert reader.read == [b"DATA", b"too large"]
    flood = Noting()
    flood.receive(b"DATA\r\n")
    out = b""
    while not flood.is_closing:
        out = flood.receive(b"x" * 100_000)
    assert out.startswith(b"552 5.3.4 Message far too large")


def test_a_reply_that_closes_ends_the_reading() -> None:
    reader = Noting()
    reader._reply(make_reply(421, "4.3.2", "stopping"))
    assert reader.receive(b"ONE\r\n") == b""
    assert reader.read == []
