"""What a message asks for, from wherever it says so: its feed, its control fields, its own octets.

SMTP says it in parameters, which were read before. The socket has fields and every feed control fields
(X-Mailrail-Notify ...), of the same text as SMTP's parameters but for the envelope id, which is plain text.

Owns: which terms a message is accepted under.
Never: decides what is done about them later.
Fails: Refused that names the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.core import terms
from engine.core.errors import Refused
from engine.core.lines import is_valid_utf8
from engine.core.reply import make_reply
from engine.core.terms import NO_TERMS, Terms


def parse_asked(
    asked: Mapping[str, str], known: Terms | None, *, max_hold_s: float, unix_now: float
) -> Terms | None:
    """Return the terms that text asks for, over those that are known already.

    Args:
        asked: by name, as `headers.TERMS` has them.

    Raises:
        Refused: a value can't be read, or the message would wait too long.
    """
    fields: dict[str, Any] = {}
    for name, text in asked.items():
        try:
            fields.update(_READERS[name](text, unix_now))
        except ValueError as error:
            raise Refused(make_reply(501, "5.5.4", f"{name}: {error}")) from None
    if fields.get("hold_until", 0.0) > unix_now + max_hold_s:
        raise Refused(make_reply(501, "5.5.4", f"a message may wait for {int(max_hold_s)} seconds here"))
    found = msgspec.structs.replace(known or NO_TERMS, **fields)
    if found.is_hopeless:
        raise Refused(make_reply(501, "5.5.4", "deliver_by: expected later than the message may be sent"))
    return found if found != NO_TERMS else None


def mark_utf8(
    known: Terms | None, sender: str, recipients: list[str], header: bytes, feed: str
) -> Terms | None:
    """Return the terms with `is_utf8` as the message needs it (RFC 6531 3.2), whatever a client has said.

    A header in octets beyond ASCII that came by SMTP without SMTPUTF8 goes on as it came: legacy 8-bit.
    """
    said = known is not None and known.is_utf8
    needs = not (sender.isascii() and "".join(recipients).isascii())
    if not needs and (said or feed != "smtp"):
        needs = not header.isascii() and is_valid_utf8(header)
    if needs == said:
        return known
    found = msgspec.structs.replace(known or NO_TERMS, is_utf8=needs)
    return found if found != NO_TERMS else None


def _read_envid(text: str, _unix_now: float) -> dict[str, Any]:
    if not text:
        raise ValueError("expected an id")
    return {"envid": terms.parse_envid(terms.encode_xtext(text))}


def _read_hold_until(text: str, unix_now: float) -> dict[str, Any]:
    until = terms.parse_instant(text)
    return {"hold_until": until if until > unix_now else 0.0}


def _read_deliver_by(text: str, unix_now: float) -> dict[str, Any]:
    seconds, mode = terms.parse_deadline(text)
    return {"deliver_by_at": unix_now + seconds, "by_mode": mode, "is_overdue": seconds <= 0}


def _read_requires_tls(text: str, _unix_now: float) -> dict[str, Any]:
    if text.lower() not in {"yes", "no"}:
        raise ValueError("expected yes or no")
    return {"requires_tls": text.lower() == "yes"}


_READERS: dict[str, Callable[[str, float], dict[str, Any]]] = {
    "notify": lambda text, _: {"notify": terms.parse_notify(text)},
    "envid": _read_envid,
    "ret": lambda text, _: {"ret": terms.parse_ret(text)},
    "hold_for": lambda text, now: {"hold_until": now + terms.parse_hold_for(text) if text != "0" else 0.0},
    "hold_until": _read_hold_until,
    "deliver_by": _read_deliver_by,
    "requires_tls": _read_requires_tls,
}
