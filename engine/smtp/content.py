"""The content of a message as DATA carries it: where it ends, and what it is without its dots. HOT.

A message ends with CRLF.CRLF and with nothing else (RFC 5321 4.1.1.4): every leniency here has been a way to
smuggle a second message behind a first (December 2023). Whether its lines are right is looked at later,
on the whole message.

Owns: the octets of the message that is being received, and their bound.
Never: replies.
"""

from __future__ import annotations

from engine.core.lines import find_dotted

_TERMINATOR = b"\r\n.\r\n"
# Past twice the size allowed and this: who sends on is not listening.
MAX_DROPPED_BYTES = 1_000_000


class ContentReader:
    """Reads the content of one message after another."""

    __slots__ = ("_content", "_disputed", "_has_dots", "_max_bytes", "_tail", "is_oversize", "size_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._content = bytearray()  # what has come so far; unused when a message comes in one piece
        self.clear()

    def clear(self) -> None:
        """Forget what was read; a new message begins."""
        if self._content:
            self._content = bytearray()
        self._tail = b"\r\n"  # the last four octets; a lone dot may be the very first line
        self.size_bytes = 0  # come so far, of a message that goes on
        self._has_dots = False
        self._disputed = 0  # CRs and LFs that stand apart, and NULs, in what is not kept
        self.is_oversize = False

    @property
    def is_disputed(self) -> bool:
        """Other hosts may see the end elsewhere (transaction.hides_an_end); of a message that is not kept."""
        return self._disputed > 0

    @property
    def is_flood(self) -> bool:
        """Far more came than is allowed, and no end of it."""
        return self.size_bytes > 2 * self._max_bytes + MAX_DROPPED_BYTES

    def read(self, data: bytes, start: int) -> tuple[int, bytes | None]:
        """Return where the message ends in `data` and the message, or (-1, None) when it goes on.

        A message over the limit is read and not kept: b"", and `is_oversize`.

        A search for CRLF and dot finds the terminator and tells at once whether any line was stuffed; only if
        one was, the terminator is searched for itself. Of what came before only the last octets matter.
        """
        tail = self._tail
        window = tail + data[start : start + 4]
        found = window.find(_TERMINATOR)
        if found >= 0:
            return self._end(data, start, start + found + 5 - len(tail))
        if b"\r\n." in window:
            self._has_dots = True
        dotted = find_dotted(data, start)
        found = dotted.start() if dotted is not None else -1
        if found >= 0 and data[found + 3 : found + 5] != b"\r\n":
            self._has_dots = True
            found = data.find(_TERMINATOR, found)
        if found >= 0:
            return self._end(data, start, found + 5)
        self._keep(data[start:] if start else data)
        return -1, None

    def _keep(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self.size_bytes > self._max_bytes + len(_TERMINATOR):
            self._look_at(bytes(self._content + piece) if not self.is_oversize else piece)
            self.is_oversize = True
            self._content = bytearray()
        else:
            self._content += piece
        self._tail = (self._tail + piece[-4:])[-4:]

    def _look_at(self, piece: bytes) -> None:
        """Count what stands apart in a piece that is not kept; a pair may lie across its edges."""
        if self.is_oversize and self._tail[-1:] == b"\r":
            piece = b"\r" + piece
        stop = len(piece) - (piece[-1:] == b"\r")
        pairs = piece.count(b"\r\n")
        self._disputed += piece.count(b"\r", 0, stop) + piece.count(b"\n") - 2 * pairs + piece.count(b"\0")

    def _end(self, data: bytes, start: int, stop: int) -> tuple[int, bytes]:
        """The terminator ends at `stop`."""
        if self._content:
            self._content += data[start:stop]
            del self._content[-3:]
            message = bytes(self._content)
            self._content = bytearray()
        elif self.is_oversize:
            self._look_at(data[start:stop])
            message = b""
        else:
            message = data[start : stop - 3]
        if self._has_dots:
            message = message[1:] if message[:1] == b"." else message
            message = message.replace(b"\r\n.", b"\r\n")
        self.is_oversize = self.is_oversize or len(message) > self._max_bytes
        return stop, message
