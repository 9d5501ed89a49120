"""What commands have in common."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from engine.cli.options import common_options, fail, leave, limit_option


@click.command()
@limit_option
@common_options
def probe(config: str, as_json: bool, limit: int) -> None:
    if limit == 1:
        fail("it is bad", as_json, code=451)
    click.echo(f"{config} {limit}")
    leave(3)


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        (["-c", "a.toml"], 3, "a.toml 100\n"),
        (["--limit", "1"], 1, "mailrail: it is bad\n"),
        (["--limit", "x"], 2, None),
    ],
)
def test_exit_statuses(arguments, status, output):
    result = CliRunner().invoke(probe, arguments)
    assert result.exit_code == status
    assert output is None or result.output == output


def test_error_as_json_carries_its_facts():
    result = CliRunner().invoke(probe, ["--json", "--limit", "1"])
    assert json.loads(result.output) == {"error": "it is bad", "code": 451}
