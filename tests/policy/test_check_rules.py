from __future__ import annotations

import pytest

from engine.loading import load_shipped_policies
from engine.policy.check import check_policies
from engine.policy.parse import parse_policies
from tests.policy.shipped import SHIPPED, errors, errors_over_shipped, findings

A = '[provider.a]\ndomains = ["a.example", "b.example"]\n'


def rule(section: str = "default", **keys: object) -> str:
    """Return a table of five lines or fewer; `findings` speak of its first."""
    keys = {"do": "bounce", **keys}
    return f"[[{section}.on_reply]]\n" + "".join(f"{key} = {value!r}\n" for key, value in keys.items())


def test_rule_must_match_its_samples() -> None:
    text = rule(match="^421", samples=["421 slow down", "451 no"])
    assert errors(text) == [
        "f:1: error: [default] on_reply default-1: match does not match the sample '451 no'"
    ]


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("code", 421, "code 421"),
        ("code", ["421", "5xx"], "code 421, 5xx"),
        ("enhanced", "4.7.28", "enhanced 4.7.28"),
        ("enhanced", ["4.8.*", "5.7.1"], "enhanced 4.8.*, 5.7.1"),
    ],
)
def test_conditions_on_codes_must_hold_for_the_samples(key: str, value: object, shown: str) -> None:
    text = rule(match="x", **{key: value}, samples=["451 4.7.1 x"])
    assert errors(text) == [
        f"f:1: error: [default] on_reply default-1: {shown} does not match the sample '451 4.7.1 x'"
    ]


def test_conditions_that_hold_are_no_finding() -> None:
    text = rule(
        match="SLOW", code=["4xx"], enhanced="4.7.*", samples=["421 4.7.28 slow down", "450-4.7.1 slow"]
    )
    assert errors(text) == []


def test_pattern_needs_samples_and_codes_alone_do_not() -> None:
    assert errors(rule(match="x")) == [
        "f:1: error: [default] on_reply default-1: no samples: nothing shows that it fires"
    ]
    assert errors(rule(code=421)) == []


def test_samples_are_whole_replies() -> None:
    assert (
        "expected samples like \"421 4.7.0 text\", got 'slow down'"
        in errors(rule(match="slow", samples=["slow down"]))[0]
    )


def test_rule_whose_samples_all_go_to_rules_before_it_is_unreachable() -> None:
    first = rule(name="first", match="^421", samples=["421 a"])
    second = rule(name="second", match="busy", samples=["451 busy"])
    third = rule(name="third", match="now", samples=["421 not now", "450 busy now"])
    (found,) = errors(first + second + third)
    assert found == (
        "f:11: error: [default] on_reply third: unreachable: every sample of it goes to"
        " [default] on_reply first (f:1)"
    )
    assert errors(third + second + first) == []


def test_sample_that_goes_to_another_rule_is_a_warning() -> None:
    first = rule(name="first", match="^421", samples=["421 a"])
    second = rule(name="second", match="now", samples=["421 not now", "450 not now"])
    assert findings(first + second) == [
        "f:6: warning: [default] on_reply second: the sample '421 not now' goes to"
        " [default] on_reply first (f:1)"
    ]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"code": "4xx"}, {"code": [421, 450]}),
        ({"code": ["421", "450"]}, {"code": 421}),
        ({"enhanced": "4.7.*"}, {"enhanced": "4.7.28", "code": 421}),
        ({"category": ["rate-limited", "spam-block"]}, {"category": "rate-limited"}),
        ({"code": 421, "after": "3/10m"}, {"code": 421, "after": "5/10m"}),
        ({"category": "rate-limited"}, {"category": "rate-limited", "phase": "connect"}),
        ({"match": "b", "samples": ["421 b", "450 b"]}, {"match": "b", "code": 421, "samples": ["421 b"]}),
        ({"phase": ["mail", "rcpt"], "code": "4xx"}, {"phase": "mail", "code": 421}),
    ],
)
def test_rule_that_asks_for_more_than_one_before_it_is_unreachable(
    earlier: dict[str, object], later: dict[str, object]
) -> None:
    (found,) = errors(rule(name="one", **earlier) + rule(name="two", **later))
    assert "[default] on_reply two: unreachable" in found
    assert errors(rule(name="two", **later) + rule(name="one", **earlier)) == []


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"code": 421}, {"code": "4xx"}),
        ({"code": 421}, {"category": "rate-limited"}),
        ({"category": "rate-limited"}, {"match": "b", "samples": ["421 b"]}),
        ({"phase": "connect", "match": "b", "samples": ["421 b"]}, {"match": "b", "samples": ["421 b"]}),
        ({"do": "notify", "code": 421}, {"code": 421}),
        ({"code": 421, "after": "5/10m"}, {"code": 421}),
        ({"code": 421, "after": "3/1m"}, {"code": 421, "after": "5/10m"}),
    ],
)
def test_rule_that_may_get_what_those_before_it_do_not_is_reachable(
    earlier: dict[str, object], later: dict[str, object]
) -> None:
    assert errors(rule(name="one", **earlier) + rule(name="two", **later)) == []


