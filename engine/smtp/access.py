"""What protects a connection and who is at its other end: STARTTLS, AUTH and XCLIENT of one conversation.

Each command leaves something for the shell to do (`wants`: a handshake, a look at credentials, a look at the
client that a front end speaks for), and the conversation rests until it is done.

Owns: whether TLS is on, who the client has proved to be, which of these commands may come now.
Never: does a handshake, checks a password (the shell does), keeps envelopes (smtp.server does).
Fails: Refused with the reply to give.
Source: RFC 3207, RFC 4954, RFC 3848 (`with`); Postfix's XCLIENT_README.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.core.errors import Refused
from engine.core.reply import make_reply
from engine.smtp.auth import MECHANISMS, Credentials, Exchange
from engine.smtp.xclient import ATTRIBUTES, Attributes, parse_xclient

AUTH_REQUIRED = make_reply(530, "5.7.0", "Authentication required")
UNKNOWN = make_reply(500, "5.5.2", "Command not recognized")
NO_XCLIENT = make_reply(550, "5.7.0", "You may not speak for others")


class Handshake:
    """What a conversation wants behind its 220 to STARTTLS."""


HANDSHAKE = Handshake()
Wanted = Handshake | Credentials | Attributes
LONG_VERBS = frozenset((b"STARTTLS", b"XCLIENT"))


class AccessRules(msgspec.Struct, frozen=True):
    """What a listener offers and asks for."""

    has_starttls: bool = False
    requires_auth: bool = False  # and offers it
    allows_plaintext_auth: bool = False


OPEN = AccessRules()


class Access:
    """Protection and identity of one connection."""

    __slots__ = (
        "exchange",
        "is_secure",
        "may_send",
        "may_xclient",
        "proto",
        "rules",
        "user",
        "wants",
        "xhelo",
    )

    def __init__(
        self, rules: AccessRules = OPEN, *, is_secure: bool = False, may_xclient: bool = False
    ) -> None:
        """Args:
        is_secure: TLS was on before the first octet.
        may_xclient: the client is one of the front ends that are named.
        """
        self.rules = rules
        self.is_secure = is_secure
        self.may_xclient = may_xclient
        self.be("")
        self.exchange: Exchange | None = None  # AUTH goes on: lines are answers to challenges
        self.wants: Wanted | None = None
        self.xhelo = ""  # XCLIENT's HELO and PROTO
        self.proto = ""

    # -- what EHLO offers, what MAIL needs ------------------------------------------------------------------

    @property
    def may_auth_now(self) -> bool:
        rules = self.rules
        return rules.requires_auth and (self.is_secure or rules.allows_plaintext_auth)

    def offers(self) -> str:
        """Return the lines for the EHLO reply, each behind a line end."""
        found = ""
        if self.rules.has_starttls and not self.is_secure:
            found += "\nSTARTTLS"
        if self.may_auth_now:
            found += f"\nAUTH {' '.join(MECHANISMS)}"
        if self.may_xclient:
            found += f"\nXCLIENT {' '.join(ATTRIBUTES)}"
        return found

    @property
    def extensions(self) -> tuple[str, ...]:
        """Whose parameters MAIL may have: AUTH= says nothing that we rely on, but may come (RFC 4954 5)."""
        return ("AUTH",) if self.may_auth_now else ()

    def protocol(self, *, is_esmtp: bool) -> str:
        """Return the word behind `with` in Received (RFC 3848)."""
        if self.proto == "SMTP" or not (is_esmtp or self.proto):
            return "SMTP"
        return "ESMTP" + "S" * self.is_secure + "A" * bool(self.user)

    # -- commands -------------------------------------------------------------------------------------------

    def command(self, command: bytes, *, has_helo: bool, in_transaction: bool) -> bytes:
        """Take STARTTLS, AUTH or XCLIENT; return the reply, b"" where the shell has to do something first."""
        verb, _, argument = command.partition(b" ")
        verb = verb.upper()
        if verb == b"XCLIENT":
            return self._on_xclient(argument, in_transaction)
        if not (self.rules.has_starttls if verb == b"STARTTLS" else self.rules.requires_auth):
            raise Refused(UNKNOWN)
        if not has_helo:
            raise Refused(make_reply(503, "5.5.1", "Say EHLO first"))
        if verb == b"STARTTLS":
            return self._on_starttls(argument)
        return self._on_auth(argument, in_transaction)

    def _on_starttls(self, argument: bytes) -> bytes:
        if argument.strip():
            raise Refused(make_reply(501, "5.5.4", "Syntax: STARTTLS"))
        if self.is_secure:
            raise Refused(make_reply(503, "5.5.1", "TLS is on already"))
        self.wants = HANDSHAKE
        return b""  # the 220 comes when it is known that nothing stands behind the command

    def _on_xclient(self, argument: bytes, in_transaction: bool) -> bytes:
        if not self.may_xclient:
            raise Refused(NO_XCLIENT)
        if in_transaction:
            raise Refused(make_reply(503, "5.5.1", "Not inside a transaction"))
        self.wants = parse_xclient(argument)
        return b""

    def _on_auth(self, argument: bytes, in_transaction: bool) -> bytes:
        if self.user:
            raise Refused(make_reply(503, "5.5.1", "You have authenticated already"))
        if in_transaction:
            raise Refused(make_reply(503, "5.5.1", "Not inside a transaction"))
        if not self.may_auth_now:
            text = "Encryption required for the requested authentication mechanism"
            raise Refused(make_reply(538, "5.7.11", text))
        words = argument.split()
        if not 1 <= len(words) <= 2:
            raise Refused(make_reply(501, "5.5.4", "Syntax: AUTH mechanism [initial response]"))
        self.exchange = Exchange(words[0].decode("ascii", "replace").upper())
        return self._go_on(self.exchange.begin, b"".join(words[1:]))

    def respond(self, line: bytes) -> bytes:
        """Take an answer to a challenge."""
        assert self.exchange is not None
        return self._go_on(self.exchange.respond, line)

    def _go_on(self, step: Callable[[bytes], bytes | Credentials], octets: bytes) -> bytes:
        try:
            outcome = step(octets)
        except Refused:
            self.exchange = None
            raise
        if isinstance(outcome, Credentials):
            self.exchange = None
            self.wants = outcome
            return b""
        return outcome

    # -- what the shell has done ----------------------------------------------------------------------------

    def secured(self) -> None:
        """TLS is on. All that was known is forgotten (RFC 3207 4.2), XCLIENT's word too."""
        self.is_secure = True
        self.forget()

    def presented(self) -> None:
        """Be the client that a front end speaks for."""
        assert isinstance(self.wants, Attributes)
        attributes = self.wants
        self.forget()
        self.be(attributes.login)
        self.xhelo, self.proto = attributes.helo, attributes.proto

    def authenticated(self, user: str) -> None:
        """The shell has looked: the client is `user`, or "" where that is not shown."""
        assert isinstance(self.wants, Credentials)
        self.wants = None
        self.be(user)

    def be(self, user: str) -> None:
        """The client is that user from now on, "" for nobody known."""
        self.user = user
        self.may_send = bool(user) or not self.rules.requires_auth  # else MAIL gets AUTH_REQUIRED

    def forget(self) -> None:
        """As before the first command."""
        self.be("")
        self.xhelo = self.proto = ""
        self.exchange = self.wants = None
