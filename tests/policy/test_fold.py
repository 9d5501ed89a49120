from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.errors import Origin
from engine.core.units import Rate
from engine.policy import fold
from engine.policy.fold import PolicySet
from engine.policy.model import Destination
from engine.policy.parse import parse_policies

DEFAULT = (Path(__file__).parents[2] / "policies" / "default.toml").read_text()
LAYERS = """\
[default]
max_connections = 1
[provider.gmail]
mx = ["*.google.com"]
domains = ["gmail.com"]
max_connections = 2
[domain."vip.example"]
max_connections = 3
[customer.acme.default]
max_connections = 4
[customer.acme.provider.gmail]
max_connections = 5
[customer.acme.domain."vip.example"]
max_connections = 6
[vmta.a1.default]
max_connections = 7
[vmta.a1.provider.gmail]
max_connections = 8
[vmta.a1.domain."vip.example"]
max_connections = 9
"""
SITE = Destination("10:mx.a.example", "site", "", "")
GMAIL = Destination("gmail", "provider", "gmail", "")
VIP = Destination("vip.example", "domain", "gmail", "vip.example")


def parse(text: str) -> PolicySet:
    return parse_policies([("default.toml", DEFAULT), ("f.toml", text)])


@pytest.mark.parametrize(
    ("destination", "customer", "vmta", "limit"),
    [
        (SITE, "", "", 1),
        (GMAIL, "", "", 2),
        (VIP, "", "", 3),
        (SITE, "acme", "", 4),
        (GMAIL, "acme", "", 5),
        (VIP, "acme", "", 6),
        (SITE, "acme", "a1", 7),
        (GMAIL, "acme", "a1", 8),
        (VIP, "acme", "a1", 9),
        (VIP, "other", "a2", 3),
    ],
)
def test_later_layer_wins(destination: Destination, customer: str, vmta: str, limit: int) -> None:
    assert parse(LAYERS).effective(destination, customer, vmta).max_connections == limit


def test_layer_that_does_not_say_takes_from_the_weaker() -> None:
    policies = parse(LAYERS + '[vmta.a2.provider.gmail]\nmax_message_rate = "50/min"')
    policy = policies.effective(GMAIL, "acme", "a2")
    assert policy.max_connections == 5
    assert policy.max_message_rate == Rate(50, 60.0)


def test_destination_is_the_named_domain_else_the_provider_else_the_site() -> None:
    policies = parse(LAYERS)
    google = ("aspmx.l.google.com",)
    assert policies.destination("vip.example", "s", google) == VIP
    assert policies.destination("gmail.com", "s", ()) == GMAIL
    assert policies.destination("a.example", "s1", google) == GMAIL
    assert policies.destination("a.example", SITE.name, ("mx.a.example",)) == SITE


def test_domain_named_only_for_a_vmta_is_a_destination_of_its_own() -> None:
    policies = parse('[vmta.a1.domain."x.example"]\nmax_connections = 1')
    assert policies.destination("x.example", "s", ("mx.example",)) == Destination(
        "x.example", "domain", "", "x.example"
    )


def test_customers_sections_are_seen_where_they_apply() -> None:
    policies = parse(LAYERS + "[customer.b.provider.gmail]\nmax_connections = 1\n[customer.c.default]\n")
    assert policies.sections_for("acme", SITE)
    assert policies.sections_for("b", GMAIL)
    assert not policies.sections_for("b", SITE)
    assert not policies.sections_for("c", SITE)
    assert not policies.sections_for("nobody", GMAIL)


def test_burst_is_part_of_the_window() -> None:
    policy = parse('[default]\nmax_message_rate = "10/s"\nburst = 50').effective(SITE)
    assert policy.burst == 10
    assert parse('[default]\nmax_message_rate = "unlimited"\nburst = 50').effective(SITE).burst == 50


def test_same_answer_is_the_same_object() -> None:
    policies = parse(LAYERS)
    assert policies.effective(GMAIL, "nobody", "x") is policies.effective(GMAIL)
    assert policies.destination("gmail.com", "s", ()) is policies.destination("gmail.com", "s", ())


def test_change_of_site_is_seen() -> None:
    policies = parse(LAYERS)
    assert policies.destination("a.example", "s1", ("x.google.com",)) == GMAIL
    assert policies.destination("a.example", "s2", ("x.a.example",)).kind == "site"


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "_MAX_CACHED", 10)
    policies = parse(LAYERS)
    for n in range(100):
        policies.destination(f"d{n}.example", f"s{n}", ())
        policies.effective(Destination(f"d{n}", "domain", "", f"d{n}"))
    assert len(policies._destinations) <= 10
    assert len(policies._policies) <= 10


def test_trace_names_every_layer_and_line() -> None:
    trace = parse(LAYERS).trace(VIP, "acme", "a1")["max_connections"]
    assert [applied.setting.value for applied in trace] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert trace[-1].layer == '[vmta.a1.domain."vip.example"]'
    assert trace[-1].setting.origin == Origin("f.toml", 20)


def test_parsed_values_are_in_seconds() -> None:
    policy = parse("").effective(SITE)
    assert policy.retry_s == (300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    assert policy.expire_after_s == 4 * 86400.0
    assert policy.final_timeout_s == 600.0
    assert policy.bounce_message is True
