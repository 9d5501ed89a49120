"""What commands have in common: options, JSON, the way out.

Owns: `-c`, `--json`, `--limit`; the form of an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from engine.admin.parameters import DEFAULT_LIMIT
from engine.cli.configuration import DEFAULT_CONFIG
from engine.cli.values import ADDRESS, LIMIT, LINE, SENDER

Command = TypeVar("Command", bound=Callable[..., Any])


def require_utf8(argv: list[str]) -> None:
    """Other octets can be neither asked for nor printed, whichever command gets them."""
    for argument in argv:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"expected UTF-8, got {argument!r}") from None


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


def of_letter(command: Command) -> Command:
    """Give a command what a letter has."""
    sender_help = 'The envelope sender; "" is nobody.'
    for option in (
        click.option(
            "--file", "source", type=click.File("rb"), help='A whole message instead; "-" is stdin.'
        ),
        click.option(
            "--text", default="This message was sent by `mailrail send`.\n", help="Body of the message."
        ),
        click.option("--subject", type=LINE, default="A message by mailrail send", show_default=True),
        click.option(
            "--to",
            "recipients",
            required=True,
            multiple=True,
            type=ADDRESS,
            metavar="ADDRESS",
            help="One bare address; repeatable.",
        ),
        click.option("--from", "sender", required=True, type=SENDER, metavar="ADDRESS", help=sender_help),
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
