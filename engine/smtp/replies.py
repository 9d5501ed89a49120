"""What the receiving side says whatever was said to it, and how often something may be wrong.

Owns: errors and idle commands of a session and their bounds, the codes that were said, when it closes.
Never: knows a command.
"""

from __future__ import annotations

from engine.core.errors import Refused
from engine.core.reply import Reply, make_reply
from engine.smtp.hello import ServerLimits
from engine.smtp.wire import format_reply

OK_MAIL = b"250 2.1.0 Sender ok\r\n"
OK_RCPT = b"250 2.1.5 Recipient ok\r\n"
OK_DATA = b"354 End data with <CR><LF>.<CR><LF>\r\n"
OK = b"250 2.0.0 Ok\r\n"
OK_CHUNK = b"250 2.0.0 Chunk ok\r\n"
IDLE_REPLIES = {
    b"NOOP": OK,
    b"VRFY": b"252 2.5.2 Send some mail, it will be tried\r\n",  # whatever the name: no harvest
    b"HELP": b"214 2.0.0 RFC 5321: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT\r\n",
}


class Replies:
    """The replies of one conversation."""

    __slots__ = ("_errors", "_idle_commands", "_limits", "is_closing", "refusals")

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._errors = 0
        self._idle_commands = 0
        self.is_closing = False  # write what was returned, then close
        self.refusals: list[int] = []  # codes above 399 that were said; the shell counts and clears them

    def _reply(self, reply: Reply) -> bytes:
        if reply.code >= 400:
            self.refusals.append(reply.code)
            self.is_closing = self.is_closing or reply.code == 421
        text = reply.text
        if not text.isascii():  # RFC 6531 section 3.7.4.2: UTF-8 is for clients that have asked for it
            text = text.encode("ascii", "backslashreplace").decode()
        return format_reply(reply.code, reply.enhanced, text)

    def _error(self, reply: Reply) -> bytes:
        """A reply to something wrong; too many of them end the session."""
        self._errors += 1
        out = self._reply(reply)
        if self._errors > self._limits.max_errors and not self.is_closing:
            out += self._dismiss(421, "4.7.0", f"{self._limits.hostname} Too many errors")
        return out

    def _dismiss(self, code: int, enhanced: str, text: str) -> bytes:
        """The last reply of the session."""
        self.is_closing = True
        return self._reply(make_reply(code, enhanced, text))

    def _count_idle(self) -> None:
        self._idle_commands += 1
        if self._idle_commands > self._limits.max_idle_commands:
            raise Refused(
                make_reply(421, "4.7.0", f"{self._limits.hostname} Too many commands without a message")
            )

    def _stranger(self) -> bytes:
        return self._dismiss(521, "5.5.1", "This is a mail server")
