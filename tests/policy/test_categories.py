"""categories: what is done about each, and what our own failures are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import engine
from engine.core.reply import make_reply
from engine.policy.categories import ACTIONS, CATEGORIES, FINAL, CategoryRow, own_verdict

ROW = CategoryRow(temporary="give_up", permanent="suppress", patience=3, wait_factor=1)


def test_there_are_eighteen_categories_and_five_actions() -> None:
    assert len(set(CATEGORIES)) == 18
    assert len(set(ACTIONS)) == 5
    assert set(ACTIONS) > FINAL


@pytest.mark.parametrize(("attempts", "action"), [(1, "retry"), (2, "retry"), (3, "give_up"), (9, "give_up")])
def test_4xx_is_given_up_when_patience_is_over(attempts: int, action: str) -> None:
    assert ROW.action("text", is_permanent=False, attempts=attempts) == action


@pytest.mark.parametrize("basis", ["enhanced", "code", "own", "none"])
def test_4xx_is_given_up_only_for_what_its_text_says(basis: str) -> None:
    assert ROW.action(basis, is_permanent=False, attempts=99) == "retry"


@pytest.mark.parametrize(
    ("basis", "action"),
    [("text", "suppress"), ("enhanced", "suppress"), ("code", "give_up"), ("own", "give_up")],
)
def test_nothing_is_suppressed_by_a_bare_code(basis: str, action: str) -> None:
    assert ROW.action(basis, is_permanent=True, attempts=1) == action


def test_5xx_is_tried_again_only_for_what_its_text_says() -> None:
    row = CategoryRow(temporary="retry", permanent="retry_slower", patience=1, wait_factor=2)
    assert row.action("text", is_permanent=True, attempts=1) == "retry_slower"
    assert row.action("enhanced", is_permanent=True, attempts=1) == "give_up"
    assert row.action("code", is_permanent=True, attempts=1) == "give_up"


def test_text_of_our_own_is_not_read() -> None:
    reply = make_reply(451, "4.4.1", "connect: user unknown at spamhaus.example, quota exceeded")
    assert own_verdict(reply) == ("no-answer-from-host", "", "own")
    assert own_verdict(make_reply(451, "4.9.9", "")).category == "other"


def test_every_failure_that_we_word_has_a_kind() -> None:
    root = Path(engine.__file__).parent
    sources = [
        *(root / "delivery").glob("*.py"),
        *(root / "net").glob("*.py"),
        root / "smtp" / "parameters.py",
    ]
    words = re.compile(r'make_reply\(\s*\d{3}, "([245]\.\d+\.\d+)"')
    said = {code for source in sources for code in words.findall(source.read_text())}
    assert len(said) > 10
    assert [code for code in said if own_verdict(make_reply(451, code, "")).category == "other"] == []
