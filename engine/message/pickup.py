"""Spool files: who a message is from and for, and the message as it will be sent.

A file may begin with fields of its own, as PowerMTA's and Windows SMTP's pickup directories take them:

    X-Sender: <news@acme.example>
    X-Receiver: <ann@x.example>
    X-Receiver: <bob@y.example>
    From: ...

What those do not say is taken from the header, as `sendmail -t` does: the sender from Return-Path, Sender or
From; the recipients from To, Cc and Bcc (or their Resent- forms where there are any). Bcc is removed in any
case, and so is Return-Path, which only the last host may write (RFC 5321 4.4). The first line of an mbox
(`From news@acme.example Mon Jan ...`) is not the message's, and names nobody.

Owns: the form of a spool file.
Never: reads a file.
Fails: PickupError, in words for whoever wrote the file.
"""

from __future__ import annotations

import re

import msgspec

from engine.core.address import parse_mailbox
from engine.core.errors import RemoteProtocolError
from engine.core.lines import line_fault
from engine.message.addresses import parse_addresses
from engine.message.headers import read_fields, remove_fields, split, unfold

MAX_ENVELOPE_FIELDS = 100_000  # a bound for the loop; a listener's max_recipients is far below
# With the lines that it is folded into (RFC 5322 2.2.3): the next recipients may stand there.
_ENVELOPE_FIELD = re.compile(
    rb"X-(Sender|Receiver)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n", re.IGNORECASE
)
_MBOX_LINE = re.compile(rb">?From [ \t]*+(?!:)[^\r\n]*\r\n")  # `From :` is a field (RFC 5322 4.5)
_SENDER_FIELDS = (b"return-path", b"sender", b"from")
_RECIPIENT_FIELDS = (b"to", b"cc", b"bcc")
_HIDDEN_FIELDS = frozenset({b"bcc", b"resent-bcc", b"return-path"})


class PickupError(RemoteProtocolError):
    """A spool file that can't be sent; `detail` says why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Pickup(msgspec.Struct, gc=False):
    """What a spool file says: an envelope, and a message with CRLF lines."""

    sender: str
    recipients: list[str]
    message: bytes
    is_8bit: bool


def parse_pickup(data: bytes) -> Pickup:
    """Parse a spool file.

    Raises:
        PickupError: mixed line ends, a NUL, a line too long, no sender or recipients, a bad address.
    """
    data = _strict_lines(data)
    mbox_line = _MBOX_LINE.match(data)
    sender, recipients, start = _envelope_fields(data, mbox_line.end() if mbox_line else 0)
    message = data[start:] if start else data
    if not recipients or sender is None:
        fields = read_fields(split(message)[0])
        recipients = recipients or _header_recipients(fields)
        sender = _header_sender(fields) if sender is None else sender
    message = remove_fields(message, _HIDDEN_FIELDS)
    return Pickup(sender, recipients, message, not message.isascii())


def _strict_lines(data: bytes) -> bytes:
    """Return the octets with CRLF lines: all-LF files are turned, mixed ones refused."""
    if not data:
        raise PickupError("the file is empty")
    if b"\r" not in data:
        data = data.replace(b"\n", b"\r\n")
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    fault = line_fault(data)
    if fault.startswith("bare"):
        raise PickupError("mixed line ends: expected either LF or CRLF throughout")
    if fault or b"\0" in data:
        raise PickupError(f"a {fault}" if fault else "a NUL octet")
    return data


def _envelope_fields(data: bytes, start: int) -> tuple[str | None, list[str], int]:
    """Read the X-Sender and X-Receiver fields from `start`; return them and where the message begins."""
    sender: str | None = None
    recipients: dict[str, None] = {}
    while (field := _ENVELOPE_FIELD.match(data, start)) is not None:
        start = field.end()
        text = _decode(unfold(field[2]))
        if field[1][:1] in b"Rr":
            for address in parse_addresses(text):
                recipients[_parse(address, "X-Receiver")] = None
        elif sender is not None:
            raise PickupError("X-Sender stands there twice")
        else:
            sender = _parse_sender(text, "X-Sender")
        if len(recipients) > MAX_ENVELOPE_FIELDS:
            raise PickupError("too many X-Receiver fields")
    return sender, list(recipients), start


def _header_recipients(fields: dict[bytes, list[bytes]]) -> list[str]:
    """Return the recipients that the header names, once each (RFC 5322 3.6.6: Resent fields first)."""
    resent = [b"resent-" + name for name in _RECIPIENT_FIELDS]
    names = resent if any(name in fields for name in resent) else list(_RECIPIENT_FIELDS)
    found: dict[str, None] = {}
    for name in names:
        for value in fields.get(name, ()):
            for address in parse_addresses(_decode(value)):
                found[_parse(address, name.decode().title())] = None
    if not found:
        raise PickupError("no recipients: neither X-Receiver nor To, Cc or Bcc names one")
    return list(found)


def _header_sender(fields: dict[bytes, list[bytes]]) -> str:
    for name in _SENDER_FIELDS:
        for value in fields.get(name, ()):
            return _parse_sender(_decode(value), name.decode().title())
    raise PickupError("no sender: neither X-Sender nor Return-Path, Sender or From names one")


def _parse_sender(text: str, field: str) -> str:
    """Return the first address of a field; "" for the null path."""
    addresses = parse_addresses(text)
    if not addresses:
        raise PickupError(f"{field} holds no address")
    return _parse(addresses[0], field) if addresses[0] else ""


def _decode(value: bytes) -> str:
    """Return a field's text; octets that are not UTF-8 stay apart, and no address may have one.

    A display name may: those in Latin-1 go to nobody else for it.
    """
    return value.decode("utf-8", "surrogateescape")


def _parse(address: str, field: str) -> str:
    octets = address.encode("utf-8", "surrogateescape")
    try:
        octets.decode()
    except UnicodeDecodeError:
        raise PickupError(f"{field}: an address that is not UTF-8: {ascii(octets[:100])[1:]}") from None
    try:
        return str(parse_mailbox(address, allow_utf8=True))
    except ValueError as error:
        raise PickupError(f"{field}: {address[:100]!r}: {error}") from None