def test_default_rule_stays_reachable_whatever_providers_take() -> None:
    text = A + rule("provider.a", name="one", code=421) + rule(name="two", code=421)
    assert errors(text) == []


def test_rule_of_a_provider_that_is_domains_only_may_be_behind_those_of_all_its_domains() -> None:
    behind = A + rule("provider.a", name="one", match="b", samples=["421 b"])
    first = rule('domain."a.example"', name="two", code=421)
    second = rule('domain."b.example"', name="three", code="4xx")
    assert errors(behind + first) == []
    (found,) = errors(behind + first + second)
    assert found == (
        "f:3: error: [provider.a] on_reply one: unreachable: every sample of it goes to"
        ' [domain."a.example"] on_reply two (f:8)'
    )
    with_mx = behind.replace("domains", 'mx = ["*.x.example"]\nmx_samples = ["mx.x.example"]\ndomains')
    assert errors(with_mx + first + second) == []


def test_later_file_replaces_a_rule_and_is_asked_before_earlier_ones() -> None:
    shipped = rule(name="one", code=421) + rule(name="two", match="b", samples=["450 b"])
    (found,) = errors(shipped, rule(name="one", code=450))
    assert found == (
        "f:5: error: [default] on_reply two: unreachable: every sample of it goes to"
        " [default] on_reply one (g:1)"
    )


def test_later_file_may_switch_a_rule_off() -> None:
    shipped = rule(name="one", code=421) + rule(name="two", match="b", samples=["421 b"])
    off = "[[default.on_reply]]\nname = '{}'\ndo = 'nothing'"
    assert len(errors(shipped)) == 1
    assert errors(shipped, off.format("one")) == []
    assert errors(shipped, off.format("ome"))[-1] == (
        "g:1: error: [default] on_reply ome: switches nothing off, no rule before it has that name;"
        " did you mean 'one'?"
    )


def test_operators_rules_come_before_those_that_ship_and_may_take_from_them() -> None:
    mine = rule("provider.gmail", match="unusual rate", samples=["421 4.7.28 unusual rate"])
    assert errors_over_shipped(mine) == []
    found = parse_policies([*SHIPPED, ("mine/f", mine)]).reply_rules["[provider.gmail]"]
    assert [each.name for each in found[:2]] == ["gmail-7", "gmail-unusual-rate"]


def test_category_is_what_a_sample_is_classified_as() -> None:
    def found(text: str) -> list[str]:
        policies = parse_policies([*load_shipped_policies(), ("f", text)])
        return [str(each) for each in check_policies(policies) if each.severity == "error"]

    by_category = rule(name="one", category="rate-limited")
    by_match = rule(name="two", match="limit", samples=["450 4.7.1 rate limit exceeded"])
    assert "f:5: error: [default] on_reply two: unreachable" in found(by_category + by_match)[0]
    wrong = rule(name="two", match="limit", category="greylisted", samples=["450 4.7.1 rate limit exceeded"])
    assert "category greylisted does not match the sample" in found(wrong)[0]
