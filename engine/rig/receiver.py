"""One connection of the sink: SMTP as a receiver, written to be cheaper than whatever it measures.

Replies to everything that one read brought leave in one write. With a delay, each reply leaves so long
after its command arrived, so delays of pipelined commands overlap.

Owns: the dialogue of one connection.  Never: keeps a message's body (unless told to save messages).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from engine.rig.prose import ID_FIELD, SENT_FIELD
from engine.rig.script import Rule, Script
from engine.rig.tally import Flow, Tally

MAX_HEADER_BYTES = 256 * 1024  # what is kept of a message to find its id
MAX_LINE_BYTES = 64 * 1024  # a command line longer than this ends the connection
_END = b"\r\n.\r\n"

_encode = msgspec.json.Encoder().encode


@dataclass
class SinkState:
    """What all connections of one sink share."""

    tally: Tally = field(default_factory=Tally)
    script: Script | None = None
    delay_s: float = 0.0
    stage_delays_s: dict[str, float] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    hostname: str = "sink.example"
    has_pipelining: bool = True
    has_chunking: bool = True
    has_enhanced: bool = True
    max_message_bytes: int = 100_000_000
    log: Callable[[bytes], Any] | None = None  # one JSON line an arrival, connection or close
    save: Path | None = None  # whole messages go here, one file each
    saved: int = 0

    @property
    def is_plain(self) -> bool:
        """No script and no delays: the way that is measured flat out."""
        return self.script is None and not self.delay_s and not self.stage_delays_s


class Receiver(asyncio.Protocol):
    """The receiving side of one connection."""

    def __init__(self, state: SinkState) -> None:
        self._state = state
        self._tally = state.tally
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._rest = b""
        self._late: deque[tuple[float, bytes, Callable[[], None] | None]] = deque()
        self._is_plain = True
        self._is_open = False
        self._is_tls = False
        self._is_stalled = False
        self._in_content = False
        self._chunk_left = -1
        self._is_last_chunk = False
        self._flows: dict[bytes, Flow] = {}
        self._last_code = 0  # of the last scripted reply; 0: none was given
        self.ehlo = ""
        self._reset()

    def _reset(self) -> None:
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []
        self._head = b""
        self._has_head = False
        self._whole: list[bytes] = []
        self._test_id = b""
        self._sent_at = 0.0
        self._tail = b"\r\n"

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._is_open = True
        self._listen = _host(transport.get_extra_info("sockname"))
        peer = transport.get_extra_info("peername")
        self._source = _host(peer)
        self._name = f"{self._source}:{peer[1] if isinstance(peer, tuple) else ''}"
        self._link = self._tally.open_link(self._listen, self._source)
        self._note("open")
        self._is_plain = self._state.is_plain
        self._answer("connect", f"220 {self._state.hostname} ESMTP sink\r\n".encode())
        self._flush()

    def eof_received(self) -> None:
        self._gone()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._gone()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        pos = 0
        size = len(data)
        while pos < size and self._is_open:
            if self._in_content:
                pos = self._take_content(data, pos)
                continue
            if self._chunk_left >= 0:
                pos = self._take_chunk(data, pos)
                continue
            end = data.find(b"\r\n", pos)
            if end < 0:
                self._rest = data[pos:]
                if len(self._rest) > MAX_LINE_BYTES:
                    self._close()
                break
            self._take_command(data[pos:end])
            pos = end + 2
        if self._out:
            self._flush()

    # writing

    def _answer(self, stage: str, usual: bytes, rcpt: bytes = b"") -> bool:
        """Queue the answer; return whether it is the usual one (or a positive one in its place)."""
        if self._is_plain:
            self._out.append(usual)
            return True
        state = self._state
        rule = None
        if state.script is not None:
            text = rcpt.decode("latin-1")
            now, opened = self._loop.time(), self._link.now_open
            rule = state.script.find(stage, self._listen, self._source, text, self._name, now, opened)
        delay = state.stage_delays_s.get(stage, state.delay_s) + (rule.delay_s if rule else 0.0)
        self._answer_late(self._choose(rule, usual), delay, self._close if rule and rule.close else None)
        if rule is None or rule.reply is None:
            return not self._is_stalled
        self._last_code = int(rule.reply[:3] or b"0")
        return 200 <= self._last_code < 400

    def _choose(self, rule: Rule | None, usual: bytes) -> bytes:
        if rule is None:
            return usual
        if rule.stall:
            self._is_stalled = True
        return usual if rule.reply is None else rule.reply

    def _answer_late(self, reply: bytes, delay_s: float, then: Callable[[], None] | None) -> None:
        if self._is_stalled:
            return
        due = self._loop.time() + delay_s
        if self._late:
            due = max(due, self._late[-1][0])  # replies never overtake one another
        self._late.append((due, reply, then))
        if len(self._late) == 1:
            self._loop.call_at(due, self._send_late)

    def _send_late(self) -> None:
        now = self._loop.time()
        ready: list[bytes] = []
        after: list[Callable[[], None]] = []
        while self._late and self._late[0][0] <= now + 0.0005:  # half a millisecond of timer grain
            _, reply, then = self._late.popleft()
            ready.append(reply)
            if then is not None:
                after.append(then)
        if self._is_open and not self._transport.is_closing():
            self._transport.write(b"".join(ready))
        if self._late:
            self._loop.call_at(self._late[0][0], self._send_late)
        for then in after:
            then()

    def _flush(self) -> None:
        out = self._out
        if out and self._is_open:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        self._out = []

    def _after_replies(self, then: Callable[[], None]) -> None:
        """Run `then` when everything answered so far has been written."""
        if self._late:
            self._late.append((self._late[-1][0], b"", then))
            return
        self._flush()
        then()

    def _close(self) -> None:
        self._gone()  # counted before the peer can see our FIN
        self._transport.close()

    def _gone(self) -> None:
        if self._is_open:
            self._is_open = False
            self._tally.close_link(self._link)
            self._note("close")

    # commands

    def _take_command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"MAIL":
            if self._answer("mail", b"250 2.1.0 ok\r\n"):
                self._sender = _address(line)
        elif verb == b"RCPT":
            self._take_recipient(line)
        elif verb == b"DATA":
            self._start_content()
        elif verb == b"BDAT":
            self._start_chunk(line)
        elif verb in (b"EHLO", b"HELO"):
            self._take_ehlo(line)
        elif verb == b"STAR":
            self._take_starttls()
        elif verb == b"QUIT":
            self._answer("quit", b"221 2.0.0 bye\r\n")
            self._after_replies(self._close)
        elif verb in (b"RSET", b"NOOP"):
            if verb == b"RSET":
                self._reset()
            self._answer("mail" if self._is_plain else "quit", b"250 2.0.0 ok\r\n")
        else:
            self._answer("quit", b"502 5.5.1 unknown command\r\n")

    def _take_ehlo(self, line: bytes) -> None:
        self._reset()
        self.ehlo = line[5:].strip().decode("latin-1")
        self._link.ehlos[self.ehlo] += 1
        state = self._state
        words = [state.hostname, f"SIZE {state.max_message_bytes}", "8BITMIME"]
        words += ["ENHANCEDSTATUSCODES"] if state.has_enhanced else []
        words += ["PIPELINING"] if state.has_pipelining else []
        words += ["CHUNKING"] if state.has_chunking else []
        words += ["STARTTLS"] if state.tls is not None and not self._is_tls else []
        if line[:1] in (b"H", b"h"):
            words = words[:1]
        last = len(words) - 1
        lines = [f"250{' ' if number == last else '-'}{word}\r\n" for number, word in enumerate(words)]
        self._answer("ehlo", "".join(lines).encode())

    def _take_recipient(self, line: bytes) -> None:
        if self._sender is None:
            self._answer("quit", b"503 5.5.1 MAIL first\r\n")
            return
        recipient = _address(line)
        if self._answer("rcpt", b"250 2.1.5 ok\r\n", recipient):
            self._recipients.append(recipient)

    def _start_content(self) -> None:
        if not self._recipients:
            self._answer("quit", b"503 5.5.1 RCPT first\r\n")
        elif self._answer("data", b"354 go on\r\n", self._recipients[0]):
            self._in_content = True

    def _start_chunk(self, line: bytes) -> None:
        words = line.split()
        self._chunk_left = int(words[1])
        self._is_last_chunk = len(words) > 2
        if not self._chunk_left:
            self._end_chunk()

    def _take_starttls(self) -> None:
        if self._state.tls is None or self._is_tls:
            self._answer("quit", b"502 5.5.1 no TLS here\r\n")
            return
        self._answer("quit", b"220 2.0.0 go ahead\r\n")
        self._transport.pause_reading()
        self._after_replies(self._start_upgrade)

    def _start_upgrade(self) -> None:
        self._upgrading = asyncio.ensure_future(self._upgrade())

    async def _upgrade(self) -> None:
        context = self._state.tls
        assert context is not None
        try:
            self._transport = await self._loop.start_tls(self._transport, self, context, server_side=True)
        except (OSError, ssl.SSLError):
            self._gone()
            return
        self._is_tls = True
        self._rest = b""
        self._reset()

    # content

    def _take_content(self, data: bytes, pos: int) -> int:
        """Read content from `pos` on; return where the next command starts."""
        tail = self._tail
        edge = (tail + data[pos : pos + 4]).find(_END)
        if edge >= 0:
            end = pos + edge + 5 - len(tail)
        else:
            found = data.find(_END, pos)
            end = found + 5 if found >= 0 else -1
        stop = len(data) if end < 0 else end
        if not self._has_head:
            self._scan(data, pos, stop)
        if self._state.save is not None:
            self._whole.append(data[pos:stop])
        self._tally.octets += stop - pos
        if end < 0:
            self._tail = (tail + data[max(pos, stop - 4) :])[-4:]
            return stop
        self._in_content = False
        self._finish()
        return end

    def _take_chunk(self, data: bytes, pos: int) -> int:
        stop = min(pos + self._chunk_left, len(data))
        if not self._has_head:
            self._scan(data, pos, stop)
        if self._state.save is not None:
            self._whole.append(data[pos:stop])
        self._tally.octets += stop - pos
        self._chunk_left -= stop - pos
        if not self._chunk_left:
            self._end_chunk()
        return stop

    def _end_chunk(self) -> None:
        self._chunk_left = -1
        if not self._recipients:
            self._reset()  # or the next message would be taken for this one
            self._answer("quit", b"503 5.5.1 RCPT first\r\n")
        elif self._is_last_chunk:
            self._finish()
        else:
            self._answer("data", b"250 2.0.0 chunk ok\r\n", self._recipients[0])

    def _scan(self, data: bytes, pos: int, stop: int) -> None:
        """Look for our header fields; the header may come in several reads."""
        if self._head:
            data, pos, stop = self._head + data[pos:stop], 0, len(self._head) + stop - pos
        end = data.find(b"\r\n\r\n", pos, stop)
        if end < 0 and stop - pos < MAX_HEADER_BYTES:
            self._head = data[pos:stop]
            return
        self._has_head = True
        self._head = b""
        end = stop if end < 0 else end + 2
        self._test_id = _field(data, ID_FIELD, pos, end)
        sent = _field(data, SENT_FIELD, pos, end)
        self._sent_at = float(sent) if sent else 0.0

    def _finish(self) -> None:
        """Answer end-of-message, after counting it."""
        now = time.monotonic()
        first = self._recipients[0]
        is_taken = self._answer("final", b"250 2.0.0 taken\r\n", first)
        self._count(first, now)
        if is_taken:
            self._link.messages += 1
            self._tally.take(self._test_id, self._recipients, self._sent_at, now)
        else:
            self._tally.refused[self._last_code] += 1
        if self._state.log is not None:
            self._log_message(now, is_taken)
        if self._whole:
            self._save_message()
        self._reset()

    def _count(self, recipient: bytes, now: float) -> None:
        domain = recipient.rpartition(b"@")[2].lower()
        flow = self._flows.get(domain)
        if flow is None:
            flow = self._tally.flow(self._listen, self._source, domain.decode("latin-1"))
            self._flows[domain] = flow
        flow.instants.append(now)

    def _save_message(self) -> None:
        directory = self._state.save
        assert directory is not None
        self._state.saved += 1
        (directory / f"{self._state.saved:07}.eml").write_bytes(b"".join(self._whole))

    # the log

    def _note(self, kind: str) -> None:
        if self._state.log is not None:
            self._log({"t": time.monotonic(), "kind": kind, "ehlo": self.ehlo})

    def _log_message(self, now: float, is_taken: bool) -> None:
        self._log(
            {
                "t": now,
                "kind": "message",
                "ehlo": self.ehlo,
                "rcpt": [recipient.decode("latin-1") for recipient in self._recipients],
                "sender": (self._sender or b"").decode("latin-1"),
                "id": self._test_id.decode("latin-1"),
                "taken": is_taken,
                "tls": self._is_tls,
            }
        )

    def _log(self, facts: dict[str, Any]) -> None:
        assert self._state.log is not None
        facts["listen"] = self._listen
        facts["peer"] = self._name
        facts["source"] = self._source
        self._state.log(_encode(facts) + b"\n")


def _address(line: bytes) -> bytes:
    start = line.find(b"<")
    return line[start + 1 : line.find(b">", start)]


def _field(data: bytes, name: bytes, pos: int, stop: int) -> bytes:
    start = data.find(name, pos, stop)
    if start < 0:
        return b""
    start += len(name)
    return data[start : data.find(b"\r\n", start)]


def _host(address: Any) -> str:
    return str(address[0]) if isinstance(address, tuple) else str(address or "unix")
