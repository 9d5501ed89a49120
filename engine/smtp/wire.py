"""Replies and dot-stuffing: octets to values and back.

Replies are read liberally in what ends a line (CRLF or LF) and strictly in everything else. Of a reply that
is too long the code and the beginning are kept, since it decides all the same. One without an end ends the
session, not our memory.

Owns: the octets of a reply, the transparency of message content.
Never: knows which command a reply answers.
Fails: RemoteProtocolError.
Source: RFC 5321 4.2 (replies), 4.5.2 (transparency), RFC 2034 and 3463 (enhanced codes).
"""

from __future__ import annotations

from functools import lru_cache

from engine.core.errors import RemoteProtocolError
from engine.core.lines import find_dotted
from engine.core.reply import Reply

# What is kept of a reply, and what is read of one, all its lines.
MAX_REPLY_LINE_BYTES = 2048  # RFC 5321 4.5.3.1.5 says 512; real peers go past it
MAX_REPLY_LINES = 100  # the longest EHLO and policy refusals seen have about 30
MAX_REPLY_BYTES = 65_536
_NO_CONTROLS = {code: "?" for code in (*range(32), *range(127, 160)) if code != 9}


class ReplyReader:
    """Turns what a peer sends into replies; one per connection."""

    __slots__ = ("_buffer", "_code", "_lines", "_taken_bytes")

    def __init__(self) -> None:
        self._buffer = b""
        self._code = 0
        self._taken_bytes = 0  # of the lines of the reply that is not complete yet
        self._lines: list[Reply] = []  # of the reply that is not complete yet

    def feed(self, data: bytes, replies: list[Reply] | None = None) -> list[Reply]:
        """Return the replies that `data` completes, appended to `replies`.

        Raises:
            RemoteProtocolError: no reply looks like that; the replies before it are in `replies`.
        """
        found: list[Reply] = [] if replies is None else replies
        if self._buffer:
            data = self._buffer + data
        lines = data.split(b"\n")
        self._buffer = lines.pop()
        for line in lines:
            if line[3:4] == b"-" or self._lines:
                self._read_multiline(line, found)
            else:
                found.append(parse_reply_line(line if len(line) <= MAX_REPLY_LINE_BYTES else _cut(line)))
        if len(self._buffer) > MAX_REPLY_LINE_BYTES:
            parse_reply_line(_cut(self._buffer))  # what is no reply need not be read to its end
            if len(self._buffer) + self._taken_bytes > MAX_REPLY_BYTES:
                raise RemoteProtocolError("reply too long")
        return found

    def _read_multiline(self, line: bytes, found: list[Reply]) -> None:
        part = parse_reply_line(line if len(line) <= MAX_REPLY_LINE_BYTES else _cut(line))
        if self._lines and part.code != self._code:
            raise RemoteProtocolError(f"reply changes its code from {self._code} to {part.code}")
        self._code = part.code
        self._taken_bytes += len(line)
        if self._taken_bytes > MAX_REPLY_BYTES:
            raise RemoteProtocolError("reply too long")
        if len(self._lines) < MAX_REPLY_LINES:
            self._lines.append(part)
        if line[3:4] == b"-":
            return
        found.append(_join(self._lines))
        self._lines = []
        self._taken_bytes = 0


def _cut(line: bytes) -> bytes:
    """Return the beginning of a line that is too long, up to a whole character of UTF-8.

    Raises:
        RemoteProtocolError: it is longer than any reply.
    """
    if len(line) > MAX_REPLY_BYTES:
        raise RemoteProtocolError("reply too long")
    end = MAX_REPLY_LINE_BYTES
    while end > MAX_REPLY_LINE_BYTES - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end]


def _join(parts: list[Reply]) -> Reply:
    """Return one reply of several lines; the first enhanced code counts, contradicting ones stay text."""
    enhanced = next((part.enhanced for part in parts if part.enhanced), "")
    texts = [
        f"{part.enhanced} {part.text}" if part.enhanced and part.enhanced != enhanced else part.text
        for part in parts
    ]
    return Reply(parts[0].code, enhanced, "\n".join(texts))


@lru_cache(maxsize=512)  # a peer says "250 2.1.0 Ok" a million times; 0.1 us instead of 1.5
def parse_reply_line(line: bytes) -> Reply:
    """Parse one line of a reply, its LF removed; the hyphen of a continued line is ignored.

    Raises:
        RemoteProtocolError: it is not three digits, then nothing, a space or a hyphen, and text.
    """
    line = line.removesuffix(b"\r")
    code = line[:3]
    if not (len(code) == 3 and code.isdigit() and b"2" <= code[:1] <= b"5" and line[3:4] in b" -"):
        raise RemoteProtocolError(f"not a reply: {_decode(line[:80])!r}")
    text = _decode(line[4:])
    enhanced, rest = split_enhanced(text)
    if enhanced and enhanced[0] == text[0] == chr(code[0]):
        return Reply(int(code), enhanced, rest)
    return Reply(int(code), "", text)


def split_enhanced(text: str) -> tuple[str, str]:
    """Split "5.1.1 no such user" into the enhanced code ("" if there is none) and the rest."""
    if text[1:2] != "." or text[0] not in "245":
        return "", text
    head, _, rest = text.partition(" ")
    parts = head.split(".")
    if len(parts) == 3 and all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts):
        return head, rest
    return "", text


def _decode(octets: bytes) -> str:
    """Return text that people and JSON can bear: UTF-8, else Latin-1; controls become "?"."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        text = octets.decode("latin-1")
    return text if text.isprintable() else text.translate(_NO_CONTROLS)


def format_reply(code: int, enhanced: str, text: str) -> bytes:
    """Return the octets of a reply; "\\n" in the text makes it one of several lines."""
    head = f"{enhanced} " if enhanced else ""
    if "\n" not in text and "\r" not in text:
        return f"{code} {head}{text}\r\n".encode()
    lines = text.splitlines() or [""]
    octets = "".join(f"{code}-{head}{line}\r\n" for line in lines[:-1])
    return f"{octets}{code} {head}{lines[-1]}\r\n".encode()


def stuff(message: bytes) -> bytes:
    """Return `message` ready for DATA: dots doubled, the terminator behind it."""
    if message[:1] == b".":
        message = b"." + message
    if message and message[-2:] != b"\r\n":
        message += b"\r\n"
    if find_dotted(message) is not None:
        message = message.replace(b"\r\n.", b"\r\n..")
    return message + b".\r\n"
