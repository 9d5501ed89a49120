"""Reads the keys of a TOML table by a declaration of what each may hold.

A *parser* turns a raw TOML value into the parsed one, or raises ValueError("expected ..."); the
functions below make parsers. `read_table` applies a declaration and turns every complaint into a
ConfigError with file, line, key, what was expected, what was found and the nearest known key.

Never: knows a setting; the declarations stand with the models.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import idna

from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError
from engine.core.units import (
    Rate,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)

Parser = Callable[[Any], Any]

# RFC 1035 2.3.4: 63 octets a label, 253 a name; underscores are seen in the wild.
_HOSTNAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*",
    re.ASCII,
)
# Names become labels of metrics, parts of file names and keys of the store.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_SHOWN = 60  # characters of a wrong value that an error repeats


class ItemError(ValueError):
    """One item of a list or table is wrong; `index` says which, so that its own line is named."""

    def __init__(self, index: int | str, item: object, detail: str) -> None:
        super().__init__(detail)
        self.index = index
        self.item = item


class Field:
    """One key: the attribute that it fills, and what parses it; a secret is not repeated in errors."""

    __slots__ = ("attribute", "is_required", "is_secret", "parse")

    def __init__(
        self, attribute: str, parse: Parser, *, required: bool = False, is_secret: bool = False
    ) -> None:
        self.attribute = attribute
        self.parse = parse
        self.is_required = required
        self.is_secret = is_secret


def read_table(
    document: Document, path: KeyPath, table: object, fields: Mapping[str, Field]
) -> dict[str, Any]:
    """Return {attribute: parsed value} of the keys that the table has."""
    known = require_table(document, path, table)
    values = {
        fields[key].attribute: read_value(
            document, (*path, key), raw, fields[key].parse, is_secret=fields[key].is_secret
        )
        for key, raw in known.items()
        if is_known(document, path, key, fields)
    }
    for key, field in fields.items():
        if field.is_required and key not in known:
            raise ConfigError(document.origin(path), f"{describe(path)}: key {key} is missing")
    return values


def require_table(document: Document, path: KeyPath, table: object) -> dict[str, Any]:
    """Return the table, or complain that something else stands there."""
    if isinstance(table, dict):
        return table
    raise ConfigError(document.origin(path), f"{describe(path)}: expected a table, got {show(table)}")


def is_known(document: Document, path: KeyPath, key: str, known: Iterable[str]) -> bool:
    """Return True, or complain with the nearest known key."""
    known = list(known)
    if key in known:
        return True
    raise ConfigError(
        document.origin((*path, key)), f"{describe(path)}: unknown key {key!r}; {suggest(key, known)}"
    )


def read_value(
    document: Document, path: KeyPath, raw: object, parse: Parser, *, is_secret: bool = False
) -> Any:
    """Return the parsed value, or complain where it was written."""
    try:
        return parse(raw)
    except ItemError as error:
        origin, found, detail = document.origin((*path, error.index)), error.item, str(error)
    except ValueError as error:
        origin, found, detail = document.origin(path), raw, str(error)
    got = "" if is_secret else f", got {show(found)}"
    raise ConfigError(origin, f"{describe(path[:-1])}: key {path[-1]}: {detail}{got}")


def describe(path: KeyPath) -> str:
    """Return the path as a header of the file: [vmta."a.b".default], [[listener]] number 2."""
    indexes = [at for at, key in enumerate(path) if isinstance(key, int)]
    if not indexes:
        return f"[{_dotted(path)}]" if path else "top level"
    last = indexes[-1]
    header = f"[[{_dotted(path[:last])}]] number {int(path[last]) + 1}"
    return f"{header}, {_dotted(path[last + 1 :])}" if path[last + 1 :] else header


def _dotted(path: KeyPath) -> str:
    keys = [key for key in path if isinstance(key, str)]
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"' for key in keys)


def show(value: object) -> str:
    """Return a raw value as TOML has it, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table" if value else "an empty table"
    text = str(value) if isinstance(value, int | float) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known name, else what there is to choose from."""
    names = list(known)
    nearest = difflib.get_close_matches(name, names, 1, 0.6)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return "known: " + ", ".join(sorted(names)) if names else "none is defined"


# Parsers


def text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("expected a text that is not empty")
    return value


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("expected a name of up to 63 letters, digits, dots, dashes and underscores")
    return value


def hostname(value: Any) -> str:
    """A host or domain name as A-labels in lower case; no address."""
    try:
        ascii_name = value if value.isascii() else idna.encode(value, uts46=True).decode()
    except (AttributeError, idna.IDNAError):
        ascii_name = ""
    lower = ascii_name.lower().removesuffix(".")
    if not _HOSTNAME.fullmatch(lower) or lower.rpartition(".")[2].isdigit():
        raise ValueError('expected a domain name such as "mta1.example.net"')
    return lower


def pattern(value: Any) -> str:
    """An exact domain name or "*.suffix", lower case."""
    if isinstance(value, str):
        try:
            return "*." + hostname(value[2:]) if value.startswith("*.") else hostname(value)
        except ValueError:
            pass
    raise ValueError('expected a domain name or "*." and a domain name')


def absolute_path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise ValueError("expected an absolute path")
    return value.rstrip("/") or "/"


def path(value: Any) -> str:
    """An absolute path, or one from the directory of the file that says it."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("expected a path")
    return value.rstrip("/") or "/"


