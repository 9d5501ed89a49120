"""What the value of an option or argument may be; anything else is usage, and asks nobody.

Fails: click's BadParameter, whose text says what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from engine.admin.parameters import parse_limit, parse_message_id
from engine.core.address import parse_domain, parse_mailbox


class Value(click.ParamType[Any]):
    """What an option or argument may hold; anything else is usage, and asks nobody."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value; a default may be one already."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def parse_seconds(text: str) -> float:
    """Return a time to wait."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(f"expected seconds, 0 or more, got {text!r}")
    return seconds


def parse_address(text: str) -> str:
    """Return one bare mailbox in its normal form; a name beside it or a second one is not guessed at."""
    try:
        return str(parse_mailbox(text, allow_utf8=True))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def parse_line(text: str) -> str:
    """Return a line of text: line breaks would begin another header field."""
    if text.splitlines() not in ([], [text]):
        raise ValueError(f"expected one line, got {text!r}")
    return text


def parse_host(text: str) -> str:
    """Return an MX host as policies know it; it may end in a dot, as dig prints it."""
    return parse_domain(text.removesuffix("."))


HOST = Value("host", parse_host)
LIMIT = Value("number", parse_limit)
MESSAGE_ID = Value("id", parse_message_id)
SECONDS = Value("seconds", parse_seconds)
ADDRESS = Value("address", parse_address)
SENDER = Value("address", lambda text: parse_address(text) if text else "")  # "" is the null sender
LINE = Value("line", parse_line)
