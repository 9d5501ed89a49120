"""docs/cli.md has every command with every option of its own."""

from __future__ import annotations

import re

import click

from engine.cli.main import cli
from tests.docs.pages import read_page, section

PAGE = read_page("cli")
COMMON = {"--json", "--config", "--help"}


def test_every_command_has_a_section_and_no_other() -> None:
    assert sorted(re.findall(r"^### `mailrail (\S+)`$", PAGE, re.MULTILINE)) == sorted(cli.commands)


def test_every_option_is_named_under_its_command() -> None:
    for name, command in cli.commands.items():
        text = section(PAGE, f"### `mailrail {name}`")
        options = {
            option
            for parameter in command.params
            if isinstance(parameter, click.Option)
            for option in parameter.opts
        }
        own = {option for option in options if option.startswith("--")} - COMMON
        documented = set(re.findall(r"`(--[a-z-]+)`", "\n".join(re.findall(r"^\* .*$", text, re.MULTILINE))))
        assert documented == own, name
