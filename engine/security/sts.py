"""MTA-STS: the TXT record that announces a policy, the policy itself, and which hosts it allows.

Owns: the syntax of both, with its bounds, and the matching of MX names.
Never: asks DNS, fetches, caches (net.sts does).
Fails: a record or policy that is wrong is none at all (`parse_record` None, `parse_policy` ValueError that
    says why): what a domain got wrong must not stop its mail.
Source: RFC 8461 sections 3.1, 3.2 and 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from engine.core.address import parse_domain

MAX_POLICY_BYTES = 64 * 1024  # RFC 8461 section 3.3: "64 kilobytes" is its suggestion
MAX_AGE_S = 31_557_600  # RFC 8461 section 3.2: "the maximum value is 31557600", about a year
MAX_PATTERNS = 200  # of one policy: a domain has at most 20 MX hosts that anybody tries (net.site)
MODES = ("enforce", "testing", "none")

_RECORD = re.compile(r"v=STSv1[ \t]*;(.*)", re.DOTALL)
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_FIELD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


class StsPolicy(msgspec.Struct, frozen=True, gc=False):
    """A policy as its domain published it. `lines` are what a TLS report repeats of it."""

    mode: str  # enforce | testing | none
    mx: tuple[str, ...]  # host names and "*.suffix", lower case
    max_age_s: int
    lines: tuple[str, ...] = ()

    def allows(self, host: str) -> bool:
        """Return whether a host is one of those that the policy names."""
        return any(matches(pattern, host) for pattern in self.mx)


def parse_record(texts: Iterable[str]) -> str | None:
    """Return the id that the TXT records of `_mta-sts.<domain>` announce, or None.

    Section 3.1: records that do not begin with "v=STSv1;" are others'; if more than one is left, or the one
    has no valid id, the domain has no policy.
    """
    found = [match[1] for match in map(_RECORD.match, texts) if match]
    if len(found) != 1:
        return None
    ids = [value.strip() for key, value in _pairs(found[0], "=") if key == "id"]
    return ids[0] if len(ids) >= 1 and _ID.fullmatch(ids[0]) else None


def parse_policy(octets: bytes) -> StsPolicy:
    """Return the policy that a web server sent.

    Lines end in CRLF or LF; of a key that comes twice the first counts, `mx` excepted; unknown keys are
    passed over.

    Raises:
        ValueError: it is none, and why.
    """
    if len(octets) > MAX_POLICY_BYTES:
        raise ValueError(f"policy of more than {MAX_POLICY_BYTES} octets")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("policy is not UTF-8") from None
    lines = tuple(line.rstrip("\r") for line in text.split("\n"))
    values: dict[str, str] = {}
    patterns: list[str] = []
    for key, value in (pair for line in lines for pair in _pairs(line, ":")):
        if key == "mx":
            patterns.append(_parse_pattern(value))
        else:
            values.setdefault(key, value)
    return _make_policy(values, patterns, tuple(line for line in lines if line.strip()))


def _make_policy(values: dict[str, str], patterns: list[str], lines: tuple[str, ...]) -> StsPolicy:
    if values.get("version") != "STSv1":
        raise ValueError(f"version is {values.get('version', 'missing')!r}, not 'STSv1'")
    mode = values.get("mode", "missing")
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, not one of {', '.join(MODES)}")
    age = values.get("max_age", "missing")
    if not (age.isascii() and age.isdigit() and len(age) <= 10):
        raise ValueError(f"max_age is {age!r}, not a number of seconds")
    if not patterns and mode != "none":
        raise ValueError("no mx is named")
    if len(patterns) > MAX_PATTERNS:
        raise ValueError(f"more than {MAX_PATTERNS} mx are named")
    return StsPolicy(mode, tuple(dict.fromkeys(patterns)), min(int(age), MAX_AGE_S), lines)


def matches(pattern: str, host: str) -> bool:
    """Return whether an MX name matches; "*." stands for exactly one label (section 4.1, RFC 6125 6.4.3)."""
    if pattern.startswith("*."):
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == pattern[2:]
    return host == pattern


def _parse_pattern(value: str) -> str:
    wildcard, name = ("*.", value[2:]) if value.startswith("*.") else ("", value)
    try:
        return wildcard + parse_domain(name.rstrip("."))
    except ValueError:
        raise ValueError(f"mx {value[:80]!r} is no host name") from None


def _pairs(text: str, sign: str) -> list[tuple[str, str]]:
    """Return the key and value of each field; what is none is left out."""
    pairs = []
    for field in text.split(";") if sign == "=" else [text]:
        key, found, value = field.partition(sign)
        if found and _FIELD.fullmatch(key.strip()):
            pairs.append((key.strip(), value.strip()))
    return pairs
