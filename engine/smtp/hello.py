"""What a listener allows one session, and what the reply to EHLO offers of it.

Owns: the bounds of a session, the lines of the EHLO reply.
Never: keeps state of a session.
Source: RFC 5321 4.1.1.1; RFC 1870, 2920, 6152, 2034.
"""

from __future__ import annotations

import msgspec

from engine.core.lines import MAX_LINE_BYTES
from engine.smtp.wire import format_reply


class ServerLimits(msgspec.Struct, frozen=True):
    """What a listener allows one session. 0 transactions: no limit."""

    hostname: str
    max_message_bytes: int = 50_000_000
    max_recipients: int = 1000
    max_line_bytes: int = MAX_LINE_BYTES
    max_transactions: int = 0
    max_errors: int = 20  # between two messages; Postfix's smtpd_hard_error_limit
    max_idle_commands: int = 100  # NOOP, RSET, EHLO ... between two messages; Postfix's junk command limit


def format_hello(limits: ServerLimits, *, is_esmtp: bool, more: str = "") -> bytes:
    """Return the reply to EHLO, or to HELO, which offers nothing.

    Args: more: what this connection is offered besides, each behind a line end.
    """
    if not is_esmtp:
        return format_reply(250, "", limits.hostname)
    size = limits.max_message_bytes
    offers = f"PIPELINING\nSIZE {size}\n8BITMIME\nENHANCEDSTATUSCODES{more}"
    return format_reply(250, "", f"{limits.hostname}\n{offers}")
