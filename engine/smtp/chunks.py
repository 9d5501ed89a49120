"""The content of a message as BDAT carries it: chunks of announced lengths, the last one marked.

What a refused or too large chunk holds is read and dropped: its octets are never taken for commands.

Owns: the octets of the message that is being received in chunks, and their bound.
Never: replies.
Source: RFC 3030 2.
"""

from __future__ import annotations

_MAX_SIZE_DIGITS = 20  # RFC 3030 section 2


def parse_bdat(arguments: bytes) -> tuple[int, bool] | None:
    """Return the octets of the chunk and whether it is the last; None for anything but `octets [LAST]`."""
    words = arguments.upper().split()
    if not words or not words[0].isdigit() or len(words[0]) > _MAX_SIZE_DIGITS:
        return None
    if words[1:] not in ([], [b"LAST"]):
        return None
    return int(words[0]), len(words) == 2


class ChunkReader:
    """Reads the chunks of one message after another."""

    __slots__ = (
        "_content",
        "_left",
        "_max_bytes",
        "is_begun",
        "is_dropping",
        "is_last",
        "is_oversize",
        "size_bytes",
    )

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._content = bytearray()
        self._left = 0  # octets of the chunk that have not come yet
        self.is_last = False
        self.is_dropping = False  # the chunk was refused, its octets are not kept
        self.clear()

    def clear(self) -> None:
        """Forget what was kept; a chunk that is being read goes on being dropped."""
        if self._content:
            self._content = bytearray()
        self.size_bytes = 0
        self.is_begun = False  # a chunk of this message was announced: DATA is out of order
        self.is_oversize = False

    @property
    def is_reading(self) -> bool:
        """Octets of a chunk are still to come."""
        return self._left > 0

    def begin(self, size_bytes: int, *, is_last: bool, is_dropping: bool) -> None:
        """A chunk of so many octets follows."""
        assert not self._left
        self._left = size_bytes
        self.is_last = is_last
        self.is_dropping = is_dropping
        if is_dropping:
            return
        self.is_begun = True
        self.size_bytes += size_bytes
        if self.size_bytes > self._max_bytes:
            self.is_oversize = self.is_dropping = True
            self._content = bytearray()

    def read(self, data: bytes, start: int) -> tuple[int, bool]:
        """Read on in the chunk; return where it, or `data`, ends, and whether it is whole."""
        stop = min(start + self._left, len(data))
        self._left -= stop - start
        if not self.is_dropping:
            self._content += data[start:stop]
        return stop, not self._left

    def take(self) -> bytes:
        """Return the whole message; its last line gets the CRLF that chunks may lack and DATA needs."""
        message = bytes(self._content)
        self._content = bytearray()
        return message if message.endswith(b"\r\n") or not message else message + b"\r\n"