def path_or_none(value: Any) -> str:
    """An absolute path, or "" for none."""
    return "" if value == "" else absolute_path(value)


def address(value: Any) -> str:
    """An IPv4 or IPv6 address in its canonical form."""
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError:
        raise ValueError("expected an IPv4 or IPv6 address") from None


def network(value: Any) -> str:
    """A network in CIDR form; a single address is a network of one."""
    try:
        return str(ipaddress.ip_network(text(value)))
    except ValueError as error:
        reason = " without host bits" if "host bits" in str(error) else ""
        raise ValueError(f'expected a network such as "192.0.2.0/24"{reason}') from None


def whole(low: int, high: int) -> Parser:
    """A whole number from low to high."""

    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low:,} to {high:,}")
        return value

    return parse


def duration(low_s: float, high_s: float) -> Parser:
    """A duration in seconds, from low to high."""

    def parse(value: Any) -> float:
        seconds = parse_duration(value)
        if not low_s <= seconds <= high_s:
            raise ValueError(
                f"expected a duration from {format_duration(low_s)} to {format_duration(high_s)}"
            )
        return seconds

    return parse


def size(low: int, high: int) -> Parser:
    """A size in octets, from low to high."""

    def parse(value: Any) -> int:
        octets = parse_size(value)
        if not low <= octets <= high:
            raise ValueError(f"expected a size from {format_size(low)} to {format_size(high)}")
        return octets

    return parse


def rate(max_count: int, max_window_s: float) -> Parser:
    """A Rate, or None for "unlimited"."""

    def parse(value: Any) -> Rate | None:
        if value == "unlimited":
            return None
        try:
            parsed = parse_rate(value)
        except ValueError as error:
            raise ValueError(f'{error}, or "unlimited"') from None
        if parsed.count > max_count or parsed.window_s > max_window_s:
            widest = format_duration(max_window_s)
            raise ValueError(f"expected a rate of at most {max_count:,} in a window of at most {widest}")
        return parsed

    return parse


def choice(*options: str) -> Parser:
    """One of the options, verbatim."""
    listed = ", ".join(f'"{option}"' for option in options)

    def parse(value: Any) -> str:
        if value not in options:
            near = difflib.get_close_matches(value, options, 1) if isinstance(value, str) else []
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"expected one of {listed}{hint}")
        return str(value)

    return parse


def many(item: Parser, low: int, high: int) -> Parser:
    """A list of low to high items, as a tuple."""

    def parse(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise ValueError(f"expected a list of {low:,} to {high:,} items")
        parsed = []
        for index, raw in enumerate(value):
            try:
                parsed.append(item(raw))
            except ValueError as error:
                raise ItemError(index, raw, str(error)) from None
        return tuple(parsed)

    return parse


def one_or_many(item: Parser, high: int) -> Parser:
    """A single item or a list of 1 to high, as a tuple."""
    as_list = many(item, 1, high)

    def parse(value: Any) -> tuple[Any, ...]:
        return tuple(as_list(value)) if isinstance(value, list) else (item(value),)

    return parse
