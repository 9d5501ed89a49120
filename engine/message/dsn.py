"""The message that tells a sender what could not be delivered (RFC 3464).

A multipart/report (RFC 6522) of three parts: words for people, the status for programs, the original's
header. All of it is 7-bit text, whatever the original and the peers' replies hold, so that it can be sent
anywhere. It says of itself that no person wrote it (RFC 3834), so that nothing answers it.

Owns: the form of a bounce message.
Never: decides who gets one; the caller never asks for the null sender (RFC 5321 section 6.1).
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

import msgspec

from engine.core.reply import Reply

MAX_HEADER_BYTES = 32_768  # of the original that is given back; DKIM and ARC sets reach 20 kB
MAX_REPLY_CHARS = 2_000  # of a peer's reply; RFC 5321 knows lines of 512 octets
LISTED_RECIPIENTS = 100  # in the words for people; the status lists all
FOLD_AT = 76  # RFC 5322 section 2.1.1: lines SHOULD be at most 78
MAX_WORD = 900  # and MUST be at most 998


class Failure(NamedTuple):
    """One recipient that won't get the message, and the reply that decided it."""

    recipient: str
    reply: Reply
    remote_mta: str = ""  # host of the peer that gave the reply
    status: str = ""  # enhanced code, where the reply itself has none


class Bounce(msgspec.Struct, frozen=True, kw_only=True):
    """What a bounce message is made from. Instants are Unix UTC seconds."""

    sender: str  # the original's envelope sender: who gets the bounce
    failures: list[Failure]
    reporting_mta: str  # our host name
    postmaster: str  # who it comes from
    message_id: str  # of the bounce itself, without angle brackets
    original: bytes  # message or header, CRLF lines
    arrived_at: float
    now: float
    reason: str = ""  # why we gave up, where no peer's reply says it


def make_bounce(bounce: Bounce) -> bytes:
    """Return the bounce message: header and body, CRLF lines, 7-bit."""
    boundary = f"=_{re.sub('[^A-Za-z0-9.]', '.', bounce.message_id)}"[:70]  # RFC 2046 section 5.1.1
    parts = (_describe(bounce), _format_status(bounce), _format_original(bounce.original))
    body = b"".join([b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in parts])
    return b"%b\r\n%b--%b--\r\n" % (_format_header(bounce, boundary), body, boundary.encode())


def _format_header(bounce: Bounce, boundary: str) -> bytes:
    fields = [
        ("Date", format_datetime(datetime.fromtimestamp(int(bounce.now), UTC))),
        ("From", f"Mail Delivery System <{bounce.postmaster}>"),
        ("To", bounce.sender),
        ("Subject", "Undelivered mail returned to sender"),
        ("Message-ID", f"<{bounce.message_id}>"),
        ("Auto-Submitted", "auto-replied"),
        ("MIME-Version", "1.0"),
    ]
    about = _message_id_of(bounce.original)
    if about:
        fields += [("In-Reply-To", about), ("References", about)]
    report = f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n'
    return _format_fields(fields) + report.encode()


def _describe(bounce: Bounce) -> bytes:
    """Return the part for people."""
    lines = [
        f"This is the mail system at {bounce.reporting_mta}.",
        "",
        "Your message could not be delivered to the recipients below, and it won't be",
        "tried again. Its header is attached.",
    ]
    if bounce.reason:
        lines += ["", f"Reason: {_one_line(bounce.reason)}"]
    for failure in bounce.failures[:LISTED_RECIPIENTS]:
        said = f"{_said_by(failure)}: {_one_line(str(failure.reply))}"
        lines += ["", f"<{_one_line(failure.recipient)}>", f"    {said}"]
    unlisted = len(bounce.failures) - LISTED_RECIPIENTS
    if unlisted > 0:
        lines += ["", f"... and {unlisted} more, listed in the attached delivery status."]
    if bounce.postmaster:
        lines += ["", f"Questions go to {bounce.postmaster}."]
    text = "\r\n".join([*lines, ""]).encode("utf-8", "replace")
    return _format_part(b'text/plain; charset="utf-8"', text)


