"""The providers that ship: how many, whether each gets its samples, and where each limit comes from."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from engine.core import fields
from engine.policy.fields import POLICY, PROVIDER
from engine.policy.parse import parse_policies
from tests.policy.shipped import FILES, SHIPPED

POLICIES = parse_policies(SHIPPED)
PROVIDERS = POLICIES.layers.base.providers
TABLES: dict[str, dict[str, Any]] = {
    name: table for _, text in SHIPPED for name, table in tomllib.loads(text).get("provider", {}).items()
}
RULES = [(name, rule) for name, table in TABLES.items() for rule in table["on_reply"]]
GATEWAYS = tomllib.loads(dict(SHIPPED)["policies/providers-gateways.toml"])["provider"]

# docs/policy.md: what a rule may say, and what each action needs.
RULE_KEYS = {
    "name", "match", "category", "code", "enhanced", "phase", "after", "do", "rate", "connections", "scope",
    "in", "vmta", "for", "recover", "successes", "samples",
}  # fmt: skip
SCOPES = {"hold": {"path", "vmta", "customer", "provider"}, "bounce": {"recipient", "waiting"}}


def test_sixty_and_more_ship() -> None:
    assert len(PROVIDERS) >= 60
    assert TABLES.keys() == PROVIDERS.keys()


def test_those_that_every_operator_looks_for_are_there() -> None:
    assert PROVIDERS.keys() >= {
        *("gmail", "yahoo", "outlook", "office365", "apple", "comcast", "gmx", "mail_com", "orange"),
        *("mail_ru", "yandex", "qq", "netease", "yahoo_jp", "docomo", "naver", "daum", "rediff", "uol"),
        *("proofpoint", "mimecast", "barracuda", "cisco", "messagelabs", "zoho", "fastmail", "ionos", "ovh"),
    }


@pytest.mark.parametrize("name", PROVIDERS)
def test_each_gets_its_samples(name: str) -> None:
    section = PROVIDERS[name]
    for host in section.attributes["mx_samples"].value:
        found = POLICIES.destination("a.example", host, (host,))
        assert (found.kind, found.name) == ("provider", name)
    hosts = section.attributes["mx_samples"].value
    assert POLICIES.destination("b.example", ",".join(hosts), hosts).name == name
    mixed = (*hosts, "mx.own.example")
    assert POLICIES.destination("c.example", ",".join(mixed), mixed).kind == "site"


@pytest.mark.parametrize("name", PROVIDERS)
def test_each_has_limits_of_its_own_within_what_all_have(name: str) -> None:
    settings = PROVIDERS[name].settings
    assert {"max_connections", "max_messages_per_connection"} <= settings.keys()
    for key, setting in settings.items():
        assert setting.value == POLICY[key].parse(setting.raw)


def test_each_limit_says_where_it_is_from_and_of_when() -> None:
    origin = re.compile(r"# (KumoMTA|published|operators|ours)\b.*\b20\d\d-\d\d\b")
    for file in FILES[1:]:
        in_rule = False
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if line.startswith("["):
                in_rule = line.startswith("[[")
            key = line.partition(" = ")[0]
            if key in POLICY and not in_rule:
                assert origin.search(line), f"{file.name}:{number}: {line}"


def test_names_are_one_word_in_lower_case() -> None:
    for name in PROVIDERS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)


def test_each_has_rules_for_replies() -> None:
    assert {name for name, _ in RULES} == PROVIDERS.keys()


def test_more_than_forty_have_rules_for_words_of_their_own() -> None:
    assert len({name for name, rule in RULES if "match" in rule}) > 40


def test_rules_are_named_for_their_provider_and_once() -> None:
    names = [rule["name"] for _, rule in RULES]
    assert len(set(names)) == len(names)
    for provider, rule in RULES:
        assert rule["name"].startswith(provider.replace("_", "-") + "-"), rule["name"]


@pytest.mark.parametrize(("provider", "rule"), RULES, ids=[rule["name"] for _, rule in RULES])
def test_rules_say_all_that_their_action_needs(provider: str, rule: dict[str, Any]) -> None:
    assert rule.keys() <= RULE_KEYS
    assert rule.keys() & {"match", "category", "code", "enhanced"}
    assert "samples" in rule or "match" not in rule
    assert rule["do"] in {"slow", "hold", "bounce", "retry", "skip_mx", "no_tls", "notify"}
    if rule["do"] in ("slow", "hold", "skip_mx", "no_tls"):
        assert fields.duration(60, 30 * 86400)(rule["for"]) > 0
    if rule["do"] == "retry":
        assert fields.duration(60, 86400)(rule["in"]) > 0
    assert rule.get("scope", "path") in SCOPES.get(rule["do"], {"path"})
    if isinstance(rate := rule.get("rate"), str):
        fields.rate(1000, 3600)(rate)
    for key in ("rate", "connections"):
        value = rule.get(key, 0.5)
        assert isinstance(value, str | int) or 0 < value < 1, key
    assert re.fullmatch(r"\d+/\d+[mh]", rule.get("after", "1/1m"))


def test_samples_of_replies_name_nobodys_address() -> None:
    address = re.compile(r"\b(?!203\.0\.113\.)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b")
    for _, rule in RULES:
        for sample in rule.get("samples", ()):
            bare = re.sub(r"\b\d\.\d{2}\.\d{2}\.\d\b", "", sample)  # Yahoo's number of a reason
            assert not address.search(bare), sample


def test_domain_behind_a_gateway_is_the_gateways_and_half_behind_one_is_nobodys() -> None:
    assert set(GATEWAYS) >= {"proofpoint", "mimecast", "barracuda", "cisco", "messagelabs", "trend_micro"}
    mailboxes = "contoso-com.mail.protection.outlook.com"
    for name, table in GATEWAYS.items():
        host = table["mx_samples"][0]
        assert POLICIES.matcher.provider_of("contoso.example", [host]) == name
        assert POLICIES.matcher.provider_of("contoso.example", [host, mailboxes]) == ""


@pytest.mark.parametrize(
    "host",
    [
        "ns3012345.ovh.net",
        "ip-50-62-1-2.ip.secureserver.net",
        "host1-2-3-4.serverdedicati.aruba.it",
        "someone.hd.free.fr",
        "ec2-203-0-113-10.compute-1.amazonaws.com",
        "someone.cable.dynamic.v4.ziggo.nl",
    ],
)
def test_customers_own_servers_are_not_their_providers(host: str) -> None:
    assert POLICIES.matcher.claims_host(host) == {}


def test_keys_that_name_a_provider_come_in_one_order() -> None:
    for name, table in TABLES.items():
        keys = [key for key in table if key in PROVIDER]
        assert keys == [key for key in ("mx", "mx_samples", "domains") if key in keys], name
