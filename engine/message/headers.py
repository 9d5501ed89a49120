"""Fields of a message's header: read, added and removed once, at acceptance. HOT.

No parsed header is kept: what is asked of almost every message is one search in its lower-cased header,
and only a message that has the field pays for reading it.

Owns: trace and identification fields, control fields (X-Mailrail-*).
Never: changes a field that was there; those it removes are ours.
Fails: never; what can't be read is not there.
Source: RFC 5322 2.2 and 3.6; RFC 5321 4.4 (Received).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from engine.core.address import parse_domain
from engine.message.addresses import parse_addresses

CONTROL_PREFIX = b"x-mailrail-"
MAX_TAGS = 32
MAX_CONTROL_CHARACTERS = 256
# What a message may ask for by a control field, beyond plain delivery; inject.terms reads them.
TERMS = ("notify", "envid", "ret", "hold_for", "hold_until", "deliver_by", "requires_tls")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FIELD_NAME = re.compile(rb"[!-9;-~]+[ \t]*:")  # RFC 5322 2.2; 4.5 allows blanks before the colon
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_OBSOLETE_RECEIVED = re.compile(rb"\nreceived[ \t]+:")


class Controls(msgspec.Struct, frozen=True, gc=False):
    """What control fields said; customer and pool only from those who may name them."""

    customer: str = ""
    pool: str = ""
    job: str = ""
    tags: dict[str, str] = {}
    terms: dict[str, str] = {}  # as they were written, by name (TERMS)


_NO_CONTROLS = Controls()


# -- reading ----------------------------------------------------------------------------------------------


def split(message: bytes) -> tuple[bytes, int]:
    """Return the header, its last CRLF included, and where the body begins.

    A message whose first line is not a field has no header: its body begins at 0. The blank line belongs to
    neither.
    """
    if message[:2] == b"\r\n":
        return b"", 2
    if not _FIELD_NAME.match(message):
        return b"", 0
    end = message.find(b"\r\n\r\n")
    if end < 0:
        return message, len(message)
    return message[: end + 2], end + 4


def find_field(header: bytes, lowered: bytes, name: bytes) -> bytes | None:
    """Return the first field of this name, unfolded, without its name; None when there is none.

    Args:
        lowered: the header in lower case behind one LF: every field then begins behind an LF.
        name: in lower case.
    """
    start = _value_at(lowered, name)
    if start < 0:
        return None
    end = start
    while True:
        end = header.find(b"\r\n", end)
        if end < 0 or header[end + 2 : end + 3] not in (b" ", b"\t"):
            break
        end += 2
    return unfold(header[start : end if end >= 0 else None])


def unfold(value: bytes) -> bytes:
    """Return a field's value in one line, without blanks around it (RFC 5322 2.2.3)."""
    return (_FOLD.sub(b"", value) if b"\n" in value else value).strip()


def _value_at(lowered: bytes, name: bytes) -> int:
    """Return where in the header the value of the first field of this name begins; -1 when there is none.

    Blanks before the colon (RFC 5322 4.5) are looked for only where the usual form is not there.
    """
    start = lowered.find(b"\n" + name + b":")
    if start >= 0:
        return start + len(name) + 1  # one less than in `lowered`, which has an LF before it
    if b"\n" + name + b" " not in lowered and b"\n" + name + b"\t" not in lowered:
        return -1
    found = re.search(rb"\n" + re.escape(name) + rb"[ \t]+:", lowered)
    return found.end() - 1 if found else -1


def read_fields(header: bytes) -> dict[bytes, list[bytes]]:
    """Return the values of all fields by name (lower case), unfolded, in order."""
    values: dict[bytes, list[bytes]] = {}
    for key, colon, raw in _fields(header):
        value = raw[colon + 1 :]
        values.setdefault(key, []).append(unfold(value))
    return values


class Scan(NamedTuple):
    """A header looked at once: its octets, the same in lower case behind one LF, where the body begins."""

    header: bytes
    lowered: bytes
    body: int

    @property
    def received_count(self) -> int:
        """How many Received fields there are: the hops so far."""
        lowered = self.lowered
        count = lowered.count(b"\nreceived:")
        if b"\nreceived " in lowered or b"\nreceived\t" in lowered:
            count += len(_OBSOLETE_RECEIVED.findall(lowered))
        return count


def scan(message: bytes) -> Scan:
    """Look at the header of a message. HOT."""
    header, body = split(message)
    return Scan(header, _lowered(header), body)


def is_tls_optional(scanned: Scan) -> bool:
    """Return whether it says TLS-Required: No: rather without TLS than not at all (RFC 8689 section 3)."""
    if b"\ntls-required" not in scanned.lowered:
        return False
    value = find_field(scanned.header, scanned.lowered, b"tls-required")
    return value is not None and value.lower() == b"no"


def from_domain(message: bytes) -> str | None:
    """Return the domain of the first From address (A-labels); None when there is none to be read."""
    header, _ = split(message)
    value = find_field(header, _lowered(header), b"from")
    if value is None:
        return None
    for address in parse_addresses(value.decode("utf-8", "replace")):
        try:
            return parse_domain(address.rpartition("@")[2])
        except ValueError:
            continue
    return None


def _lowered(header: bytes) -> bytes:
    return b"\n" + header.lower()


