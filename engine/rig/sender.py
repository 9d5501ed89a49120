"""One session of the source: MAIL, RCPTs and DATA in one write, the next envelope behind the content.

Owns: the dialogue of one connection.  Never: decides what to send (load does).
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import time
from typing import Any

from engine.rig.certificate import client_context
from engine.rig.job import Job
from engine.rig.load import Load, Target

_GREETING, _EHLO, _STARTTLS, _RUNNING, _LOCKSTEP, _QUITTING = range(6)


class Sender(asyncio.Protocol):
    """The sending side of one connection."""

    def __init__(self, load: Load, target: Target, arguments: argparse.Namespace) -> None:
        self._load = load
        self._target = target
        self._helo: str = arguments.helo
        self._wants_tls: bool = arguments.tls
        self._wants_behind: bool = not arguments.no_behind
        self._wants_lockstep: bool = arguments.lockstep
        self._wants_bdat: bool = arguments.bdat
        self._per_session: int = arguments.per_session
        self._state = _GREETING
        self._rest = b""
        self._extensions = b""
        self._in_content: Job | None = None  # its content is written, its final reply is awaited
        self._in_envelope: Job | None = None  # its envelope is written
        self._codes: list[int] = []  # replies to the envelope so far
        self._sent = 0
        self._is_tls = False
        self._is_dotted = False  # a lone dot is out, whose reply is nobody's
        self._left: list[bytes] = []  # commands of a lockstep envelope not yet written
        self.was_lost = False
        self.last_reply = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.was_lost = self._state != _QUITTING
        self._state = _QUITTING
        if self._in_content is not None:
            self._load.note_uncertain(self._in_content)
        if self._in_envelope is not None:
            self._load.note_refused(self._in_envelope, 0)
        self._in_content = self._in_envelope = None
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        pos = 0
        while (end := data.find(b"\n", pos)) >= 0:
            if data[pos + 3 : pos + 4] == b"-":
                self._extensions += data[pos + 4 : end + 1]
            else:
                self._take_reply(int(data[pos : pos + 3]), data, pos)
            pos = end + 1
        if pos < len(data):
            self._rest = data[pos:]

    def _take_reply(self, code: int, data: bytes, pos: int) -> None:
        state = self._state
        if state == _RUNNING:
            self._take_running(code)
        elif state == _LOCKSTEP:
            self._take_lockstep(code)
        elif state != _QUITTING:
            self.last_reply = data[pos : pos + 200]
            self._take_opening(code)
        if code >= 400:
            self.last_reply = data[pos : pos + 200]

    # opening

    def _take_opening(self, code: int) -> None:
        if code >= 400:
            self._transport.close()
        elif self._state == _GREETING:
            self._say_ehlo()
        elif self._state == _STARTTLS:
            self._upgrading = asyncio.ensure_future(self._upgrade())
        elif self._wants_tls and not self._is_tls:
            self._state = _STARTTLS
            self._transport.write(b"STARTTLS\r\n")
        else:
            self._open()

    def _say_ehlo(self) -> None:
        self._state = _EHLO
        self._extensions = b""
        self._transport.write(f"EHLO {self._helo}\r\n".encode())

    async def _upgrade(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            self._transport = await loop.start_tls(self._transport, self, client_context())
        except (OSError, ssl.SSLError):
            self.connection_lost(None)
            return
        self._is_tls = True
        self._say_ehlo()

    def _open(self) -> None:
        offers = (self._extensions + self.last_reply.partition(b"\n")[0]).upper()
        self._is_lockstep = self._wants_lockstep or b"PIPELINING" not in offers
        self._is_bdat = self._wants_bdat and b"CHUNKING" in offers
        self._state = _LOCKSTEP if self._is_lockstep else _RUNNING
        self.wake()

    # work

    def wake(self) -> None:
        """Begin the next transaction, wait for one, or quit."""
        if self._state not in (_RUNNING, _LOCKSTEP) or self._transport.is_closing():
            return
        job = self._next_job()
        if job is not None:
            self._begin(job)
        elif self._load.is_done(self._target) or self._is_spent():
            self._state = _QUITTING
            self._transport.write(b"QUIT\r\n")
        else:
            self._load.wait(self)

    def _is_spent(self) -> bool:
        return bool(self._per_session) and self._sent >= self._per_session

    def _next_job(self) -> Job | None:
        if self._is_spent():
            return None
        job = self._load.next_job(self._target)
        if job is not None:
            self._sent += 1
        return job

    def _begin(self, job: Job) -> None:
        self._in_envelope = job
        self._codes = []
        if self._state == _LOCKSTEP:
            commands = self._envelope(job).splitlines(keepends=True)
            self._left = commands[1:]
            self._transport.write(commands[0])
        elif self._is_bdat:
            self._write_bdat(job)
        else:
            self._transport.write(self._envelope(job))

    def _envelope(self, job: Job) -> bytes:
        recipients = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in job.recipients)
        return f"MAIL FROM:<{job.sender}>\r\n{recipients}DATA\r\n".encode()

    def _write_bdat(self, job: Job) -> None:
        content = job.make_content(time.monotonic())
        envelope = self._envelope(job)[: -len(b"DATA\r\n")]
        self._transport.write(b"%bBDAT %d LAST\r\n%b" % (envelope, len(content), content))

    def _take_running(self, code: int) -> None:
        if self._is_dotted:
            self._is_dotted = False
            return
        if self._in_content is not None:
            self._finish(code)
            if self._in_envelope is None:
                self.wake()
            return
        job = self._in_envelope
        if job is None:
            self._transport.close()  # a reply that nothing asked for: 421 as a rule
            return
        codes = self._codes
        codes.append(code)
        if len(codes) == len(job.recipients) + 2:
            self._end_envelope(job, codes)

    def _end_envelope(self, job: Job, codes: list[int]) -> None:
        self._in_envelope = None
        if self._is_bdat:
            self._in_content = job
            self._finish(codes[-1])
            self.wake()
        elif codes[-1] == 354 and any(code < 300 for code in codes[1:-1]):
            self._write_content(job)
        else:
            refusal = next(code for code in codes if code >= 400)
            if codes[-1] == 354:
                self._transport.write(b".\r\n")  # RFC 2920 3.1: nobody to send to, an empty message it is
                self._is_dotted = True
            self._load.note_refused(job, refusal)
            self.wake()

    def _write_content(self, job: Job) -> None:
        self._in_content = job
        behind = b""
        if self._wants_behind and not self._is_lockstep:
            following = self._next_job()
            if following is not None:
                self._in_envelope = following
                self._codes = []
                behind = self._envelope(following)
        self._transport.write(b"%b.\r\n%b" % (job.make_content(time.monotonic()), behind))

    def _finish(self, code: int) -> None:
        job = self._in_content
        assert job is not None
        self._in_content = None
        if code < 300:
            self._load.note_accepted(job, time.monotonic())
        else:
            self._load.note_refused(job, code)

    # one command at a time

    def _take_lockstep(self, code: int) -> None:
        if self._in_content is not None:
            self._finish(code)
            self.wake()
            return
        job = self._in_envelope
        if job is None or code >= 400:
            self._transport.close()
        elif self._left:
            self._transport.write(self._left.pop(0))
        else:
            self._in_envelope = None
            self._write_content(job)
