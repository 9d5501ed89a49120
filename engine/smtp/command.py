"""MAIL and RCPT lines, parsed: a path and the parameters behind it.

Owns: what stands behind "FROM:" and "TO:", and which parameter belongs to which extension.
Never: keeps state; knows what a session allows.
Fails: Refused with the reply to give.
Source: RFC 5321 4.1.2 (paths, source routes), 4.1.1.11 and RFC 1870, 2852, 3461, 4865, 6152, 6531, 8689.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from engine.core.address import parse_mailbox
from engine.core.errors import Refused
from engine.core.reply import make_reply
from engine.core.terms import (
    parse_by,
    parse_envid,
    parse_hold_for,
    parse_instant,
    parse_notify,
    parse_orcpt,
    parse_ret,
)

_MAX_SIZE_DIGITS = 20  # RFC 1870 section 4


class MailParameters(msgspec.Struct, gc=False):
    """What stood behind a MAIL: nothing, as a rule. BODY is checked, not kept: the octets themselves tell."""

    size: int = 0
    body: str = ""
    is_utf8: bool = False
    ret: str = ""
    envid: str = ""
    by: tuple[int, str] | None = None  # seconds and mode
    hold_for: int | None = None  # seconds
    hold_until: float | None = None  # Unix seconds
    requires_tls: bool = False
    auth: str = ""  # not kept: who submits is known from AUTH itself, and no server is trusted to say it


class RcptParameters(msgspec.Struct, gc=False):
    """What stood behind a RCPT."""

    notify: str = ""
    orcpt: str = ""


NO_MAIL_PARAMETERS = MailParameters()
NO_RCPT_PARAMETERS = RcptParameters()


def parse_path(rest: bytes, *, is_sender: bool) -> tuple[str, bytes]:
    """Split `<address> parameters` into the address in its normal form and the parameters.

    The null path "" is for senders only; `<postmaster>` without a domain for recipients only
    (RFC 5321 4.5.1). A source route is read and ignored (RFC 5321 appendix F.2). UTF-8 is read; whether it
    may stand there is the caller's to know.
    """
    enhanced = "5.1.7" if is_sender else "5.1.3"
    rest = rest.lstrip(b" ")  # "FROM: <a@b>" is not RFC 5321, but half the world's scripts
    end = _path_end(rest)
    if rest[:1] != b"<" or end < 0 or rest[end + 1 : end + 2] not in (b"", b" "):
        raise Refused(make_reply(501, enhanced, "Syntax: address in angle brackets"))
    path = rest[1:end]
    if path[:1] == b"@":
        path = path.partition(b":")[2]
    if not path and is_sender:
        return "", rest[end + 1 :]
    try:
        text = path.decode()
    except UnicodeDecodeError:
        raise Refused(make_reply(553, "5.6.7", "Address is neither ASCII nor UTF-8")) from None
    if not is_sender and text.lower() == "postmaster":
        return "postmaster", rest[end + 1 :]
    try:
        mailbox = parse_mailbox(text, allow_utf8=True)
    except ValueError as error:
        raise Refused(make_reply(501, enhanced, f"Bad address: {error}")) from None
    return f"{mailbox.local}@{mailbox.domain}", rest[end + 1 :]


def _path_end(rest: bytes) -> int:
    """Return where the path's closing bracket is; brackets inside a quoted local part don't count."""
    end = rest.find(b">")
    quote = rest.find(b'"')
    if not 0 <= quote < end:
        return end
    position, length = quote + 1, len(rest)
    while position < length and rest[position] != 0x22:
        position += 2 if rest[position] == 0x5C else 1
    return rest.find(b">", position)


# -- parameters -------------------------------------------------------------------------------------------


def parse_mail_parameters(octets: bytes, extensions: Collection[str]) -> MailParameters:
    """Parse what stands behind MAIL; only parameters of `extensions` (EHLO keywords) are known."""
    if not octets.strip(b" "):
        return NO_MAIL_PARAMETERS
    parameters = MailParameters()
    _parse(octets, extensions, _OF_MAIL, parameters)
    if parameters.hold_for is not None and parameters.hold_until is not None:
        raise Refused(make_reply(501, "5.5.4", "Either HOLDFOR or HOLDUNTIL"))  # RFC 4865 4
    return parameters


def parse_rcpt_parameters(octets: bytes, extensions: Collection[str]) -> RcptParameters:
    """Parse what stands behind RCPT."""
    if not octets.strip(b" "):
        return NO_RCPT_PARAMETERS
    parameters = RcptParameters()
    _parse(octets, extensions, _OF_RCPT, parameters)
    return parameters


def _parse(octets: bytes, extensions: Collection[str], table: _Table, parameters: Any) -> None:
    try:
        words = octets.decode().split()
    except UnicodeDecodeError:
        raise Refused(make_reply(501, "5.5.4", "Parameter is neither ASCII nor UTF-8")) from None
    seen = set()
    for word in words:
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        extension, field, parse = table.get(keyword, ("", "", None))
        if parse is None or extension not in extensions:
            raise Refused(make_reply(555, "5.5.4", "Parameter not recognized or not offered"))
        if keyword in seen:
            raise Refused(make_reply(501, "5.5.4", "Parameter given twice"))
        seen.add(keyword)
        try:
            setattr(parameters, field, parse(value) if equals or parse is not _flag else True)
        except ValueError as error:
            raise Refused(make_reply(501, "5.5.4", f"{keyword}: {error}")) from None


def _size(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > _MAX_SIZE_DIGITS:
        raise ValueError("expected octets in digits")
    return int(value)


def _body(value: str) -> str:
    if value.upper() not in {"7BIT", "8BITMIME"}:
        raise ValueError("expected 7BIT or 8BITMIME")
    return value.upper()


def _xtext(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable():
        raise ValueError("expected an address in xtext, or <>")
    return value


def _flag(_value: str) -> bool:
    raise ValueError("expected no value")


# Parameter to the extension that offers it, the field it goes to, and its parser.
_Table = dict[str, tuple[str, str, Callable[[str], Any]]]
_OF_MAIL: _Table = {
    "SIZE": ("SIZE", "size", _size),
    "BODY": ("8BITMIME", "body", _body),
    "SMTPUTF8": ("SMTPUTF8", "is_utf8", _flag),
    "RET": ("DSN", "ret", parse_ret),
    "ENVID": ("DSN", "envid", parse_envid),
    "BY": ("DELIVERBY", "by", parse_by),
    "HOLDFOR": ("FUTURERELEASE", "hold_for", parse_hold_for),
    "HOLDUNTIL": ("FUTURERELEASE", "hold_until", parse_instant),
    "REQUIRETLS": ("REQUIRETLS", "requires_tls", _flag),
    "AUTH": ("AUTH", "auth", _xtext),
}
_OF_RCPT: _Table = {
    "NOTIFY": ("DSN", "notify", parse_notify),
    "ORCPT": ("DSN", "orcpt", parse_orcpt),
}
