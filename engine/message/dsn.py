"""The message that tells a sender what became of a message (RFC 3464): failed, delayed, relayed, delivered.

A multipart/report (RFC 6522) of three parts: words for people, the status for programs, the original or its
header. All of it is 7-bit text, whatever the original and the peers' replies hold, so that it can be sent
anywhere; only for a sender whose address is UTF-8 it is UTF-8, too (RFC 6533): SMTPUTF8 is needed anyhow.
It says of itself that no person wrote it (RFC 3834), so that nothing answers it.

Owns: the form of a notification.
Never: decides who gets one; the caller never asks for the null sender (RFC 5321 section 6.1).
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

import msgspec

from engine.core.address import as_literal
from engine.core.lines import is_valid_utf8
from engine.core.reply import Reply
from engine.core.terms import decode_orcpt, decode_xtext, format_instant
from engine.message.encode import encode_8bit

MAX_ORIGINAL_BYTES = (
    1_000_000  # given back whole (RET=FULL); of a larger one its header (RFC 3461 4.3 allows it)
)
MAX_HEADER_BYTES = 32_768  # of the original that is given back; DKIM and ARC sets reach 20 kB
MAX_REPLY_CHARS = 2_000  # of a peer's reply; RFC 5321 knows lines of 512 octets
LISTED_RECIPIENTS = 100  # in the words for people; the status lists all
FOLD_AT = 76  # RFC 5322 section 2.1.1: lines SHOULD be at most 78
MAX_WORD = 240  # and MUST be at most 998 octets, of which a character may have four


class Failure(NamedTuple):
    """One recipient, as a rule one that won't get the message, and the reply that decided it."""

    recipient: str
    reply: Reply
    remote_mta: str = ""  # host of the peer that gave the reply
    status: str = ""  # enhanced code, where the reply itself has none


class _Action(NamedTuple):
    """What a notification of one kind says."""

    subject: str
    status_class: str  # of Status, whatever class the reply has
    words: tuple[str, ...]


_ACTIONS = {
    "failed": _Action(
        "Undelivered mail returned to sender",
        "",
        (
            "Your message could not be delivered to the recipients below, and it won't be",
            "tried again.",
        ),
    ),
    "delayed": _Action(
        "Delayed mail",
        "4",
        (
            "Your message has not been delivered to the recipients below yet. You need not",
            "send it again: it is still being tried.",
        ),
    ),
    "relayed": _Action(
        "Mail was relayed",
        "2",
        (
            "Your message was handed on to the servers below, which do not confirm deliveries.",
            "You will hear of it again only if it fails.",
        ),
    ),
    "delivered": _Action("Mail was delivered", "2", ("Your message was delivered to the recipients below.",)),
}


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
    action: str = "failed"  # | delayed | relayed | delivered
    envid: str = ""  # xtext
    orcpts: dict[str, str] = {}  # recipient to its ORCPT
    is_whole: bool = False  # RET=FULL: the original goes back whole, where it failed
    deliver_by_at: float = 0.0
    hold_until: float = 0.0  # its sender had it wait until then
    retry_until: float = 0.0  # delayed: when it is given up

    @property
    def is_utf8(self) -> bool:
        """The sender's address is UTF-8, and so is the notification: RFC 6533."""
        return not self.sender.isascii()


def make_bounce(bounce: Bounce) -> bytes:
    """Return the notification: header and body, CRLF lines; 7-bit, but for a sender in UTF-8."""
    boundary = f"=_{re.sub('[^A-Za-z0-9.]', '.', bounce.message_id)}"[:70]  # RFC 2046 section 5.1.1
    parts = (_describe(bounce), _format_status(bounce), _format_original(bounce))
    body = b"".join([b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in parts])
    return b"%b\r\n%b--%b--\r\n" % (_format_header(bounce, boundary), body, boundary.encode())


