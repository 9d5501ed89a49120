"""on_reply: what a rule may say, what its action needs, its name and its turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.core.errors import ConfigError
from engine.core.units import Rate
from engine.policy.on_reply import ReplyRule
from engine.policy.parse import parse_policies
from tests.policy.shipped import DEFAULT

A = '[provider.a]\ndomains = ["a.example"]\n'
SLOW = {"do": "slow", "for": "30m", "code": 421}


def rule(section: str = "default", **keys: Any) -> str:
    def show(value: Any) -> str:
        return json.dumps(value) if isinstance(value, str) else repr(value)

    return f"[[{section}.on_reply]]\n" + "".join(f"{key} = {show(value)}\n" for key, value in keys.items())


def rules_of(*texts: str) -> dict[str, tuple[ReplyRule, ...]]:
    files = [("default.toml", DEFAULT), *zip(("f", "g", "h"), texts, strict=False)]
    found = parse_policies(files).reply_rules
    return {
        header: tuple(each for each in rules if each.origin.file != "default.toml")
        for header, rules in found.items()
    }


def one(**keys: Any) -> ReplyRule:
    (found,) = rules_of(rule(**keys))["[default]"]
    return found


def refusal(*texts: str) -> str:
    with pytest.raises(ConfigError) as caught:
        rules_of(*texts)
    return str(caught.value)


def test_all_that_a_rule_may_say() -> None:
    found = one(
        name="all", match="^421", category=["rate-limited"], code=[421, "4xx"], enhanced="4.7.*",
        phase=["mail", "data"], after="3/10m", do="slow", rate="10/min", connections=2, recover="at_once",
        successes=50, samples=["421 4.7.0 x"], **{"for": "1h"},
    )  # fmt: skip
    assert found.origin == ("f", 1)
    assert found.codes == {"421", "4xx"}
    assert (found.after, found.rate, found.connections) == (Rate(3, 600.0), Rate(10, 60.0), 2)
    assert (found.for_s, found.is_gradual, found.successes) == (3600.0, False, 50)


def test_slow_without_either_takes_half_of_both() -> None:
    found = one(**SLOW)
    assert (found.rate, found.connections, found.is_gradual, found.after.count) == (0.5, 0.5, True, 1)
    only = one(**SLOW, connections=0.25)
    assert (only.rate, only.connections) == (None, 0.25)


def test_scopes_have_defaults_by_action() -> None:
    assert one(do="hold", code=421, **{"for": "1h"}).scope == "path"
    assert one(do="bounce", code=550).scope == "recipient"


def test_a_rule_without_a_name_is_called_by_its_section_and_number_over_files() -> None:
    text = A + rule("provider.a", **SLOW) + rule('domain."x.example"', **SLOW)
    found = rules_of(text, rule("provider.a", **SLOW))
    assert [each.name for each in found["[provider.a]"]] == ["a-2", "a-1"]
    assert found['[domain."x.example"]'][0].name == "x.example-1"


def test_later_files_rules_are_asked_first_and_within_a_file_in_order() -> None:
    found = rules_of(
        rule(name="a", **SLOW) + rule(name="b", **SLOW), rule(name="c", **SLOW) + rule(name="d", **SLOW)
    )
    assert [each.name for each in found["[default]"]] == ["c", "d", "a", "b"]


def test_a_later_file_replaces_by_name_and_switches_off() -> None:
    first = rule(name="a", **SLOW) + rule(name="b", **SLOW)
    found = rules_of(first, rule(name="b", **{**SLOW, "for": "5m"}) + rule(name="a", do="nothing"))
    (left,) = found["[default]"]
    assert (left.name, left.for_s, left.origin.file) == ("b", 300.0, "g")


def test_a_name_stands_for_one_rule() -> None:
    twice = rule(name="one", **SLOW) + rule(name="one", **SLOW)
    assert refusal(twice) == "f:6: [default] on_reply one: [default] on_reply one has that name (f:1)"
    elsewhere = A + rule("provider.a", name="one", **SLOW)
    assert refusal(rule(name="one", **SLOW), elsewhere).startswith(
        "g:3: [provider.a] on_reply one: [default]"
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"do": "slow", "for": "1h"}, "none of match, category, code and enhanced"),
        ({"code": 421}, "key do is missing"),
        ({"do": "slwo", "code": 421}, "did you mean 'slow'?"),
        ({"do": "slow", "code": 421}, "key for is missing"),
        ({"do": "hold", "code": 421}, "key for is missing"),
        ({"do": "skip_mx", "code": 421}, "key for is missing"),
        ({"do": "bounce", "scope": "waiting", "code": 421}, "key for is missing"),
        ({"do": "bounce", "code": 421, "for": "1h"}, 'with scope "recipient" nothing lasts'),
        ({"do": "hold", "code": 421, "for": "31d"}, "expected a duration from 1s to 30d"),
        ({"do": "hold", "code": 421, "for": "1h", "scope": "waiting"}, "expected one of path, vmta"),
        ({"do": "hold", "code": 421, "for": "1h", "rate": 0.5}, "do = 'hold' has no use for it; slow has"),
        ({"do": "retry", "code": 421}, 'neither in nor vmta = "other"'),
        ({"do": "retry", "code": 421, "in": "1h", "for": "1h"}, "has no use for it"),
        ({"do": "bounce", "code": 421, "phase": "tls"}, "nobody's recipient is refused"),
        ({**SLOW, "rate": 1.5}, "a factor is above 0 and below 1"),
        ({**SLOW, "rate": "10"}, "expected a rate"),
        ({**SLOW, "connections": 0}, "expected a whole number"),
        ({**SLOW, "after": "3"}, "expected a rate"),
        ({**SLOW, "after": "1001/1h"}, "expected at most 1,000 replies"),
        ({**SLOW, "code": 999}, 'expected a code such as 421, or "4xx"'),
        ({**SLOW, "enhanced": "4.7.x"}, 'or "4.7.*"'),
        ({**SLOW, "category": "rate-limted"}, "did you mean 'rate-limited'?"),
        ({**SLOW, "phase": "greeting"}, "expected one of"),
        ({**SLOW, "match": "("}, "expected a pattern in RE2's syntax"),
        ({**SLOW, "match": "a{1000}{1000}"}, "expected a pattern in RE2's syntax"),
        ({**SLOW, "match": "x*"}, "does not match the empty text"),
        ({**SLOW, "samples": [5]}, "expected a text"),
        ({**SLOW, "succeses": 5}, "unknown key 'succeses'; did you mean 'successes'?"),
        ({"do": "nothing", "name": "x", "code": 421}, "stands with the name alone"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(keys: dict[str, Any], said: str) -> None:
    found = refusal(rule(**keys))
    assert said in found
    assert found.startswith("f:")


def test_a_wrong_key_is_named_with_its_own_line() -> None:
    text = rule(name="x", code=421, do="hold", scope="waiting", **{"for": "1h"})
    assert refusal(text).startswith("f:5: [[default.on_reply]] number 1 (x): key scope")


def test_on_reply_is_an_array() -> None:
    assert refusal("[default]\non_reply = 1") == "f:2: [default.on_reply]: expected [[...on_reply]], got 1"


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.policy.on_reply.MAX_RULES", 1)
    assert "more than 1 rules" in refusal(rule(name="a", **SLOW) + rule(name="b", **SLOW))


def test_what_it_does_and_when_in_words() -> None:
    found = one(name="x", match="^421", code=421, after="3/10m", do="hold", scope="vmta", **{"for": "1h"})
    assert found.describe() == "hold vmta for 1h"
    assert found.conditions() == "match ^421; code 421; after 3/10min"
