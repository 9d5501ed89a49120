"""A transaction that was read whole, and what is asked of its message whoever sent it.

Owns: the shape of a transaction, what its parameters make of its terms; the replies for messages that can't
be taken.
Never: keeps state of a session; decides about policy.
Source: RFC 5321 2.3.8 and 4.5.3.1.6 (lines), RFC 1870 6.1 (size), RFC 2852 4, RFC 4865 4 (instants).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.core.errors import Refused
from engine.core.lines import line_fault
from engine.core.reply import Reply, make_reply
from engine.core.terms import NO_TERMS, Terms
from engine.smtp.command import (
    NO_MAIL_PARAMETERS,
    MailParameters,
    parse_mail_parameters,
    parse_path,
    parse_rcpt_parameters,
)
from engine.smtp.hello import ServerLimits

# RFC 6531 3.4: an address beyond ASCII, or one of UTF-8 in ORCPT, needs the parameter.
_NOT_ASCII = make_reply(553, "5.6.7", "Address beyond ASCII, and no SMTPUTF8")


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
    terms: Terms | None = None


_BARE_ENDS = "5.6.11"  # RFC 5248's registry: invalid line ends
_HOLDS_NUL = make_reply(550, "5.6.0", "Message holds a NUL")


def message_fault(message: bytes, limits: ServerLimits) -> Reply | None:
    """Return the reply for a message whose octets can't be taken, None when they can. HOT."""
    if b"\0" in message:
        return _HOLDS_NUL
    fault = line_fault(message, limits.max_line_bytes)
    if not fault:
        return None
    return make_reply(550, _BARE_ENDS if fault.startswith("bare") else "5.6.0", f"Message with a {fault}")


def hides_an_end(fault: Reply | None) -> bool:
    """Return whether other hosts may see the end of such a message elsewhere: some skip a NUL, too."""
    return fault is not None and (fault is _HOLDS_NUL or fault.enhanced == _BARE_ENDS)


def too_large(limits: ServerLimits) -> Reply:
    """Return the reply for a message over the bound."""
    return make_reply(552, "5.3.4", f"Message larger than {limits.max_message_bytes} octets")


def read_mail(
    rest: bytes, extensions: tuple[str, ...], limits: ServerLimits, unix_clock: Callable[[], float]
) -> tuple[str, Terms | None]:
    """Return sender and terms of what stands behind "MAIL FROM:". HOT.

    Raises:
        Refused: with the reply to give.
    """
    sender, octets = parse_path(rest, is_sender=True)
    parameters = parse_mail_parameters(octets, extensions) if octets else NO_MAIL_PARAMETERS
    if parameters.size > limits.max_message_bytes:
        raise Refused(too_large(limits))
    if not rest.isascii() and not parameters.is_utf8:
        raise Refused(_NOT_ASCII)
    return sender, _mail_terms(parameters, limits, unix_clock)


def read_rcpt(
    rest: bytes, extensions: tuple[str, ...], terms: Terms | None
) -> tuple[str, tuple[str, str] | None]:
    """Return a recipient and its own terms (NOTIFY, ORCPT), of what stands behind "RCPT TO:". HOT.

    Raises:
        Refused: with the reply to give.
    """
    recipient, octets = parse_path(rest, is_sender=False)
    if not rest.isascii() and (terms is None or not terms.is_utf8):
        raise Refused(_NOT_ASCII)
    if not octets:
        return recipient, None
    parameters = parse_rcpt_parameters(octets, extensions)
    own = (parameters.notify, parameters.orcpt)
    return recipient, own if any(own) else None


def _mail_terms(
    parameters: MailParameters, limits: ServerLimits, unix_clock: Callable[[], float]
) -> Terms | None:
    if parameters is NO_MAIL_PARAMETERS:
        return None
    unix_now = unix_clock()
    hold_until = parameters.hold_until or 0.0
    if parameters.hold_for is not None:
        hold_until = unix_now + parameters.hold_for
    if hold_until > unix_now + limits.max_hold_s:  # RFC 4865 4
        raise Refused(make_reply(501, "5.5.4", f"A message may wait for {int(limits.max_hold_s)} seconds"))
    seconds, mode = parameters.by or (0, "")
    terms = Terms(
        is_utf8=parameters.is_utf8,
        envid=parameters.envid,
        ret=parameters.ret,
        deliver_by_at=unix_now + seconds if mode else 0.0,
        by_mode=mode,
        hold_until=hold_until if hold_until > unix_now else 0.0,
        requires_tls=parameters.requires_tls,
        is_overdue=mode != "" and seconds <= 0,
    )
    if terms.is_hopeless:
        raise Refused(make_reply(501, "5.5.4", "The deadline comes before the message may be sent"))
    return terms if terms != NO_TERMS else None
