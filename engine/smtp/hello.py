"""What a listener allows one session, and what the reply to EHLO offers of it.

What is offered here is accepted behind MAIL and RCPT, and nothing else is (555 otherwise).

Owns: the bounds of a session, the extensions it has and the lines of the EHLO reply.
Never: keeps state of a session, reads a clock.
Source: RFC 5321 4.1.1.1; RFC 1870, 2034, 2852, 2920, 3030, 3461, 4865, 6152, 6531, 8689.
"""

from __future__ import annotations

import msgspec

from engine.core.errors import Refused
from engine.core.lines import MAX_LINE_BYTES
from engine.core.reply import make_reply
from engine.core.terms import format_instant
from engine.smtp.wire import format_reply

# BINARYMIME is not offered: content that is no text in lines could not go on to peers that take DATA only.
_ALWAYS = (
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "ENHANCEDSTATUSCODES",
    "CHUNKING",
    "SMTPUTF8",
    "DSN",
    "DELIVERBY",
)

_NOT_IN_NAMES = bytes(range(33)) + b'()<>"\\;,\x7f'  # a name goes into Received: no comment may begin there


class ServerLimits(msgspec.Struct, frozen=True):
    """What a listener allows one session. 0 transactions: no limit; 0 seconds of hold: not offered."""

    hostname: str
    max_message_bytes: int = 50_000_000
    max_recipients: int = 1000
    max_line_bytes: int = MAX_LINE_BYTES
    max_transactions: int = 0
    max_errors: int = 20  # between two messages; Postfix's smtpd_hard_error_limit
    max_idle_commands: int = 100  # NOOP, RSET, EHLO ... between two messages; Postfix's junk command limit
    max_hold_s: float = 0.0  # how long a message may ask to wait (RFC 4865)


def parse_name(octets: bytes) -> str:
    """Return the name that a client says in EHLO or HELO.

    Raises:
        Refused: with the reply to give.
    """
    name = octets.strip()
    if not 0 < len(name) <= 255 or not name.isascii() or name.translate(None, _NOT_IN_NAMES) != name:
        raise Refused(make_reply(501, "5.5.4", "Syntax: EHLO name"))
    return name.decode("ascii")


def offered(limits: ServerLimits, *, is_tls: bool = False) -> tuple[str, ...]:
    """Return the keywords of what a session has, in the order in which they are offered."""
    return (
        *_ALWAYS,
        *(("FUTURERELEASE",) if limits.max_hold_s else ()),
        *(("REQUIRETLS",) if is_tls else ()),  # RFC 8689 2: only under TLS
    )


def format_hello(
    limits: ServerLimits, *, is_esmtp: bool, is_tls: bool = False, unix_now: float = 0.0, more: str = ""
) -> bytes:
    """Return the reply to EHLO, or to HELO, which offers nothing.

    Args: more: what this connection is offered besides, each behind a line end.
    """
    if not is_esmtp:
        return format_reply(250, "", limits.hostname)
    behind = {
        "SIZE": f" {limits.max_message_bytes}",
        "FUTURERELEASE": f" {int(limits.max_hold_s)} {format_instant(unix_now + limits.max_hold_s)}",
    }
    lines = [keyword + behind.get(keyword, "") for keyword in offered(limits, is_tls=is_tls)]
    return format_reply(250, "", "\n".join([limits.hostname, *lines]) + more)
