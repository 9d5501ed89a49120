"""check_replies: rules that do not get their samples, and rules out of reach."""

from __future__ import annotations

from engine.loading import load_shipped_policies
from engine.policy.check_replies import check_replies
from engine.policy.parse import parse_policies


def findings(*texts: str) -> list[str]:
    own = [(f"/etc/p/{number}.toml", text) for number, text in enumerate(texts, 1)]
    return [str(each) for each in check_replies(parse_policies([*load_shipped_policies(), *own]))]


def rule(name: str, match: str, sample: str, more: str = "") -> str:
    head = f'[[classify]]\nname = "{name}"\nmatch = "{match}"\n'
    return f'{head}{more}category = "other"\nsamples = ["{sample}"]\n'


def test_rules_that_ship_get_their_samples() -> None:
    assert findings() == []


def test_sample_that_the_pattern_does_not_match_is_an_error() -> None:
    assert findings(rule("a", "zebra", "550 <a@b.example> no horse")) == [
        "/etc/p/1.toml:1: error: [[classify]] a: match does not match the sample"
        " '550 <a@b.example> no horse', which reads '<@> no horse'"
    ]


def test_sample_with_another_code_is_an_error() -> None:
    assert findings(rule("a", "zebra", "550 zebra", 'code = "4xx"\n')) == [
        "/etc/p/1.toml:1: error: [[classify]] a: code or enhanced does not fit the sample '550 zebra'"
    ]


def test_rule_out_of_reach_behind_another_is_an_error() -> None:
    text = rule("wide", "zebra", "550 zebra") + rule("narrow", "zebra crossing", "550 zebra crossing")
    assert findings(text) == [
        "/etc/p/1.toml:6: error: [[classify]] narrow: out of reach for the sample '550 zebra crossing':"
        " wide goes before (/etc/p/1.toml:1)"
    ]
    later = rule("wide", "zebra", "550 zebra")
    assert findings(rule("narrow", "zebra crossing", "550 zebra crossing"), later) == [
        "/etc/p/1.toml:1: error: [[classify]] narrow: out of reach for the sample '550 zebra crossing':"
        " wide goes before (/etc/p/2.toml:1)"
    ]


def test_rule_of_an_operator_may_take_from_those_that_ship() -> None:
    assert findings(rule("mine", "user unknown", "550 user unknown")) == []


def test_provider_that_there_is_not_is_a_warning() -> None:
    found = findings(rule("a", "zebra", "550 zebra", 'provider = "gmial"\n'))
    assert found == ["/etc/p/1.toml:1: warning: [[classify]] a: provider: there is no [provider.gmial]"]
    assert findings(rule("a", "zebra", "550 zebra", 'provider = ["gmail"]\n')) == []
