"""README's first page: its configuration sends mail, its commands are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.cli.main import cli, run
from engine.loading import build_model, check_texts, load_texts
from tests.docs.pages import ROOT, blocks, read_page

README = read_page("README")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (example,) = blocks(README, "toml")
    file = tmp_path / "mailrail.toml"
    file.write_text(example)
    return file


def test_smallest_configuration_passes_a_strict_check(config: Path) -> None:
    assert check_texts(load_texts(str(config))) == []
    assert run(["check", "--strict", "-c", str(config)]) == 0


def test_smallest_configuration_has_nothing_that_it_could_do_without(config: Path) -> None:
    lines = config.read_text().splitlines()
    for number, line in enumerate(lines):
        if "=" in line:
            config.write_text("\n".join(lines[:number] + lines[number + 1 :]))
            assert run(["check", "--strict", "-c", str(config)]) == 1, line


def test_smallest_configuration_has_a_customer_who_may_send_as_the_example_does(config: Path) -> None:
    customer = build_model(load_texts(str(config))).settings.customers["acme"]
    assert "--from news@acme.example" in README
    assert customer.senders == ("*@acme.example",)


def test_commands_of_the_page_are_commands() -> None:
    for block in blocks(README, ""):
        for name in re.findall(r"^mailrail (\w+)", block, re.MULTILINE):
            assert name in cli.commands
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