def _format_header(bounce: Bounce, boundary: str) -> bytes:
    fields = [
        ("Date", _format_date(bounce.now)),
        ("From", f"Mail Delivery System <{bounce.postmaster}>"),
        ("To", bounce.sender),
        ("Subject", _ACTIONS[bounce.action].subject),
        ("Message-ID", f"<{bounce.message_id}>"),
        ("Auto-Submitted", "auto-replied"),
        ("MIME-Version", "1.0"),
    ]
    about = _message_id_of(bounce.original)
    if about:
        fields += [("In-Reply-To", about), ("References", about)]
    report = f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n'
    return _format_fields(fields, bounce.is_utf8) + report.encode()


def _describe(bounce: Bounce) -> bytes:
    """Return the part for people."""
    lines = [
        f"This is the mail system at {bounce.reporting_mta}.",
        "",
        *_ACTIONS[bounce.action].words,
    ]
    if bounce.envid:
        lines += ["", f"Your envelope id: {_one_line(decode_xtext(bounce.envid))}"]
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
    return _format_part(b'text/plain; charset="utf-8"', text, bounce.is_utf8)


def _said_by(failure: Failure) -> str:
    if failure.reply.synthetic:
        return "we say"
    return f"{failure.remote_mta} said" if failure.remote_mta else "the receiving server said"


def _format_status(bounce: Bounce) -> bytes:
    """Return the part for programs: fields of the message, then of each recipient (RFC 3464 section 2)."""
    is_utf8 = bounce.is_utf8
    held = f"until;{format_instant(bounce.hold_until)}" if bounce.hold_until else ""  # RFC 4865
    about_message = [
        *([("Original-Envelope-Id", decode_xtext(bounce.envid))] if bounce.envid else []),
        ("Reporting-MTA", f"dns; {bounce.reporting_mta}"),
        ("Arrival-Date", _format_date(bounce.arrived_at)),
        *([("Deliver-By-Date", _format_date(bounce.deliver_by_at))] if bounce.deliver_by_at else []),
        *([("Future-Release-Request", held)] if held else []),
    ]
    blocks = [_format_fields(about_message, is_utf8)]
    blocks += [_format_fields(_recipient_fields(failure, bounce), is_utf8) for failure in bounce.failures]
    text = b"\r\n".join(blocks)
    if text.isascii():
        return b"Content-Type: message/delivery-status\r\n\r\n" + text
    return b"Content-Type: message/global-delivery-status\r\n%b\r\n%b" % (_EIGHT_BIT, text)  # RFC 6533 4


def _recipient_fields(failure: Failure, bounce: Bounce) -> list[tuple[str, str]]:
    reply, is_utf8 = failure.reply, bounce.is_utf8
    kind = "smtp" if not reply.synthetic else "X-Mailrail"
    orcpt = bounce.orcpts.get(failure.recipient, "")
    original = _typed_orcpt(orcpt, is_utf8) if orcpt else ""
    fields = [
        *([("Original-Recipient", original)] if original else []),
        ("Final-Recipient", _typed_address(failure.recipient, is_utf8)),
        ("Action", bounce.action),
        ("Status", _status(failure, _ACTIONS[bounce.action].status_class)),
    ]
    if failure.remote_mta:
        fields.append(("Remote-MTA", f"dns; {as_literal(failure.remote_mta)}"))
    fields.append(("Diagnostic-Code", f"{kind}; {reply}"))
    if bounce.action == "delayed" and bounce.retry_until:
        fields.append(("Will-Retry-Until", _format_date(bounce.retry_until)))
    return fields


def _status(failure: Failure, status_class: str) -> str:
    """Return the failure's status where its class fits the action (RFC 3464 2.3.4), else the class alone."""
    status_class = status_class or str(failure.reply.code // 100)
    status = failure.reply.enhanced or failure.status
    if status[:1] == status_class:
        return status
    return f"{status_class}.0.0"


def _format_date(unix: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(unix), UTC))


