"""Durations, sizes and rates: how users write them, and what they mean.

Owns: the text forms. `parse_x` and `format_x` are pairs: parse_x(format_x(v)) == v.
Never: knows which setting a value belongs to or what range it may have.
Fails: ValueError whose text says what was expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal

import msgspec

_DURATION_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION_SPELLINGS = {
    "ms": 0.001,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
# Decimal and binary units are both in use; a bare "k" or "M" means either, so it is refused.
_SIZE_UNITS = {
    "TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10,
    "TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1,
}  # fmt: skip
_SIZE_SPELLINGS = {name.lower(): octets for name, octets in _SIZE_UNITS.items()}

_AMOUNT = re.compile(r"\s*(\d[\d,_]*(?:\.\d+)?)\s*([a-z]+)\s*", re.ASCII | re.IGNORECASE)
_COUNT = re.compile(r"\d{1,3}(?:[,_]\d{3})+|\d+", re.ASCII)

_DURATION_EXPECTED = 'expected a duration such as "250ms", "90s", "5m", "1h", "4d" or a number of seconds'
_SIZE_EXPECTED = 'expected a size such as "64KiB", "10MB" or a number of bytes'
_RATE_EXPECTED = 'expected a rate such as "100/s", "20/30min" or "1,000/h"'


class Rate(msgspec.Struct, frozen=True, gc=False):
    """At most `count` in any half-open window of `window_s` seconds."""

    count: int
    window_s: float

    @property
    def per_s(self) -> float:
        return self.count / self.window_s

    def __str__(self) -> str:
        return format_rate(self)


def parse_duration(value: str | int | float) -> float:
    """Return seconds; a bare number is seconds, and parts add up ("1h30m")."""
    if isinstance(value, str):
        return float(_sum_amounts(value, _DURATION_SPELLINGS, _DURATION_EXPECTED))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(_DURATION_EXPECTED)
    return float(value)


def format_duration(seconds: float) -> str:
    """Return the shortest exact text with one unit."""
    if seconds == 0:
        return "0s"
    for name, unit_s in _DURATION_UNITS.items():
        if seconds % unit_s == 0:
            return f"{int(seconds) // unit_s}{name}"
    milliseconds = round(seconds * 1000)
    if milliseconds and parse_duration(f"{milliseconds}ms") == seconds:
        return f"{milliseconds}ms"
    return f"{Decimal(repr(seconds)):f}s"


def parse_size(value: str | int) -> int:
    """Return octets; a bare number is octets."""
    if isinstance(value, str):
        size = _sum_amounts(value, _SIZE_SPELLINGS, _SIZE_EXPECTED)
        if size != int(size):
            raise ValueError(_SIZE_EXPECTED)
        return int(size)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(_SIZE_EXPECTED)
    return value


def format_size(size_bytes: int) -> str:
    """Return the shortest exact text with one unit."""
    exact = [
        f"{size_bytes // octets}{name}"
        for name, octets in _SIZE_UNITS.items()
        if size_bytes and size_bytes % octets == 0
    ]
    return min(exact, key=len, default="0B")


def parse_rate(text: str) -> Rate:
    """Return the rate written as count/window: "100/s", "20/30min", "5/250ms"."""
    if not isinstance(text, str):
        raise ValueError(_RATE_EXPECTED)
    count_text, slash, window_text = text.partition("/")
    window_text = window_text.strip()
    if not slash or not _COUNT.fullmatch(count_text.strip()):
        raise ValueError(_RATE_EXPECTED)
    if not window_text[:1].isdigit():
        window_text = "1" + window_text
    window_s = float(_sum_amounts(window_text, _DURATION_SPELLINGS, _RATE_EXPECTED))
    count = int(count_text.replace(",", "").replace("_", ""))
    if count < 1 or window_s <= 0:
        raise ValueError(f"{_RATE_EXPECTED}; both count and window above zero")
    return Rate(count, window_s)


def format_rate(rate: Rate) -> str:
    """Return the rate as count/window, minutes as "min"."""
    window = format_duration(rate.window_s)
    window = window + "in" if window.endswith("m") else window
    is_one_unit = window[0] == "1" and window[1:].isalpha() and window[1:] != "ms"
    return f"{rate.count}/{window[1:] if is_one_unit else window}"


def _sum_amounts(text: str, units: Mapping[str, float], expected: str) -> Decimal:
    total = Decimal(0)
    position = 0
    while position < len(text) or not text:
        found = _AMOUNT.match(text, position)
        unit = units.get(found[2].lower()) if found else None
        if found is None or unit is None:
            raise ValueError(expected)
        total += Decimal(found[1].replace(",", "").replace("_", "")) * Decimal(repr(unit))
        position = found.end()
    return total
