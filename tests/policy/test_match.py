from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Origin
from engine.policy.layers import Section, Setting
from engine.policy.match import PatternIndex, ProviderMatcher

NOWHERE = Origin("f", 0)


def provider(**attributes: list[str]) -> Section:
    section = Section("", NOWHERE)
    section.attributes = {key: Setting(value, tuple(value), NOWHERE) for key, value in attributes.items()}
    return section


MATCHER = ProviderMatcher(
    {
        "google": provider(mx=["*.google.com", "*.googlemail.com"], domains=["gmail.com"]),
        "microsoft": provider(mx=["*.protection.outlook.com"]),
        "outlook": provider(mx=["*.olc.protection.outlook.com"]),
        "exact": provider(mx=["mx1.google.com"]),
        "first": provider(mx=["*.twin.example"]),
        "second": provider(mx=["*.twin.example"]),
        "regions": provider(domains=["*.region.example"]),
    }
)


def test_every_mx_host_must_match() -> None:
    assert MATCHER.provider_of("a.example", ["aspmx.l.google.com", "aspmx2.googlemail.com"]) == "google"
    assert MATCHER.provider_of("a.example", ["aspmx.l.google.com", "mx.a.example"]) == ""
    assert MATCHER.provider_of("a.example", []) == ""


def test_name_outranks_mx() -> None:
    assert MATCHER.provider_of("gmail.com", ["a.protection.outlook.com"]) == "google"
    assert MATCHER.provider_of("x.region.example", ["a.protection.outlook.com"]) == "regions"


def test_longer_pattern_wins() -> None:
    assert MATCHER.provider_of("a.example", ["a.olc.protection.outlook.com"]) == "outlook"
    assert MATCHER.provider_of("a.example", ["a.mail.protection.outlook.com"]) == "microsoft"
    assert (
        MATCHER.provider_of("a.example", ["a.olc.protection.outlook.com", "b.protection.outlook.com"])
        == "microsoft"
    )


def test_exact_name_outranks_any_suffix() -> None:
    assert MATCHER.provider_of("a.example", ["mx1.google.com"]) == "exact"
    assert MATCHER.provider_of("a.example", ["mx1.google.com", "mx2.google.com"]) == "google"


def test_last_written_wins_among_equals() -> None:
    assert MATCHER.provider_of("a.example", ["mx.twin.example"]) == "second"


def test_suffix_needs_a_label_of_its_own() -> None:
    assert MATCHER.claims_host("google.com") == {}
    assert MATCHER.claims_host("notgoogle.com") == {}
    assert MATCHER.claims_host("evil.google.com.example") == {}


def test_domain_partly_at_a_provider_is_nobodys() -> None:
    gateway, mailboxes = "a.protection.outlook.com", "aspmx.l.google.com"
    assert MATCHER.provider_of("a.example", [gateway, mailboxes]) == ""
    assert MATCHER.provider_of("a.example", [mailboxes, gateway]) == ""


def steps_of(index: PatternIndex, name: str) -> int:
    """Return how many built-in functions a search calls: look-ups and searches for dots, not seconds."""
    steps = 0

    def count(_frame: Any, event: str, _function: Any) -> None:
        nonlocal steps
        steps += event == "c_call"

    sys.setprofile(count)
    try:
        index.find(name)
    finally:
        sys.setprofile(None)
    return steps


def test_steps_of_a_search_are_those_of_the_names_labels_however_many_patterns_there_are() -> None:
    few, many = PatternIndex(), PatternIndex()
    few.add("*.owner.example", "owner")
    for number in range(2_000):
        many.add(f"*.owner{number}.example", f"owner{number}")
        many.add(f"mx{number}.example", f"owner{number}")
    by_labels = [steps_of(few, ".".join(["mx"] * labels)) for labels in range(2, 8)]
    assert [steps_of(many, ".".join(["mx"] * labels)) for labels in range(2, 8)] == by_labels
    each = {after - before for before, after in pairwise(by_labels)}
    assert len(each) == 1  # as many more for every label
    assert each < {1, 2, 3}


labels = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map(".".join)
patterns = st.one_of(labels, labels.map(lambda name: f"*.{name}"))


@given(st.lists(patterns, max_size=8), labels)
def test_index_agrees_with_asking_every_pattern(found: list[str], name: str) -> None:
    index = PatternIndex()
    for pattern in found:
        index.add(pattern, pattern)
    naive = {
        pattern for pattern in found if name == pattern or (pattern[0] == "*" and name.endswith(pattern[1:]))
    }
    assert set(index.find(name)) == naive
