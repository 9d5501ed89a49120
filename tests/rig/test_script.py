from __future__ import annotations

import pytest

from engine.rig.script import Script


def find(script: Script, stage: str, rcpt: str = "", connection: str = "c1") -> bytes | None:
    rule = script.find(stage, "127.0.0.2", "127.0.0.9", rcpt, connection)
    return rule.reply if rule else None


def test_rule_answers_its_domain_only() -> None:
    script = Script([{"at": "rcpt", "domain": "*.slow.example", "reply": "451 4.7.1 later"}])
    assert find(script, "rcpt", "u@a.slow.example") == b"451 4.7.1 later\r\n"
    assert find(script, "rcpt", "u@slow.example") is None
    assert find(script, "final", "u@a.slow.example") is None


def test_times_counts_by_subject() -> None:
    script = Script([{"at": "rcpt", "times": 1, "per": "rcpt", "reply": "450 4.2.0 greylisted"}])
    answers = [find(script, "rcpt", rcpt) for rcpt in ("a@x", "a@x", "b@x")]
    assert answers == [b"450 4.2.0 greylisted\r\n", None, b"450 4.2.0 greylisted\r\n"]


def test_every_answers_each_nth() -> None:
    script = Script([{"at": "final", "every": 3, "reply": "421 4.3.2 enough", "close": True}])
    assert [find(script, "final") is not None for _ in range(6)] == [False, False, True] * 2


def test_reply_of_several_lines_is_marked() -> None:
    script = Script([{"at": "mail", "reply": "550 5.7.1 no\n5.7.1 never"}])
    assert find(script, "mail") == b"550-5.7.1 no\r\n550 5.7.1 never\r\n"


def test_rule_with_unknown_field_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match=r"rule 1: .*'repply'"):
        Script([{"at": "mail", "repply": "550 no"}])


def test_rate_answers_what_comes_above_it_in_any_window() -> None:
    script = Script([{"at": "final", "reply": "450 4.7.1 slow down", "over": 2, "window_s": 10.0}])

    def is_answered(now: float) -> bool:
        return script.find("final", "", "", "u@x.example", "1", now) is not None

    assert [is_answered(now) for now in (0.0, 1.0, 2.0, 9.9, 10.0, 10.5, 11.0)] == [
        False,
        False,
        True,
        True,
        False,
        True,
        False,
    ]


def test_connections_above_a_number_are_answered() -> None:
    script = Script([{"at": "connect", "reply": "421 4.7.0 too many connections", "above": 3}])
    found = [script.find("connect", "", "", "", "1", 0.0, opened) for opened in (1, 3, 4)]
    assert [rule is not None for rule in found] == [False, False, True]
