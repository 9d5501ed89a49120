from __future__ import annotations

import pytest

from tests.policy.shipped import errors, errors_over_shipped, findings

A = '[provider.a]\ndomains = ["a.example", "b.example"]\n'


def rule(section: str = "default", **keys: object) -> str:
    """Return a table of five lines or fewer; `findings` speak of its first."""
    keys = {"do": "hold", **keys}
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
    assert "got '5'" in errors(rule(match="5", samples=[5]))[0]
    assert "samples: expected a list of replies, got 5" in errors(rule(match="5", samples=5))[0]


def test_pattern_must_be_one() -> None:
    where = "f:1: error: [default] on_reply default-1: match: expected a pattern in RE2's syntax"
    assert errors(rule(match="^(421")) == [f"{where} (missing ): ^(421)"]
    assert errors(rule(match=5)) == [f"{where} (got 5)"]


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
    found = [each for each in findings(first + second) if "version" not in each]
    assert found == [
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
        ({"category": "rate-limited"}, {"category": "rate-limited", "phase": "connect"}),
        ({"match": "b", "samples": ["421 b", "450 b"]}, {"match": "b", "code": 421, "samples": ["421 b"]}),
        ({"phase": ["mail", "rcpt"]}, {"phase": "mail", "code": 421}),
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


def test_name_stands_for_one_rule() -> None:
    twice = rule(name="one", code=421) + rule(name="one", code=450)
    assert errors(twice) == ["f:5: error: [default] on_reply one: [default] on_reply one has that name (f:1)"]
    elsewhere = A + rule("provider.a", name="one", code=450)
    (found,) = errors(rule(name="one", code=421), elsewhere)
    assert found == "g:3: error: [provider.a] on_reply one: [default] on_reply one has that name (f:1)"


def test_later_file_replaces_a_rule_in_its_place() -> None:
    shipped = rule(name="one", code=421) + rule(name="two", match="b", samples=["450 b"])
    (found,) = errors(shipped, rule(name="one", code=450, do="slow"))
    assert found == (
        "f:5: error: [default] on_reply two: unreachable: every sample of it goes to"
        " [default] on_reply one (g:1)"
    )


def test_later_file_may_switch_a_rule_off() -> None:
    shipped = rule(name="one", code=421) + rule(name="two", match="b", samples=["421 b"])
    assert len(errors(shipped)) == 1
    assert errors(shipped, rule(name="one", do="nothing")) == []
    assert errors(shipped, rule(name="ome", do="nothing"))[-1] == (
        "g:1: error: [default] on_reply ome: switches nothing off, no rule before it has that name;"
        " did you mean 'one'?"
    )


def test_operators_rule_behind_one_that_ships_is_unreachable_until_it_takes_its_name() -> None:
    mine = rule("provider.gmail", match="unusual rate", samples=["421 4.7.28 unusual rate"])
    (found,) = errors_over_shipped(mine)
    assert found.startswith(
        "f:1: error: [provider.gmail] on_reply gmail-7: unreachable: every sample of it goes to"
    )
    assert "[provider.gmail] on_reply gmail-unusual-rate (policies/providers-worldwide.toml:" in found
    assert errors_over_shipped(mine + 'name = "gmail-unusual-rate"') == []
