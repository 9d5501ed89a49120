"""AUTH as a state machine: the client's lines in, challenges and at last credentials out.

Owns: PLAIN and LOGIN, base64 on the wire, the bounds of names and passwords.
Never: knows whether a password is right, which connection it is, or what a listener asks for (smtp.access).
Fails: Refused with the reply to give; the exchange has ended then.
Source: RFC 4954 4 (the command), RFC 4616 (PLAIN), draft-murchison-sasl-login (LOGIN, as clients speak it).
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from engine.core.errors import Refused
from engine.core.reply import make_reply

MECHANISMS = ("PLAIN", "LOGIN")
MAX_PART_BYTES = 255  # RFC 4616 section 2: of each of the three parts
_LOGIN_CHALLENGES = (b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n")  # "Username:", "Password:"
_MALFORMED = make_reply(501, "5.5.2", "Syntax: one base64 string")


class Credentials(NamedTuple):
    """What a client claims."""

    user: str
    password: bytes

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ...)"  # not into a log


class Exchange:
    """One AUTH command, until the credentials are known or it is given up."""

    __slots__ = ("_mechanism", "_user")

    def __init__(self, mechanism: str) -> None:
        """Raises: Refused: there is no such mechanism."""
        if mechanism not in MECHANISMS:
            raise Refused(make_reply(504, "5.5.4", "Unrecognized authentication mechanism"))
        self._mechanism = mechanism
        self._user: str | None = None

    def begin(self, initial: bytes) -> bytes | Credentials:
        """Take the initial response, b"" where there is none; "=" is an empty one (RFC 4954 4)."""
        if initial:
            return self._take(b"" if initial == b"=" else decode(initial))
        return b"334 \r\n" if self._mechanism == "PLAIN" else _LOGIN_CHALLENGES[0]

    def respond(self, line: bytes) -> bytes | Credentials:
        """Take the client's answer to a challenge, its line end removed."""
        if line == b"*":
            raise Refused(make_reply(501, "5.7.0", "Authentication cancelled"))
        return self._take(decode(line))

    def _take(self, response: bytes) -> bytes | Credentials:
        if self._mechanism == "PLAIN":
            return parse_plain(response)
        if self._user is None:
            self._user = _text(response)
            return _LOGIN_CHALLENGES[1]
        return _credentials(self._user, response)


def decode(line: bytes) -> bytes:
    """Return what a line of base64 says."""
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error:
        raise Refused(_MALFORMED) from None


def parse_plain(response: bytes) -> Credentials:
    """Return the credentials of PLAIN: authorization identity, NUL, user, NUL, password.

    An identity other than the user's own is refused: nobody here may act as somebody else.
    """
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise Refused(make_reply(501, "5.5.2", "Syntax: [identity] NUL user NUL password"))
    identity, user, password = parts
    found = _credentials(_text(user), password)
    if identity not in (b"", user):
        raise Refused(make_reply(535, "5.7.8", "Authentication credentials invalid"))
    return found


def _credentials(user: str, password: bytes) -> Credentials:
    if not user or not 0 < len(password) <= MAX_PART_BYTES:
        raise Refused(make_reply(501, "5.5.2", f"A name and a password have 1 to {MAX_PART_BYTES} octets"))
    return Credentials(user, password)


def _text(octets: bytes) -> str:
    """Return a name: UTF-8 that can be printed, for it ends in logs."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise Refused(make_reply(501, "5.5.2", "A name is UTF-8")) from None
    if len(octets) > MAX_PART_BYTES or not text.isprintable():
        raise Refused(make_reply(501, "5.5.2", f"A name has 1 to {MAX_PART_BYTES} printable octets"))
    return text
