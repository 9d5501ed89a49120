"""Mailboxes, domains and the patterns that name them.

A mailbox is RFC 5321's: a dot-string or quoted local part, and a domain or an address literal. The domain
comes out lower case and as A-labels, the local part as it was written (only its host may interpret it).
The null reverse-path "" is no mailbox: callers handle it.

Owns: what an address looks like, and its one normal form.
Never: looks anything up.
Fails: ValueError that says what was expected.
Source: RFC 5321 4.1.2 and 4.1.3, RFC 5890 (A-labels).
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

import idna

# RFC 5321 4.5.3.1.3: a path has 256 octets, two of them brackets. The 64 octets that 4.5.3.1.1 asks of a
# local part are what every host must take, not what none may pass: VERP senders are longer.
MAX_ADDRESS_BYTES = 254
MAX_DOMAIN_BYTES = 253  # RFC 1035 2.3.4, less the root

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# Mail domains may hold underscores: not host names (RFC 1123), but they resolve and people have them.
_MAIL_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_match_plain = re.compile(rf"({_DOT_STRING})@({_MAIL_LABEL}(?:\.{_MAIL_LABEL})*)").fullmatch
_match_dot_string = re.compile(_DOT_STRING).fullmatch
_match_quoted = re.compile(r'"((?:[ !#-\[\]-~]|\\[ -~])*)"').fullmatch
# RFC 6531 3.3: UTF-8 beyond ASCII joins the atoms and what may be quoted; no C1 controls, no spaces.
_UTF8_ATOM = _ATOM.replace("~-]", "~\\u00a1-\U0010ffff-]")
_match_utf8_dot_string = re.compile(rf"{_UTF8_ATOM}(?:\.{_UTF8_ATOM})*").fullmatch
_match_utf8_quoted = re.compile('"((?:[ !#-\\[\\]-~\u00a1-\U0010ffff]|\\\\[ -~])*)"').fullmatch
_match_domain = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_match_mail_domain = re.compile(rf"{_MAIL_LABEL}(?:\.{_MAIL_LABEL})*").fullmatch


class Mailbox(NamedTuple):
    """A local part, quoted where it must be, and a domain (A-labels, lower case) or literal."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


def parse_mailbox(text: str, *, allow_utf8: bool = False) -> Mailbox:
    """Parse `local@domain`; 1 us for a plain address. `allow_utf8`: the local part may be UTF-8 (RFC 6531).

    Raises:
        ValueError: what is wrong with it.
    """
    if len(text) > MAX_ADDRESS_BYTES:
        raise ValueError(f"expected at most {MAX_ADDRESS_BYTES} octets")
    plain = _match_plain(text)
    if plain is not None:
        local, domain = plain.groups()
        if len(domain) > MAX_DOMAIN_BYTES:
            raise ValueError(f"expected a domain of at most {MAX_DOMAIN_BYTES} octets")
        return Mailbox(local, domain.lower())
    local, at, domain = text.rpartition("@")
    if not at:
        raise ValueError("expected local@domain")
    if allow_utf8 and not local.isascii():
        return Mailbox(_parse_utf8_local(local), parse_domain(domain))
    return Mailbox(_parse_local(local), parse_domain(domain))


def _parse_utf8_local(local: str) -> str:
    """Return a local part beyond ASCII as it was written: only its host may fold or normalize it."""
    if len(local.encode("utf-8", "replace")) > MAX_ADDRESS_BYTES or not local.isprintable():
        raise ValueError(f"expected a printable local part of at most {MAX_ADDRESS_BYTES} octets")
    if _match_utf8_dot_string(local) or _match_utf8_quoted(local):
        return local
    raise ValueError("expected a local part of atoms and dots, or in quotes")


def _parse_local(local: str) -> str:
    """Return the local part; quotes that it does not need are dropped (RFC 5321 4.1.2)."""
    if not local:
        raise ValueError("expected something before the @")
    if _match_dot_string(local):
        return local
    quoted = _match_quoted(local)
    if quoted is None:
        raise ValueError("expected a local part of ASCII atoms and dots, or in quotes")
    bare = quoted[1]
    return bare if _match_dot_string(bare) else local


@lru_cache(maxsize=4096)
def parse_domain(text: str) -> str:
    """Return a mail domain in its normal form: A-labels in lower case, or an address literal.

    Raises:
        ValueError: it is neither.
    """
    if text.startswith("["):
        return _parse_literal(text)
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, IndexError) as error:  # idna 3 indexes past the end of some bad labels
            raise ValueError(f"expected a domain name, got {text!r}: {error}") from None
    if len(text) > MAX_DOMAIN_BYTES or not _match_mail_domain(text):
        raise ValueError(f"expected a domain name, got {text!r}")
    return text.lower()


def _parse_literal(text: str) -> str:
    inner = text[1:-1]
    try:
        if not text.endswith("]") or "%" in text:  # Python takes scope ids; the grammar does not
            raise ValueError(text)
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise ValueError(
            f"expected an address literal like [192.0.2.1] or [IPv6:2001:db8::1], got {text!r}"
        ) from None


def domain_of(address: str) -> str:
    """Return the domain of an address that was parsed; "" for the null path."""
    return address[address.rfind("@") + 1 :]


def literal_address(domain: str) -> str:
    """Return the IP address in a domain literal, as `parse_ip` has it; "" when the domain is a name."""
    if not domain.startswith("["):
        return ""
    return str(parse_ip(domain[6:-1])) if domain.startswith("[IPv6:") else domain[1:-1]


def as_literal(host: str) -> str:
    """Return a host as SMTP names it: an address in brackets (RFC 5321 section 4.1.3), a name as it is."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return host
    return f"[IPv6:{host}]" if version == 6 else f"[{host}]"


def parse_ip(text: str) -> IPAddress:
    """Return an IP address; IPv4 inside IPv6 (::ffff:192.0.2.1) is that IPv4 address: both are equal.

    Raises:
        ValueError: it is none.
    Source: RFC 4291 section 2.5.5.2.
    """
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def parse_network(text: str) -> IPNetwork:
    """Return a network; of IPv4-mapped addresses the IPv4 network (::ffff:192.0.2.0/120 is 192.0.2.0/24).

    Raises:
        ValueError: it is none.
    """
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        embedded = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((embedded, network.prefixlen - _MAPPED.prefixlen))
    return network


def pattern_matches(pattern: str, name: str) -> bool:
    """Does "*", "*.example" (any depth below it, not itself) or an exact name match? Both lower case."""
    if pattern in (name, "*"):
        return True
    return pattern.startswith("*.") and name.endswith(pattern[1:]) and len(name) > len(pattern) - 1


def matches_sender(pattern: str, address: str) -> bool:
    """May `address` be used under "*@acme.example", "*@*.acme.example", "news@acme.example" or "*"?

    Local parts compare without regard to case; the null sender matches only "*".
    """
    if pattern == "*":
        return True
    local, _, domain = pattern.rpartition("@")
    sender, at, sender_domain = address.rpartition("@")
    if not at or not pattern_matches(domain.lower(), sender_domain):
        return False
    return local in {"", "*"} or local.lower() == sender.lower()
