"""`mailrail rules`: what is asked of the engine, what is shown."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cli.main import run

RULE = {
    "rule": "stop",
    "section": "[default]",
    "when": "code 421",
    "does": "hold for 1h",
    "where": "mine.toml:3",
    "matched": 7,
    "fired": 1,
}
REACTION = {
    "key": "stop@v1/gmail",
    "rule": "stop",
    "does": "hold for 1h",
    "scope": "path",
    "vmta": "v1",
    "destination": "gmail",
    "provider": "",
    "customer": "",
    "host": "",
    "since_at": 1.0,
    "until_at": 4e9,
    "count": 1,
    "strength": "5/5",
    "connections": 0,
    "rate": "",
    "reply": "421 x",
    "where": "mine.toml:3",
}


def test_rules_of_a_domain_and_what_is_in_force(
    config: str, admin: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    admin.answer("/rules", {"rules": [RULE], "reactions": [REACTION]})
    assert run(["rules", "gmail.com", "--vmta", "v1", "-c", config]) == 0
    shown = capsys.readouterr().out
    for word in ("stop@v1/gmail", "code 421", "mine.toml:3", "421 x"):
        assert word in shown


def test_nothing_in_force_is_said(config: str, admin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answer("/rules", {"rules": [], "reactions": []})
    assert run(["rules", "-c", config]) == 0
    assert capsys.readouterr().out == "nothing is in force\n"


def test_cancel_takes_a_key_alone(config: str, admin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    admin.answer("/rules/cancel", {"key": "stop@v1", "cancelled": 1})
    assert run(["rules", "--cancel", "stop@v1", "-c", config]) == 0
    assert capsys.readouterr().out == "cancelled: stop@v1\n"
    assert admin.asked[-1] == ("POST", "/rules/cancel", {"key": "stop@v1"})
    admin.answer("/rules/cancel", {"error": "nothing is in force as 'x'"}, 404)
    assert run(["rules", "--cancel", "x", "-c", config]) == 1
    assert run(["rules", "gmail.com", "--cancel", "x", "-c", config]) == 2
