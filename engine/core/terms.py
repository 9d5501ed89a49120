"""What a sender asked for beyond plain delivery: notifications, deadlines, a later start, TLS, UTF-8.

Most messages ask for nothing: their envelope then has None here, and no code below looks further.
What SMTP writes as xtext (ENVID, ORCPT) is kept as xtext: it goes on to the next peer octet by octet.

Owns: the shape of these terms, the text form of each, and their bounds.
Never: decides what is done about them (smtp.parameters towards peers, delivery.notices towards senders).
Fails: ValueError that says what was expected.
Source: RFC 3461 4 (DSN), RFC 2852 3 (BY), RFC 4865 3 (HOLDFOR, HOLDUNTIL), RFC 8689, RFC 6531, RFC 6533 3.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

MAX_ENVID_CHARACTERS = 100  # RFC 3461 4.4
MAX_ORCPT_CHARACTERS = 500  # RFC 3461 4.2
MAX_BY_S = 999_999_999  # RFC 2852 4: nine digits
_MAX_HOLD_DIGITS = 9  # RFC 4865 4

_KINDS = ("SUCCESS", "FAILURE", "DELAY")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ORCPT_TYPE = re.compile(r"[!#-'*+\-/-9=?A-Z^-~]{1,40}")
_UTF8_TEXT = re.compile(r"(?:[!-*,-<>-~\u00a1-\U0010ffff]|\+[0-9A-F]{2})*")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_BY = re.compile(r"([+-]?[0-9]{1,9});([NR]T?|E)")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)")


class Terms(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """Terms of one message. Instants are Unix UTC seconds, 0: none."""

    is_utf8: bool = False  # an address or the header needs SMTPUTF8
    envid: str = ""  # xtext
    ret: str = ""  # FULL | HDRS
    notify: str = ""  # of recipients without their own: "NEVER", or some of SUCCESS,FAILURE,DELAY
    recipients: dict[str, tuple[str, str]] = {}  # those with their own: notify, ORCPT ("type;xtext")
    deliver_by_at: float = 0.0
    # N: tell at that time; R: give up, and relay to none who would not; T behind it: tell of each relay.
    # E, which is ours and not SMTP's: give up here at that time, and let no peer know of it.
    by_mode: str = ""
    hold_until: float = 0.0
    requires_tls: bool = False
    is_overdue: bool = False  # it came with a time that had passed: its sender has been told (RFC 2852 4)

    def notify_of(self, recipient: str) -> str:
        """Return what a recipient's NOTIFY says; "" when nothing was said."""
        own = self.recipients.get(recipient)
        return own[0] if own is not None and own[0] else self.notify

    def orcpt_of(self, recipient: str) -> str:
        """Return a recipient's ORCPT; "" when there was none."""
        own = self.recipients.get(recipient)
        return own[1] if own is not None else ""

    def wants(self, recipient: str, kind: str) -> bool:
        """Return whether the sender is to be told: kind is SUCCESS, FAILURE or DELAY.

        Who says nothing hears of failures (RFC 3461 4.1); of delays only who asks.
        """
        notify = self.notify_of(recipient)
        return kind in notify if notify else kind == "FAILURE"

    @property
    def expires_by(self) -> float:
        """When a message that is to be given up at a time of its own is given up; 0: it has none."""
        return self.deliver_by_at if self.by_mode[:1] in ("R", "E") else 0.0

    @property
    def is_hopeless(self) -> bool:
        """It would be given up before it may be sent."""
        return 0.0 < self.expires_by <= self.hold_until


NO_TERMS = Terms()


# -- the text of each -------------------------------------------------------------------------------------


def parse_notify(text: str) -> str:
    """Return NOTIFY in its one form: "NEVER", or kinds in the order of the RFC, each once."""
    words = text.upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    if not set(words) <= set(_KINDS) or len(words) > len(_KINDS):
        raise ValueError("expected NEVER, or some of SUCCESS, FAILURE and DELAY")
    return ",".join([kind for kind in _KINDS if kind in words])


def parse_ret(text: str) -> str:
    """Return FULL or HDRS."""
    ret = text.upper()
    if ret not in {"FULL", "HDRS"}:
        raise ValueError("expected FULL or HDRS")
    return ret


def parse_envid(text: str) -> str:
    """Return an envelope id, in xtext as it came."""
    if not 0 < len(text) <= MAX_ENVID_CHARACTERS or not _XTEXT.fullmatch(text):
        raise ValueError(f"expected 1 to {MAX_ENVID_CHARACTERS} characters of xtext")
    return text


