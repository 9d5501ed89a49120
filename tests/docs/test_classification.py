"""docs/classification.md has the table of default.toml, every action and every key of a rule."""

from __future__ import annotations

import tomllib

from engine.loading import load_shipped_policies
from engine.policy.categories import ACTIONS, CATEGORIES
from engine.policy.check_replies import check_replies
from engine.policy.parse import parse_policies
from engine.policy.reply_rules import RULE
from tests.docs.pages import ROOT, blocks, read_names, read_page, read_rows, section

PAGE = read_page("classification")
TABLE = section(PAGE, "## Categories and what is done")
DEFAULTS = tomllib.loads((ROOT / "policies" / "default.toml").read_text())["category"]


def test_table_is_that_of_the_manual() -> None:
    rows = [row for row in read_rows(TABLE) if len(row) == 6]
    assert [row[0].strip("| `") for row in rows] == list(CATEGORIES) == list(DEFAULTS)
    for name, temporary, permanent, patience, wait_factor, _ in rows:
        assert DEFAULTS[name.strip("| `")] == {
            "temporary": temporary,
            "permanent": permanent,
            "patience": int(patience),
            "wait_factor": int(wait_factor),
        }, name


def test_every_action_has_a_row() -> None:
    rows = [row for row in read_rows(TABLE) if len(row) == 2]
    assert [row[0].strip("| `") for row in rows] == list(ACTIONS)


def test_every_key_of_a_rule_has_a_row() -> None:
    assert set(read_names(section(PAGE, "## Rules"))) == set(RULE)


def test_examples_are_policies_that_check_finds_good() -> None:
    own = [(f"/etc/p/{number}.toml", text) for number, text in enumerate(blocks(PAGE, "toml"))]
    assert len(own) == 2
    assert list(check_replies(parse_policies([*load_shipped_policies(), *own]))) == []
