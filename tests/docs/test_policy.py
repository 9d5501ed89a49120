"""docs/policy.md has every key of a policy, with the default of policies/default.toml."""

from __future__ import annotations

import tomllib

from engine.policy.fields import OF_THE_MESSAGE, POLICY, PROVIDER
from tests.docs.pages import ROOT, read_names, read_page, read_rows, section

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
