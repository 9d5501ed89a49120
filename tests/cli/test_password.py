"""`mailrail password`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from engine.cli.main import cli
from engine.cli.password import make_hash
from engine.settings.password import matches, parse_password


def test_line_from_a_pipe_becomes_a_hash_that_the_configuration_takes() -> None:
    result = CliRunner().invoke(cli, ["password", "--json"], input="correct horse\n")
    assert result.exit_code == 0
    assert matches(parse_password(json.loads(result.output)["password"]), b"correct horse")


def test_two_hashes_of_one_password_differ() -> None:
    assert make_hash("secret") != make_hash("secret")


@pytest.mark.parametrize("password", ["", "a\0b", "ö" * 128])
def test_password_that_auth_can_not_carry_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 octets"):
        make_hash(password)
    result = CliRunner().invoke(cli, ["password"], input=f"{password}\n")
    assert result.exit_code == 1


def test_password_that_is_no_utf8_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"^expected a password in UTF-8$"):
        make_hash("s\udcffcret")