def _typed_address(address: str, is_utf8: bool) -> str:
    """Return an address with its type; UTF-8 is escaped where it can't go (RFC 6533 section 3)."""
    if address.isascii():
        return f"rfc822; {address}"
    return f"utf-8; {address if is_utf8 else _escape(address)}"


def _typed_orcpt(orcpt: str, is_utf8: bool) -> str:
    kind, address = decode_orcpt(orcpt)
    return f"{kind}; {address if is_utf8 else _escape(address)}"


def _escape(address: str) -> str:
    return "".join([char if char.isascii() else f"\\x{{{ord(char):X}}}" for char in address])


def _format_original(bounce: Bounce) -> bytes:
    """Return the part with the original where it was asked for, else with its header."""
    if bounce.is_whole and bounce.action == "failed" and len(bounce.original) <= MAX_ORIGINAL_BYTES:
        whole = _format_whole(bounce.original, bounce.is_utf8)
        if whole is not None:
            return whole
    return _format_header_of(bounce.original, bounce.is_utf8)


def _format_whole(original: bytes, is_utf8: bool) -> bytes | None:
    """Return the original as a part; None where its header can't be carried by any type."""
    if not original.isascii() and not is_utf8:
        original = encode_8bit(original)  # message/rfc822 itself may not be encoded (RFC 2046 5.2.1)
    if original.isascii():
        return b"Content-Type: message/rfc822\r\n\r\n" + original
    if not is_valid_utf8(original.partition(b"\r\n\r\n")[0]):
        return None
    if is_utf8:
        return b"Content-Type: message/global\r\n%b\r\n%b" % (_EIGHT_BIT, original)
    encoded = binascii.b2a_qp(original, istext=True)  # message/global may (RFC 6532 3.7)
    return b"Content-Type: message/global\r\n%b\r\n%b" % (_QUOTED, encoded)


def _format_header_of(original: bytes, is_utf8: bool) -> bytes:
    """Return the part with the original's header, cut at a line's end where it is long."""
    header = _STRAY.sub(b" ", original.partition(b"\r\n\r\n")[0]) + b"\r\n"
    if len(header) > MAX_HEADER_BYTES:
        header = header[: header.rfind(b"\r\n", 0, MAX_HEADER_BYTES) + 2]
    if is_utf8 and not header.isascii() and is_valid_utf8(header):
        return _format_part(b"message/global-headers", header, True)  # RFC 6533 6
    return _format_part(b"text/rfc822-headers", header, False)  # which every reader of mail can decode


_EIGHT_BIT = b"Content-Transfer-Encoding: 8bit\r\n"
_QUOTED = b"Content-Transfer-Encoding: quoted-printable\r\n"


# What acceptance refuses anyway: the bounce must be sound even if the store has held something odd.
_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


def _format_part(content_type: bytes, text: bytes, is_utf8: bool) -> bytes:
    """Return a part, quoted-printable where it is not text with bounded lines that may go as it is."""
    if max(map(len, text.split(b"\r\n"))) <= 998:
        if text.isascii():
            return b"Content-Type: %b\r\n\r\n%b" % (content_type, text)
        if is_utf8:
            return b"Content-Type: %b\r\n%b\r\n%b" % (content_type, _EIGHT_BIT, text)
    encoded = binascii.b2a_qp(text, istext=True)
    return b"Content-Type: %b\r\n%b\r\n%b" % (content_type, _QUOTED, encoded)


def _format_fields(fields: list[tuple[str, str]], is_utf8: bool) -> bytes:
    return b"".join([_fold(f"{name}: {_one_line(value)}", is_utf8) for name, value in fields])


def _fold(line: str, is_utf8: bool) -> bytes:
    """Return a field of text, folded at spaces where it is long; a word too long for a line is cut."""
    charset = "utf-8" if is_utf8 else "ascii"
    text = line.encode(charset, "replace").decode(charset)
    lines: list[str] = []
    current = ""
    for word in text.split(" "):
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
