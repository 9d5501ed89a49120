"""docs/policy.md has every key of a policy, with the default of policies/default.toml."""

from __future__ import annotations

import re
import tomllib

from engine.policy.fields import OF_THE_MESSAGE, POLICY, PROVIDER
from engine.policy.parse import parse_policies
from tests.docs.pages import ROOT, read_names, read_page, read_rows, section
from tests.policy.shipped import FILES

PAGE = read_page("policy")
DEFAULTS = tomllib.loads((ROOT / "policies" / "default.toml").read_text())["default"]


def test_every_key_has_a_row_in_the_order_of_the_manual() -> None:
    names = read_names(section(PAGE, "## Every key"))
    assert names == list(DEFAULTS)
    assert set(names) == set(POLICY)


def test_defaults_are_those_of_the_manual() -> None:
    for name, default, _ in read_rows(section(PAGE, "## Every key")):
        assert tomllib.loads(f"value = {default.strip('`')}")["value"] == DEFAULTS[name.strip("`")], name


def test_keys_of_the_message_stand_together() -> None:
    text = section(PAGE, "## Every key")
    of_the_message = text[text.index("Of the message") : text.index("How to reach")]
    assert read_names(of_the_message) == list(OF_THE_MESSAGE)


def test_every_key_that_names_a_provider_has_a_row() -> None:
    assert set(read_names(section(PAGE, "## What names a provider"))) == set(PROVIDER)


def test_every_file_of_providers_is_named() -> None:
    shipped = {file.name for file in (ROOT / "policies").glob("providers-*.toml")}
    text = section(PAGE, "## Providers that ship, and your own")
    assert set(re.findall(r"`policies/(providers-[\w-]+\.toml)`", text)) == shipped


def test_as_many_providers_ship_as_are_promised() -> None:
    files = [tomllib.loads(file.read_text()) for file in (ROOT / "policies").glob("providers-*.toml")]
    shipped = sum(len(file["provider"]) for file in files)
    for page in ("README", "CHANGELOG"):
        (promised,) = re.findall(r"more than (\d+) providers", read_page(page))
        assert shipped > int(promised)


def test_examples_of_providers_and_rules_are_policies() -> None:
    for heading in ("## Providers that ship, and your own", "## Rules for replies"):
        for text in re.findall(r"```toml\n(.*?)```", section(PAGE, heading), re.DOTALL):
            files = [(file.name, file.read_text()) for file in FILES]
            assert parse_policies([*files, ("example", text)]).providers
