"""A transaction that was read whole, and what is asked of its message whoever sent it.

Owns: the shape of a transaction; the replies for messages that can't be taken.
Never: keeps state of a session; decides about policy.
Source: RFC 5321 2.3.8 and 4.5.3.1.6 (lines), RFC 1870 6.1 (size).
"""

from __future__ import annotations

import msgspec

from engine.core.lines import line_fault
from engine.core.reply import Reply, make_reply
from engine.smtp.hello import ServerLimits


class Transaction(msgspec.Struct, gc=False):
    """A message and its envelope, read and checked.

    `recipients` are in normal form, in the order given, repeats included.
    """

    sender: str
    recipients: list[str]
    message: bytes
    is_8bit: bool
    helo: str
    is_esmtp: bool


def message_fault(message: bytes, limits: ServerLimits) -> Reply | None:
    """Return the reply for a message whose octets can't be taken, None when they can. HOT."""
    if b"\0" in message:
        return make_reply(550, "5.6.0", "Message holds a NUL")
    fault = line_fault(message, limits.max_line_bytes)
    if not fault:
        return None
    return make_reply(550, "5.6.11" if fault.startswith("bare") else "5.6.0", f"Message with a {fault}")


def too_large(limits: ServerLimits) -> Reply:
    """Return the reply for a message over the bound."""
    return make_reply(552, "5.3.4", f"Message larger than {limits.max_message_bytes} octets")
