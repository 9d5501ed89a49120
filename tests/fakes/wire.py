"""Transports in memory: one that a test speaks through by hand, one with a scripted peer behind it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class ManualTransport(asyncio.Transport):
    """Keeps what is written; the test says what comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.protocol: asyncio.Protocol | None = None
        self.is_aborted = False
        self.unsent_bytes = 0
        self._is_lost = False

    def connect(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        written, self.written = self.written, b""
        return written

    def say(self, data: bytes) -> None:
        """The peer says something."""
        assert self.protocol is not None
        self.protocol.data_received(data)

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        if not self._is_lost and self.protocol is not None:
            self._is_lost = True
            self.protocol.connection_lost(error)

    def end(self) -> None:
        """The peer closes."""
        assert self.protocol is not None
        self.protocol.eof_received()
        self.lose()

    def write(self, data: Any) -> None:
        assert not self._is_lost, "written behind the end"
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self._is_lost or self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True
        asyncio.get_running_loop().call_soon(self.lose)

    def close(self) -> None:
        self.abort()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 40_000) if name == "sockname" else default


Script = Callable[[str], str | None]


class ScriptedPeer(ManualTransport):
    """A peer that takes pipelined transactions; replies come `latency_s` after their command.

    `script(command)` is given "MAIL FROM:<...>", "RCPT TO:<...>", "DATA", "." or "QUIT" and returns a reply
    without its line end; None for the usual one, "" to close the connection instead.
    """

    def __init__(self, script: Script = lambda command: None, *, latency_s: float = 0.001) -> None:
        super().__init__()
        self.latency_s = latency_s
        self.messages: list[tuple[str, list[str], float]] = []  # sender, recipients, when read
        self.commands: list[str] = []
        self.is_over = False
        self.on_over: Callable[[], None] = lambda: None
        self._script = script
        self._input = b""
        self._is_in_content = False
        self._sender = ""
        self._recipients: list[str] = []
        self._outbox: deque[tuple[bytes, str]] = deque()

    def write(self, data: Any) -> None:
        super().write(data)
        asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        self._input += self.take()
        while not self.is_over:
            end = b"\r\n.\r\n" if self._is_in_content else b"\r\n"
            head, found, rest = self._input.partition(end)
            if not found:
                return
            self._input = rest
            self._answer("." if self._is_in_content else head.decode())

    def _answer(self, command: str) -> None:
        self.commands.append(command)
        scripted = self._script(command)
        if scripted == "":
            self._close()
            return
        reply = scripted or self._usual(command)
        self._note(command, int(reply[:3]))
        self._outbox.append((reply.encode() + b"\r\n", command))  # timers of one instant have no order
        asyncio.get_running_loop().call_later(self.latency_s, self._say)

    def _usual(self, command: str) -> str:
        if command == "DATA":
            return "354 go" if self._recipients else "503 5.5.1 no recipients"
        return "221 2.0.0 bye" if command == "QUIT" else "250 2.0.0 ok"

    def _note(self, command: str, code: int) -> None:
        verb = command[:4]
        if verb == "MAIL":
            self._sender, self._recipients = command[11:].partition(">")[0], []
        elif verb == "RCPT" and code < 300:
            self._recipients.append(command[9:].partition(">")[0])
        elif command == "DATA":
            self._is_in_content = code == 354
        elif command == ".":
            self._is_in_content = False
            if code < 300:
                now = asyncio.get_running_loop().time()
                self.messages.append((self._sender, self._recipients, now))

    def _say(self) -> None:
        data, command = self._outbox.popleft()
        if not self.is_closing():
            self.say(data)
        if command == "QUIT" or data.startswith(b"421"):
            self._close()

    def _close(self) -> None:
        if not self.is_over:
            self.is_over = True
            asyncio.get_running_loop().call_later(self.latency_s, self._end)

    def _end(self) -> None:
        if not self.is_closing():
            self.end()

    def lose(self, error: Exception | None = None) -> None:
        super().lose(error)
        self.is_over = True
        self.on_over()