def _said_by(failure: Failure) -> str:
    if failure.reply.synthetic:
        return "we gave up"
    return f"{failure.remote_mta} said" if failure.remote_mta else "the receiving server said"


def _format_status(bounce: Bounce) -> bytes:
    """Return the part for programs: fields of the message, then of each recipient (RFC 3464 section 2)."""
    about_message = [
        ("Reporting-MTA", f"dns; {bounce.reporting_mta}"),
        ("Arrival-Date", format_datetime(datetime.fromtimestamp(int(bounce.arrived_at), UTC))),
    ]
    blocks = [_format_fields(about_message)]
    blocks += [_format_fields(_recipient_fields(failure)) for failure in bounce.failures]
    return b"Content-Type: message/delivery-status\r\n\r\n" + b"\r\n".join(blocks)


def _recipient_fields(failure: Failure) -> list[tuple[str, str]]:
    reply = failure.reply
    kind = "smtp" if not reply.synthetic else "X-Mailrail"
    fields = [
        ("Final-Recipient", _typed_address(failure.recipient)),
        ("Action", "failed"),
        ("Status", reply.enhanced or failure.status or f"{reply.code // 100}.0.0"),
    ]
    if failure.remote_mta:
        fields.append(("Remote-MTA", f"dns; {failure.remote_mta}"))
    return [*fields, ("Diagnostic-Code", f"{kind}; {reply}")]


def _typed_address(address: str) -> str:
    """Return an address with its type; one beyond ASCII as RFC 6533 section 3 escapes it."""
    if address.isascii():
        return f"rfc822; {address}"
    escaped = "".join([char if char.isascii() else f"\\x{{{ord(char):X}}}" for char in address])
    return f"utf-8; {escaped}"


def _format_original(original: bytes) -> bytes:
    """Return the part with the original's header, cut at a line's end where it is long."""
    header = _STRAY.sub(b" ", original.partition(b"\r\n\r\n")[0]) + b"\r\n"
    if len(header) > MAX_HEADER_BYTES:
        header = header[: header.rfind(b"\r\n", 0, MAX_HEADER_BYTES) + 2]
    return _format_part(b"text/rfc822-headers", header)


# What acceptance refuses anyway: the bounce must be sound even if the store has held something odd.
_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


def _format_part(content_type: bytes, text: bytes) -> bytes:
    """Return a part, quoted-printable where it is not 7-bit text with bounded lines."""
    if text.isascii() and max(map(len, text.split(b"\r\n"))) <= 998:
        return b"Content-Type: %b\r\n\r\n%b" % (content_type, text)
    encoded = binascii.b2a_qp(text, istext=True)
    return b"Content-Type: %b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n%b" % (
        content_type,
        encoded,
    )


def _format_fields(fields: list[tuple[str, str]]) -> bytes:
    return b"".join([_fold(f"{name}: {_one_line(value)}") for name, value in fields])


def _fold(line: str) -> bytes:
    """Return a field of ASCII text, folded at spaces where it is long; a word too long for a line is cut."""
    octets = line.encode("ascii", "replace").decode("ascii")
    lines: list[str] = []
    current = ""
    for word in octets.split(" "):
        if word and len(current) + 1 + len(word) > FOLD_AT and current.strip(" "):
            lines.append(current)
            current = " " + word[:MAX_WORD]
        else:
            current = f"{current} {word[:MAX_WORD]}" if current else word[:MAX_WORD]
    return "\r\n".join([*lines, current]).encode() + b"\r\n"


def _one_line(text: str) -> str:
    """Replace what would end a line or a field: a peer's reply is not ours to trust."""
    return _CONTROLS.sub(" ", text[:MAX_REPLY_CHARS])


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def _message_id_of(original: bytes) -> str:
    """Return the original's Message-ID where it has one that can be quoted safely, else ""."""
    header = original.partition(b"\r\n\r\n")[0]
    found = _MESSAGE_ID.search(b"\r\n" + header)
    return found[1].decode() if found else ""


_MESSAGE_ID = re.compile(
    rb"\r\nmessage-id:[ \t]*(?:\r\n[ \t]+)?(<[!-;=?-~]{1,250}>)[ \t]*(?:\r\n|\Z)", re.IGNORECASE
)
