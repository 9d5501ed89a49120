"""docs/cli.md has every command with every option of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from engine.cli.main import cli
from tests.docs.pages import read_page, section

PAGE = read_page("cli")
COMMON = {"--json", "--config", "--help"}


def test_every_command_has_a_section_and_no_other() -> None:
    assert sorted(re.findall(r"^### `mailrail (\S+)`$", PAGE, re.MULTILINE)) == sorted(cli.commands)
    nested = {heading for heading, _ in every_command() if heading.startswith("#### ")}
    assert set(re.findall(r"^#### `mailrail .*`$", PAGE, re.MULTILINE)) == nested


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield heading and command, those of groups too."""
    for name, command in cli.commands.items():
        yield f"### `mailrail {name}`", command
        for sub_name, sub_command in command.commands.items() if isinstance(command, click.Group) else ():
            yield f"#### `mailrail {name} {sub_name}`", sub_command


def test_every_option_is_named_under_its_command() -> None:
    for heading, command in every_command():
        text = section(PAGE, heading).partition("\n#### ")[0]
        options = {
            option
            for parameter in command.params
            if isinstance(parameter, click.Option)
            for option in parameter.opts
        }
        own = {option for option in options if option.startswith("--")} - COMMON
        documented = set(re.findall(r"`(--[a-z-]+)`", "\n".join(re.findall(r"^\* .*$", text, re.MULTILINE))))
        assert documented == own, heading
