"""What a client sends, taken apart: command lines, the content behind DATA, the chunks behind BDAT.

Strict where leniency has been an attack: a line ends with CRLF and a message with CRLF.CRLF and with nothing
else, so no two hosts can disagree about where a message ends ("SMTP smuggling", December 2023).

Owns: which octets are a command and which a message; what has come and is not looked at; the bound of a line.
Never: knows a command, or what a message is good for (`_command`, `_complete` and `_end_chunk` do).
Source: RFC 5321 2.3.8 and 4.5.3.1.4, RFC 2920 3.2.
"""

from __future__ import annotations

from abc import abstractmethod

from engine.smtp.chunks import ChunkReader
from engine.smtp.content import ContentReader
from engine.smtp.hello import ServerLimits
from engine.smtp.replies import Replies
from engine.smtp.strangers import TLS_HELLO, is_stranger

MAX_COMMAND_BYTES = 2048  # RFC 5321 4.5.3.1.4 asks for 512, extensions for some hundred more


class Reading(Replies):
    """The incoming half of one conversation, cut anywhere."""

    __slots__ = ("_buffer", "_chunks", "_content", "_in_content", "is_resting")

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(limits)
        self._buffer = b""  # a partial command, or all that came while resting
        self._in_content = False
        self._content = ContentReader(limits.max_message_bytes)
        self._chunks = ChunkReader(limits.max_message_bytes)
        self.is_resting = False  # octets that arrive are kept, until the shell has done something

    @property
    def deadline_kind(self) -> str | None:
        """Which timer runs: "command" or "data"; None while the message is being finished."""
        if self.is_resting:
            return None
        return "data" if self._in_content or self._chunks.is_begun or self._chunks.is_reading else "command"

    @property
    def buffered_bytes(self) -> int:
        """How much has come that is not looked at: stop reading while this is large."""
        return len(self._buffer)

    @property
    def content_bytes(self) -> int:
        """How much of a message that goes on has been read."""
        return self._content.size_bytes + self._chunks.size_bytes

    def receive(self, data: bytes) -> bytes:
        """Take what arrived; return what to write."""
        if self.is_closing:
            return b""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if self.is_resting:
            self._buffer = data
            return b""
        return self._read(data)

    # -- what is read ---------------------------------------------------------------------------------------

    @abstractmethod
    def _command(self, command: bytes) -> bytes:
        """Carry out one command, without its line end; return the reply."""

    @abstractmethod
    def _complete(self, message: bytes, *, is_oversize: bool) -> bytes:
        """The message is whole: hand it out, or return why not."""

    @abstractmethod
    def _end_chunk(self) -> bytes:
        """A chunk is whole: return the reply, if there is one already."""

    def _rested(self) -> bytes:
        """Reading stops until the shell has done something; return what is written meanwhile."""
        return b""

    # -- reading --------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> bytes:
        """Read commands and content until `data` ends, a message is complete or the session closes. HOT."""
        out = b""
        position, end = 0, len(data)
        while position < end:
            if self._in_content or self._chunks.is_reading:
                read = self._read_content if self._in_content else self._read_chunk
                position, replies = read(data, position)
                out += replies
                if not self.is_resting and not self.is_closing:
                    continue
                break
            stop = data.find(b"\n", position)
            if stop < 0 or stop - position > MAX_COMMAND_BYTES:
                out += self._check_partial(data, position)
                break
            out += self._line(data[position : stop + 1])
            position = stop + 1
            if self.is_closing or self.is_resting:
                break
        if position < end and not self.is_closing:
            self._buffer = data[position:]
        return out + self._rested() if self.is_resting else out

    def _go_on(self, out: bytes) -> bytes:
        """Read what was pipelined behind that which has been answered now."""
        if not self._buffer or self.is_closing:
            return out
        data, self._buffer = self._buffer, b""
        return out + self._read(data)

    def _line(self, line: bytes) -> bytes:
        """Carry out the command on a line, if it is one; return the reply."""
        command = line[:-2]
        if line[-2:] != b"\r\n" or b"\r" in command:
            is_lost = is_stranger(line)
            return self._stranger() if is_lost else self._dismiss(500, "5.5.2", "Lines must end with CRLF")
        return self._command(command)

    def _check_partial(self, data: bytes, position: int) -> bytes:
        """A line without an end: wait for it within bounds; strangers are told at once."""
        if data[position : position + 1] == TLS_HELLO:
            return self._stranger()
        if len(data) - position > MAX_COMMAND_BYTES:
            return self._dismiss(500, "5.5.2", "Line too long")
        return b""

    def _read_content(self, data: bytes, start: int) -> tuple[int, bytes]:
        """Read on in the message; return where to go on, and the reply if there is one."""
        stop, message = self._content.read(data, start)
        if message is None:
            flood = self._dismiss(552, "5.3.4", "Message far too large") if self._content.is_flood else b""
            return len(data), flood
        self._in_content = False
        return stop, self._complete(message, is_oversize=self._content.is_oversize)

    def _read_chunk(self, data: bytes, start: int) -> tuple[int, bytes]:
        """Read on in the chunk; return where to go on, and the reply if it is whole."""
        stop, is_whole = self._chunks.read(data, start)
        return stop, self._end_chunk() if is_whole else b""