def _fields(header: bytes) -> list[tuple[bytes, int, bytes]]:
    """Return each field: name in lower case, where its colon is, and its octets without the last CRLF."""
    fields: list[tuple[bytes, int, bytes]] = []
    for line in header.removesuffix(b"\r\n").split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            key, colon, raw = fields[-1]
            fields[-1] = (key, colon, raw + b"\r\n" + line)
        else:
            colon = line.find(b":")
            fields.append((line[: max(colon, 0)].strip().lower(), colon, line))
    return fields


def remove_fields(message: bytes, names: frozenset[bytes]) -> bytes:
    """Return the message without the fields of these names (lower case); itself if it has none."""
    header, _ = split(message)
    fields = _fields(header) if header else []
    kept = [raw + b"\r\n" for key, _, raw in fields if key not in names]
    if len(kept) == len(fields):
        return message
    return b"".join(kept) + message[len(header) :]


# -- control fields ---------------------------------------------------------------------------------------


def take_controls(message: bytes, scanned: Scan, *, is_trusted: bool) -> tuple[Controls, bytes]:
    """Read and remove the X-Mailrail-* fields; the message itself comes back where it has none.

    Customer, Pool: named only by those who are trusted to. Job: one word for a mailing. Tag: `name=value`,
    may come often. TERMS: as they are written. Others are removed too: they are for Mailrail, and
    none of them is for the recipient.
    """
    if CONTROL_PREFIX not in scanned.lowered:
        return _NO_CONTROLS, message
    header = scanned.header
    values: dict[bytes, list[str]] = {}
    kept: list[bytes] = []
    for key, colon, raw in _fields(header):
        if key.startswith(CONTROL_PREFIX):
            values.setdefault(key[len(CONTROL_PREFIX) :], []).append(_control_value(raw[colon + 1 :]))
        else:
            kept.append(raw + b"\r\n")
    controls = Controls(
        customer=values.get(b"customer", [""])[-1] if is_trusted else "",
        pool=values.get(b"pool", [""])[-1] if is_trusted else "",
        job=values.get(b"job", [""])[-1],
        tags=_tags(values.get(b"tag", [])),
        terms=_terms(values),
    )
    return controls, b"".join(kept) + message[len(header) :]


def _terms(values: dict[bytes, list[str]]) -> dict[str, str]:
    named = [(name, values.get(name.replace("_", "-").encode())) for name in TERMS]
    return {name: texts[-1] for name, texts in named if texts}


def _control_value(raw: bytes) -> str:
    text = " ".join(raw.decode("utf-8", "replace").split())[:MAX_CONTROL_CHARACTERS]
    return text if text.isprintable() else ""


def _tags(values: list[str]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values[:MAX_TAGS]]
    return {name.strip(): value.strip() for name, equals, value in pairs if equals and name.strip()}


# -- completing -------------------------------------------------------------------------------------------


def complete(  # noqa: PLR0913 (what is known of where it came from)
    scanned: Scan,
    *,
    hostname: str,
    message_id: str,
    protocol: str,
    helo: str,
    peer: str,
    recipient: str,
    unix_now: float,
    is_utf8: bool = False,
) -> bytes:
    """Return what belongs in front of a message: Received, and Message-ID and Date where it lacks them.

    Args:
        message_id: in hex; the name of the message in Received, and in Message-ID.
        protocol: how it came, for `with` (RFC 3848, or a feed's name).
        helo: "" where it did not come from another host.
        recipient: named in Received when the message has just one, "" otherwise (RFC 5321 4.4: no Bcc leaks).
        is_utf8: it came with SMTPUTF8; Received says so (RFC 6531 4.3).
    """
    lowered = scanned.lowered
    date = format_date(unix_now)
    added = format_received(hostname, message_id, protocol, helo, peer, recipient, date)
    if is_utf8:
        added = added.replace(b" with ESMTP", b" with UTF8SMTP", 1)
    if _value_at(lowered, b"message-id") < 0:
        added += f"Message-ID: <{message_id}@{hostname}>\r\n".encode()
    if _value_at(lowered, b"date") < 0:
        added += f"Date: {date}\r\n".encode()
    if scanned.body == 0:
        added += b"\r\n"  # no header at all: the body must not become one
    return added


def format_received(
    hostname: str, message_id: str, protocol: str, helo: str, peer: str, recipient: str, date: str
) -> bytes:
    """Return the Received field; whatever is not plain printable ASCII is left out of it."""
    target = f"\r\n\tfor <{recipient}>" if recipient and _plain(recipient) else ""
    begin = _begin_received(hostname, protocol, helo, peer)
    return f"{begin} id {message_id}{target};\r\n\t{date}\r\n".encode()


@lru_cache(maxsize=1024)  # a session's messages share it
def _begin_received(hostname: str, protocol: str, helo: str, peer: str) -> str:
    origin = ""
    if helo:
        literal = f"IPv6:{peer}" if ":" in peer else peer
        origin = f"from {_plain(helo) or 'unknown'} ([{_plain(literal)}])\r\n\t"
    return f"Received: {origin}by {hostname} (Mailrail) with {_plain(protocol)}"


def _plain(text: str) -> str:
    return text if text.isascii() and text.isprintable() and len(text) <= 255 else ""


def format_date(unix: float) -> str:
    """Return a date as RFC 5322 3.3 writes it, in UTC."""
    return _format_second(int(unix))


@lru_cache(maxsize=8)  # thousands of messages share a second; 0.1 us instead of 2
def _format_second(unix: int) -> str:
    at = datetime.fromtimestamp(unix, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day} {_MONTHS[at.month - 1]} {at.year} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} +0000"
    )