def parse_orcpt(text: str) -> str:
    """Return an original recipient, "type;xtext", as it came; of type utf-8 it may hold UTF-8."""
    kind, semicolon, address = text.partition(";")
    form = _UTF8_TEXT if kind.lower() == "utf-8" else _XTEXT
    is_sound = bool(semicolon and address and _ORCPT_TYPE.fullmatch(kind.upper()) and form.fullmatch(address))
    if not is_sound or len(text) > MAX_ORCPT_CHARACTERS:
        raise ValueError("expected an address type, a semicolon and an address in xtext")
    return text


def parse_by(text: str) -> tuple[int, str]:
    """Return the seconds and the mode (N, R, NT, RT) of a BY; R only of a time to come (RFC 2852 4)."""
    seconds, mode = _read_by(text)
    if mode == "E":
        raise ValueError("expected seconds, a semicolon and N or R, T behind it for a trace")
    return seconds, mode


def parse_deadline(text: str) -> tuple[int, str]:
    """Return the same of a control field or the socket, where E is a mode, too."""
    return _read_by(text)


def _read_by(text: str) -> tuple[int, str]:
    found = _BY.fullmatch(text.upper())
    if found is None:
        raise ValueError("expected seconds, a semicolon and N or R, T behind it for a trace")
    seconds, mode = int(found[1]), found[2]
    if mode[0] != "N" and seconds <= 0:
        raise ValueError(f"expected more than 0 seconds where {mode[0]} is asked for")
    return seconds, mode


def format_by(seconds: int, mode: str) -> str:
    """Return BY's value; a time of more than nine digits is none (RFC 2852 3)."""
    return f"{max(-MAX_BY_S, min(seconds, MAX_BY_S))};{mode}"


def parse_hold_for(text: str) -> int:
    """Return the seconds of a HOLDFOR: 1 to 999999999, without a zero in front (RFC 4865 3)."""
    if not 0 < len(text) <= _MAX_HOLD_DIGITS or not (text.isascii() and text.isdigit()) or text[0] == "0":
        raise ValueError(f"expected seconds, 1 to {_MAX_HOLD_DIGITS} digits, the first not 0")
    return int(text)


def parse_instant(text: str) -> float:
    """Return the Unix seconds of an RFC 3339 date and time."""
    try:
        if not _INSTANT.fullmatch(text.upper()):
            raise ValueError(text)
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("expected a date and time like 2026-11-24T18:00:00Z") from None


def format_instant(unix: float) -> str:
    """Return an instant as RFC 3339 writes it, in UTC, whole seconds."""
    return datetime.fromtimestamp(int(unix), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_terms(terms: Terms | None) -> str:
    """Return terms in a line for people, as SMTP writes them but for instants; "" for none."""
    if terms is None:
        return ""
    words = [
        "SMTPUTF8" if terms.is_utf8 else "",
        f"ENVID={terms.envid}" if terms.envid else "",
        f"RET={terms.ret}" if terms.ret else "",
        f"NOTIFY={terms.notify}" if terms.notify else "",
        f"BY={format_instant(terms.deliver_by_at)};{terms.by_mode}" if terms.by_mode else "",
        f"HOLDUNTIL={format_instant(terms.hold_until)}" if terms.hold_until else "",
        "REQUIRETLS" if terms.requires_tls else "",
        f"and of {len(terms.recipients)} recipients their own" if terms.recipients else "",
    ]
    return " ".join([word for word in words if word])


# -- xtext ------------------------------------------------------------------------------------------------


def encode_xtext(text: str) -> str:
    """Return text as xtext (RFC 3461 4): what is not plain becomes "+" and its octet in hex."""
    return "".join(
        [
            chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}"
            for octet in text.encode("utf-8", "replace")
        ]
    )


def decode_xtext(text: str) -> str:
    """Return what xtext stands for."""
    octets = re.sub(rb"\+([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())
    return octets.decode("utf-8", "replace")


def to_ascii_orcpt(orcpt: str) -> str:
    """Return an ORCPT for a peer without SMTPUTF8: UTF-8 escaped as RFC 6533 3 has it (utf-8-addr-xtext)."""
    if orcpt.isascii():
        return orcpt
    return "".join([char if char.isascii() else f"\\x{{{ord(char):X}}}" for char in orcpt])


def decode_orcpt(orcpt: str) -> tuple[str, str]:
    """Return type and address of an ORCPT, for people and for Original-Recipient."""
    kind, _, text = orcpt.partition(";")
    address = decode_xtext(text)
    if kind.lower() == "utf-8":
        address = _EMBEDDED.sub(_embedded, address)
    return kind, address


def _embedded(found: re.Match[str]) -> str:
    point = int(found[1], 16)
    is_character = point <= 0x10FFFF and not 0xD800 <= point <= 0xDFFF
    return chr(point) if is_character else found[0]
