"""XCLIENT: a front end says for whom it speaks.

Owns: the attributes and their form.
Never: decides who may say it (smtp.access asks the listener).
Fails: Refused with the reply to give.
Source: Postfix's XCLIENT_README (NAME ADDR PORT PROTO HELO LOGIN); xtext is RFC 3461 section 4's.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from engine.core.errors import Refused
from engine.core.reply import make_reply

ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN")
_UNKNOWN = frozenset(("[UNAVAILABLE]", "[TEMPUNAVAIL]"))
_ESCAPE = re.compile(rb"\+([0-9A-F]{2})")
_NOT_IN_NAMES = re.compile(r"""[\x00-\x20()<>"\\;,\x7f]""")  # as in EHLO: names end in Received
MAX_VALUE_CHARACTERS = 255


class Attributes(msgspec.Struct, frozen=True):
    """What was said; "" is what was not, or what the front end does not know."""

    name: str = ""
    addr: str = ""
    port: str = ""
    proto: str = ""
    helo: str = ""
    login: str = ""


def parse_xclient(rest: bytes) -> Attributes:
    """Return what stands behind XCLIENT."""
    found: dict[str, str] = {}
    for word in rest.split():
        key, equals, raw = word.partition(b"=")
        name = key.decode("ascii", "replace").upper()
        if name not in ATTRIBUTES or not equals:
            raise _refused(f"Attributes are {', '.join(ATTRIBUTES)}")
        if name.lower() in found:
            raise _refused(f"{name} given twice")
        found[name.lower()] = _check(name, _decode(raw))
    if not found:
        raise _refused("Syntax: XCLIENT attribute=value ...")
    return Attributes(**found)


def _decode(raw: bytes) -> str:
    text = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), raw).decode("utf-8", "replace")
    return "" if text.upper() in _UNKNOWN else text


def _check(name: str, value: str) -> str:
    if not value:
        return ""
    if len(value) > MAX_VALUE_CHARACTERS or not value.isprintable():
        raise _refused(f"{name}: expected up to {MAX_VALUE_CHARACTERS} printable characters")
    if name == "ADDR":
        return _address(value)
    if name == "PORT" and not (value.isdigit() and int(value) <= 65535):
        raise _refused("PORT: expected a number up to 65535")
    if name == "PROTO" and value.upper() not in ("SMTP", "ESMTP"):
        raise _refused("PROTO: expected SMTP or ESMTP")
    if name in ("NAME", "HELO") and (not value.isascii() or _NOT_IN_NAMES.search(value)):
        raise _refused(f"{name}: expected a host name")
    return value.upper() if name == "PROTO" else value


def _address(value: str) -> str:
    """Return an address in its usual form; IPv6 has a tag in front (RFC 5321 4.1.3)."""
    tagged = value[:5].upper() == "IPV6:"
    try:
        address = ipaddress.ip_address(value[5:] if tagged else value)
    except ValueError:
        raise _refused("ADDR: expected an address") from None
    if address.version == 6:
        mapped = address.ipv4_mapped
        return str(mapped or address)
    if tagged:
        raise _refused("ADDR: expected an IPv6 address behind IPV6:")
    return str(address)


def _refused(text: str) -> Refused:
    return Refused(make_reply(501, "5.5.4", text))
