"""What commands have in common: options, JSON, the way out.

Owns: `-c`, `--json`, `--limit`; what a value may be; the form of an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from engine.admin.parameters import DEFAULT_LIMIT, parse_limit, parse_message_id
from engine.cli.configuration import DEFAULT_CONFIG
from engine.core.address import parse_domain, parse_mailbox

Command = TypeVar("Command", bound=Callable[..., Any])


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


def require_utf8(argv: list[str]) -> None:
    """Other octets can be neither asked for nor printed, whichever command gets them."""
    for argument in argv:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"expected UTF-8, got {argument!r}") from None


HOST = Value("host", parse_host)
LIMIT = Value("number", parse_limit)
MESSAGE_ID = Value("id", parse_message_id)
SECONDS = Value("seconds", parse_seconds)
ADDRESS = Value("address", parse_address)
SENDER = Value("address", lambda text: parse_address(text) if text else "")  # "" is the null sender
LINE = Value("line", parse_line)


def common_options(command: Command) -> Command:
    """Give a command the options that all have."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs."),
        click.option(
            "-c",
            "--config",
            metavar="FILE",
            envvar="MAILRAIL_CONFIG",
            default=DEFAULT_CONFIG,
            show_default=True,
            show_envvar=True,
            help="The configuration.",
        ),
    )
    for option in options:
        command = option(command)
    return command


def limit_option(command: Command) -> Command:
    """Give a command the bound on its rows."""
    option = click.option(
        "--limit", type=LIMIT, default=DEFAULT_LIMIT, show_default=True, metavar="N", help="Rows at most."
    )
    return option(command)


def of_queues(command: Command) -> Command:
    """Give a command the criteria by which queues, and messages in them, are chosen."""
    for option in (
        limit_option,
        click.option("--pool", metavar="NAME", help="Only mail of this pool."),
        click.option("--domain", metavar="NAME", help="Only mail to this domain."),
        click.option("--customer", metavar="NAME", help="Only this customer's."),
    ):
        command = option(command)
    return command


def print_json(answer: Any) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(answer, ensure_ascii=False, indent=1))


def tell(as_json: bool, answer: Any, show: Callable[[], None]) -> None:
    """Print an answer for programs, or have it shown to people."""
    if as_json:
        print_json(answer)
    else:
        show()


def fail(text: str, as_json: bool, **facts: Any) -> NoReturn:
    """Say what is wrong and leave with status 1."""
    complain(text, as_json, **facts)
    leave(1)


def complain(text: str, as_json: bool, **facts: Any) -> None:
    """Say what is wrong."""
    tell(as_json, {"error": text, **facts}, lambda: click.echo(f"mailrail: {text}", err=True))


def leave(status: int) -> NoReturn:
    """Leave with an exit status."""
    raise SystemExit(status)
