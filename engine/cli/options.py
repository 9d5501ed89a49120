"""What commands have in common: options, JSON, the way out.

Owns: `-c`, `--json`, `--limit`; the form of an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from engine.cli.configuration import DEFAULT_CONFIG

Command = TypeVar("Command", bound=Callable[..., Any])


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
    return click.option("--limit", default=100, show_default=True, help="Rows at most.")(command)


def print_json(answer: Any) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(answer, ensure_ascii=False, indent=1))


def fail(text: str, as_json: bool, **facts: Any) -> NoReturn:
    """Say what is wrong and leave with status 1."""
    if as_json:
        print_json({"error": text, **facts})
    else:
        click.echo(f"mailrail: {text}", err=True)
    leave(1)


def leave(status: int) -> NoReturn:
    """Leave with an exit status."""
    raise SystemExit(status)
