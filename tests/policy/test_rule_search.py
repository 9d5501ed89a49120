"""rule_search: which rules a reply meets, in which order."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.reply import Reply
from engine.policy.fold import PolicySet
from engine.policy.parse import parse_policies
from engine.policy.rule_search import line_of
from tests.policy.shipped import DEFAULT
from tests.policy.test_on_reply import rule

TEXT = '[provider.a]\ndomains = ["a.example", "b.example"]\n[domain."b.example"]\nmax_connections = 1\n'


def policies(*tables: str) -> PolicySet:
    return parse_policies([("default.toml", DEFAULT), ("f", TEXT + "".join(tables))])


def found(
    reply: Reply, *tables: str, domain: str = "x.example", phase: str = "mail", category: str = "other"
) -> list[str]:
    known = policies(*tables)
    search = known.rules_for(known.destination(domain, domain, ()))
    return [each.name for each in search.find(reply, phase, lambda: category) if each.origin.file == "f"]


def notice(section: str = "default", **keys: Any) -> str:
    return rule(section, do="notify", **keys)


def test_a_reply_is_one_line_with_code_and_enhanced_code() -> None:
    assert line_of(Reply(421, "4.7.28", "one\ntwo")) == "421 4.7.28 one two"
    assert line_of(Reply(421, "", "caf\udce9")) == "421 caf?"


@pytest.mark.parametrize(
    ("keys", "reply", "is_met"),
    [
        ({"match": "^421[ -]4\\.7\\.28"}, Reply(421, "4.7.28", "x"), True),
        ({"match": "UNUSUAL rate"}, Reply(421, "", "an Unusual\nRATE"), True),
        ({"match": "unusual"}, Reply(421, "", "usual"), False),
        ({"code": 421}, Reply(421, "", "x"), True),
        ({"code": "4xx"}, Reply(450, "", "x"), True),
        ({"code": "4xx"}, Reply(550, "", "x"), False),
        ({"enhanced": "4.7.*"}, Reply(450, "4.7.1", "x"), True),
        ({"enhanced": "4.7.1"}, Reply(450, "4.7.10", "x"), False),
        ({"enhanced": "4.7.1"}, Reply(450, "", "no (4.7.1)"), True),
        ({"phase": "mail", "code": "4xx"}, Reply(450, "", "x"), True),
        ({"phase": ["rcpt"], "code": "4xx"}, Reply(450, "", "x"), False),
        ({"category": ["other", "greylisted"]}, Reply(450, "", "x"), True),
        ({"category": "greylisted"}, Reply(450, "", "x"), False),
        ({"match": "x", "code": 421}, Reply(450, "", "x"), False),
    ],
)
def test_all_conditions_must_hold(keys: dict[str, Any], reply: Reply, is_met: bool) -> None:
    if "match" in keys:
        keys = {**keys, "samples": ["421 x"]}
    assert found(reply, notice(name="n", **keys)) == ["n"] * is_met


def test_domain_comes_before_provider_before_default() -> None:
    tables = (
        notice(name="d", code=421),
        notice("provider.a", name="p", code=421),
        notice('domain."b.example"', name="b", code=421),
    )
    reply = Reply(421, "", "x")
    assert found(reply, *tables, domain="b.example") == ["b", "p", "d"]
    assert found(reply, *tables, domain="a.example") == ["p", "d"]
    assert found(reply, *tables, domain="x.example") == ["d"]


def test_the_category_is_not_asked_for_where_no_rule_wants_it() -> None:
    known = policies(notice(name="n", code=421), notice(name="c", code=450, category="other"))
    search = known.rules_for(known.destination("x.example", "x", ()))

    def never() -> str:
        raise AssertionError("asked")

    assert [each.name for each in search.find(Reply(421, "", "x"), "mail", never)] == ["n"]


def test_a_search_is_kept_for_its_destination() -> None:
    known = policies()
    first = known.rules_for(known.destination("a.example", "s", ()))
    assert known.rules_for(known.destination("a.example", "s", ())) is first
