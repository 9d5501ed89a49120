"""One session as the receiving side sees it: octets in, replies and transactions out.

`receive` takes what arrived, whole commands or parts, and returns the replies to write. When it has read an
end of message, `completed` holds the transaction and the conversation rests (octets that arrive are kept)
until `finish` is told the reply; that too returns what to write, and may complete the next one at once.

Lenient where it only helps (a space behind "FROM:", source routes); which octets are a command and which a
message is read strictly (smtp.reading).

Owns: the order of commands, every bound of a session.
Never: reads a clock of its own (the shell has the timers), decides about policy (`on_mail`, `on_rcpt` do).
Fails: never; whatever arrives gets a reply. AssertionError for a shell that finishes what is not complete.
Source: RFC 5321 4.1, 4.3.2; RFC 1870 6.1; RFC 3030 2. After: h11's connection, Postfix's smtpd.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from engine.core.errors import Refused
from engine.core.reply import Reply, make_reply
from engine.core.terms import NO_TERMS, Terms
from engine.smtp.access import AUTH_REQUIRED, HANDSHAKE, LONG_VERBS, Access
from engine.smtp.chunks import parse_bdat
from engine.smtp.content import MAX_DROPPED_BYTES
from engine.smtp.hello import ServerLimits, format_hello, offered, parse_name
from engine.smtp.reading import Reading
from engine.smtp.replies import IDLE_REPLIES, OK, OK_CHUNK, OK_DATA, OK_MAIL, OK_RCPT
from engine.smtp.strangers import is_stranger, unknown
from engine.smtp.transaction import Transaction, hides_an_end, message_fault, read_mail, read_rcpt, too_large


class ServerConversation(Reading):
    """The receiving side of one connection."""

    __slots__ = (
        "_chunk_refusal",
        "_extensions",
        "_handlers",
        "_is_esmtp",
        "_on_mail",
        "_on_rcpt",
        "_recipients",
        "_sender",
        "_shut_reply",
        "_terms",
        "_terms_of",
        "_unix",
        "access",
        "completed",
        "helo",
        "transactions",
    )

    def __init__(
        self,
        limits: ServerLimits,
        on_mail: Callable[[str], Reply | None] | None = None,
        on_rcpt: Callable[[str], Reply | None] | None = None,
        unix_clock: Callable[[], float] = lambda: 0.0,
        access: Access | None = None,
    ) -> None:
        """Args:
        on_mail, on_rcpt: asked once per command; None accepts, a reply refuses.
        unix_clock: asked only where a parameter names an instant.
        """
        super().__init__(limits)
        self._on_mail = on_mail
        self._on_rcpt = on_rcpt
        self._unix = unix_clock
        self.access = access or Access()
        self._is_esmtp = False
        self._shut_reply: Reply | None = None
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._chunk_refusal: Reply | None = None  # for the chunk whose octets are being dropped
        self._extensions: tuple[str, ...] = ()  # what was offered to this client
        self._terms: Terms | None = None
        self._terms_of: dict[str, tuple[str, str]] = {}  # recipients that have terms of their own
        self._handlers = _HANDLERS  # none where AUTH goes on: whatever comes is an answer to a challenge
        self.completed: Transaction | None = None  # it rests for that, or for what `access` wants
        self.helo = ""
        self.transactions = 0  # completed so far

    # -- what the shell asks ------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """MAIL was accepted and its message is not finished yet."""
        return self._sender is not None

    @property
    def protocol(self) -> str:
        """The word behind `with` in Received."""
        return self.access.protocol(is_esmtp=self._is_esmtp)

    # -- what the shell does ------------------------------------------------------------------------------

    def greeting(self) -> bytes:
        """Return the first reply."""
        return f"220 {self._limits.hostname} ESMTP Mailrail\r\n".encode()

    def finish(self, reply: Reply) -> bytes:
        """Answer the completed transaction; return that and the replies to what was pipelined behind it."""
        assert self.completed is not None
        self.completed, self.is_resting = None, False
        out = self._reply(reply)
        if 200 <= reply.code < 300:
            self._errors = self._idle_commands = 0
        return self._go_on(out + self._reset())

    def authenticated(self, reply: Reply, user: str) -> bytes:
        """Answer the credentials that `access` wanted looked at; `user` is "" where they are not right."""
        self.access.authenticated(user)
        self.is_resting = False
        return self._go_on(self._reply(reply) if user else self._error(reply))

    def secured(self) -> None:
        """TLS is on: whatever was said before is forgotten (RFC 3207 4.2)."""
        self._buffer = b""
        self._forget()
        self.access.secured()

    def presented(self, refusal: Reply | None) -> bytes:
        """The shell has looked for whom a front end speaks (XCLIENT): greet that client, or don't."""
        self._forget()
        self.access.presented()
        if refusal is not None:
            return self._dismiss(refusal.code, refusal.enhanced, refusal.text)
        return self._go_on(self.greeting())

    def shut(self, reply: Reply) -> bytes:
        """Say `reply` (a 421) and close: now if idle, else when the transaction has ended."""
        if self._sender is not None:
            self._shut_reply = reply
        if self._sender is not None or self.is_closing:
            return b""
        self.is_closing = True
        return self._reply(reply)

    def time_out(self) -> bytes:
        """The client was silent for too long: say so and close."""
        return self._dismiss(421, "4.4.2", f"{self._limits.hostname} Timeout, closing connection")

    # -- what was read ------------------------------------------------------------------------------------

    def _rested(self) -> bytes:
        return self._ready_for_tls() if self.access.wants is HANDSHAKE else b""

    def _ready_for_tls(self) -> bytes:
        """The 220, if nothing stands behind STARTTLS in the clear.

        That may be an attacker's, to be read as if encrypted: RFC 3207 4.2 discards it, 4 has none sent.
        """
        if not self._buffer:
            return b"220 2.0.0 Ready to start TLS\r\n"
        self._buffer = b""
        self.access.wants, self.is_resting = None, False
        return self._dismiss(554, "5.5.1", "Octets behind STARTTLS: it must be the last of a group")

    def _command(self, command: bytes) -> bytes:
        handler = self._handlers.get(command[:4].upper())
        try:
            if handler is None or command[4:5] not in (b"", b" ") or b"\0" in command:
                return self._unknown(command)
            return handler(self, command)
        except Refused as refused:
            return self._error(refused.reply)

    def _end_chunk(self) -> bytes:
        """A chunk is whole (RFC 3030 2): return the reply, none yet to the last of a message."""
        chunks = self._chunks
        refusal, self._chunk_refusal = self._chunk_refusal, None
        if refusal is None and chunks.is_oversize:
            refusal = too_large(self._limits)
        if refusal is not None:  # chunks pipelined behind it find no transaction, and are refused too
            return self._error(refusal) + self._reset()
        if chunks.is_last:
            return self._complete(chunks.take(), is_oversize=False)
        return OK_CHUNK

    def _complete(self, message: bytes, *, is_oversize: bool) -> bytes:
        """The message is whole: hand it out, or return why not."""
        limits = self._limits
        fault = message_fault(message, limits)
        is_disputed = self._content.is_disputed or hides_an_end(fault)
        fault = too_large(limits) if is_oversize else fault
        if fault is not None:
            # Hosts disagree on where such a message ends: what is behind its dot may have been its text.
            self.is_closing = is_disputed and not self._chunks.is_begun
            return self._error(fault) + self._reset()
        self.transactions += 1
        assert self._sender is not None
        terms = self._terms
        if self._terms_of:
            terms = structs.replace(terms or NO_TERMS, recipients=self._terms_of)
        self.is_resting = True
        self.completed = Transaction(
            self._sender, self._recipients, message, not message.isascii(), self.helo, self._is_esmtp, terms
        )
        return b""

    # -- commands -----------------------------------------------------------------------------------------

    def _on_command_mail(self, command: bytes) -> bytes:
        limits = self._limits
        if not self.helo:
            raise Refused(make_reply(503, "5.5.1", "Say EHLO first"))
        if not self.access.may_send:
            raise Refused(AUTH_REQUIRED)
        if self._sender is not None:
            raise Refused(make_reply(503, "5.5.1", "Nested MAIL"))
        if command[:10].upper() != b"MAIL FROM:":
            raise Refused(make_reply(501, "5.5.2", "Syntax: MAIL FROM:<address>"))
        if limits.max_transactions and self.transactions >= limits.max_transactions:
            return self._dismiss(421, "4.7.0", f"{limits.hostname} Enough messages for one connection")
        sender, terms = read_mail(command[10:], self._extensions, limits, self._unix)
        refusal = self._on_mail(sender) if self._on_mail is not None else None
        if refusal is not None:
            return self._reply(refusal)
        self._sender = sender
        self._terms = terms
        return OK_MAIL

    def _on_command_rcpt(self, command: bytes) -> bytes:
        if self._sender is None:
            raise Refused(make_reply(503, "5.5.1", "Say MAIL first"))
        if command[:8].upper() != b"RCPT TO:":
            raise Refused(make_reply(501, "5.5.2", "Syntax: RCPT TO:<address>"))
        if self._chunks.is_begun:
            raise Refused(make_reply(503, "5.5.1", "Recipients come before chunks"))
        recipient, own_terms = read_rcpt(command[8:], self._extensions, self._terms)
        if len(self._recipients) >= self._limits.max_recipients:
            return self._reply(make_reply(452, "4.5.3", "Too many recipients"))
        if recipient == "postmaster":
            recipient = f"postmaster@{self._limits.hostname}"
        refusal = self._on_rcpt(recipient) if self._on_rcpt is not None else None
        if refusal is not None:
            return self._reply(refusal)
        self._recipients.append(recipient)
        if own_terms is not None:
            self._terms_of[recipient] = own_terms
        return OK_RCPT

    def _on_command_data(self, command: bytes) -> bytes:
        if command[4:].strip():
            raise Refused(make_reply(501, "5.5.4", "Syntax: DATA"))
        if self._sender is None:
            raise Refused(make_reply(503, "5.5.1", "Say MAIL first"))
        if not self._recipients:
            raise Refused(make_reply(554, "5.5.1", "No valid recipients"))
        if self._chunks.is_begun:
            raise Refused(make_reply(503, "5.5.1", "DATA behind BDAT"))
        self._in_content = True
        return OK_DATA

    def _on_command_bdat(self, command: bytes) -> bytes:
        """BDAT: its octets follow whatever the reply will be, so that one is due when they have come."""
        chunk = parse_bdat(command[4:])
        if chunk is None:
            return self._dismiss(501, "5.5.4", "Syntax: BDAT octets [LAST]")  # or octets become commands
        size_bytes, is_last = chunk
        if size_bytes > 2 * self._limits.max_message_bytes + MAX_DROPPED_BYTES:
            return self._dismiss(552, "5.3.4", "Message far too large")
        if "CHUNKING" not in self._extensions:
            self._chunk_refusal = make_reply(503, "5.5.1", "Say EHLO first")
        elif self._sender is None:
            self._chunk_refusal = make_reply(503, "5.5.1", "Say MAIL first")
        elif not self._recipients:
            self._chunk_refusal = make_reply(554, "5.5.1", "No valid recipients")
        self._chunks.begin(size_bytes, is_last=is_last, is_dropping=self._chunk_refusal is not None)
        return b"" if size_bytes else self._end_chunk()

    def _on_command_hello(self, command: bytes) -> bytes:
        """EHLO and HELO; both end a transaction (RFC 5321 4.1.4)."""
        name = parse_name(command[5:])
        self._count_idle()
        self.helo = name
        self._is_esmtp = is_esmtp = command[:1] in b"Ee"
        limits, access, unix_now = self._limits, self.access, self._unix()
        is_tls, more = access.is_secure, access.offers()
        self._extensions = (*offered(limits, is_tls=is_tls), *access.extensions) if is_esmtp else ()
        hello = format_hello(limits, is_esmtp=is_esmtp, is_tls=is_tls, unix_now=unix_now, more=more)
        return hello + self._reset()

    def _on_command_rset(self, command: bytes) -> bytes:
        if command[4:].strip():
            raise Refused(make_reply(501, "5.5.4", "Syntax: RSET"))
        self._count_idle()
        return OK + self._reset()

    def _on_command_idle(self, command: bytes) -> bytes:
        """Commands that do nothing, with any argument (RFC 5321 4.1.1.9)."""
        self._count_idle()
        return IDLE_REPLIES[command[:4].upper()]

    def _on_command_access(self, command: bytes) -> bytes:
        """STARTTLS, AUTH, XCLIENT, answers of an AUTH: what follows is the shell's (`access.wants`)."""
        access = self.access
        try:
            if access.exchange is not None:
                return access.respond(command)
            self._count_idle()
            return access.command(command, has_helo=bool(self.helo), in_transaction=self._sender is not None)
        finally:
            self._handlers = _HANDLERS if access.exchange is None else _NONE
            self.is_resting = access.wants is not None

    def _on_command_quit(self, _command: bytes) -> bytes:  # leave who wants to leave
        self.is_closing = True
        return f"221 2.0.0 {self._limits.hostname} Bye\r\n".encode()

    def _unknown(self, command: bytes) -> bytes:
        verb = command.partition(b" ")[0].upper()
        if self.access.exchange is not None or (verb in LONG_VERBS and b"\0" not in command):
            return self._on_command_access(command)
        return self._stranger() if is_stranger(command) else self._error(unknown(command))

    def _forget(self) -> None:
        """As before the first command."""
        self.helo, self._extensions, self.is_resting = "", (), False
        self._reset()

    def _reset(self) -> bytes:
        """Forget the transaction; return the 421 that waited for its end."""
        self._sender = None
        self._recipients = []
        self._terms = None
        if self._terms_of:
            self._terms_of = {}
        self._content.clear()
        self._chunks.clear()
        if self._shut_reply is None or self.is_closing:
            return b""
        return self._reply(self._shut_reply)


_HANDLERS: dict[bytes, Callable[[ServerConversation, bytes], bytes]] = {
    b"MAIL": ServerConversation._on_command_mail,
    b"RCPT": ServerConversation._on_command_rcpt,
    b"DATA": ServerConversation._on_command_data,
    b"BDAT": ServerConversation._on_command_bdat,
    b"EHLO": ServerConversation._on_command_hello,
    b"HELO": ServerConversation._on_command_hello,
    b"RSET": ServerConversation._on_command_rset,
    **dict.fromkeys(IDLE_REPLIES, ServerConversation._on_command_idle),
    b"QUIT": ServerConversation._on_command_quit,
    b"AUTH": ServerConversation._on_command_access,
}
_NONE: dict[bytes, Callable[[ServerConversation, bytes], bytes]] = {}
