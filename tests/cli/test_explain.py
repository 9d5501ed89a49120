from __future__ import annotations

import msgspec
import pytest

from engine.cli.explain import explain_offline, format_answer
from engine.core.errors import ConfigError


def test_cap_of_the_vmta_bounds_the_path(config: str) -> None:
    explanation = explain_offline(config, "d.example", "acme-1", "acme", ())
    assert any("max_connections of vmta acme-1: 3 sessions" in each.text for each in explanation.ceilings)


def test_mx_host_decides_the_provider(config: str) -> None:
    explanation = explain_offline(config, "hosted.example", "", "", ("aspmx.l.google.com",))
    assert explanation.kind == "provider"


def test_unknown_vmta_is_refused_with_the_known_ones(config: str) -> None:
    with pytest.raises(ConfigError, match="no vmta 'acme-2'; there are: acme-1"):
        explain_offline(config, "d.example", "acme-2", "", ())


def test_site_that_only_an_engine_knows_stands_below(config: str) -> None:
    answer = msgspec.to_builtins(explain_offline(config, "d.example", "", "", ()))
    assert format_answer(answer).startswith("destination d.example (site)")
    assert format_answer({**answer, "site": "mx1.d.example", "paths": []}).endswith("  site: mx1.d.example")


def test_why_a_domain_gets_no_mail_comes_first_and_alone_where_no_limits_are_its_own(config: str) -> None:
    answer = msgspec.to_builtins(explain_offline(config, "d.example", "", "", ()))
    problem = {"site": "", "problem": "d.example: accepts no mail (null MX)", "paths": []}
    first = "problem: d.example: accepts no mail (null MX)"
    assert format_answer({**answer, **problem, "destination": ""}) == first
    named = format_answer({**answer, **problem, "kind": "domain"})
    assert named.startswith(f"{first}\n\ndestination d.example (domain)\n")
    assert named.count("problem") == 1


def test_what_is_known_of_a_peer_stands_below_the_site(config: str) -> None:
    answer = msgspec.to_builtins(explain_offline(config, "d.example", "", "", ()))
    fault = {"peer": "192.0.2.1", "fault": "tls", "until_at": 1_700_000_000.0, "detail": "no reply"}
    last = format_answer({**answer, "site": "mx", "peers": [fault]}).splitlines()[-1]
    assert last == "  192.0.2.1: tls fails, until 2023-11-14 22:13 UTC (no reply)"
    offered = {**fault, "terms": "as mx, TLS 1.2 or newer"}
    last = format_answer({**answer, "site": "mx", "peers": [offered]}).splitlines()[-1]
    assert last.endswith("UTC (as mx, TLS 1.2 or newer: no reply)")


def test_what_the_domain_asks_of_tls_stands_below_the_site(config: str) -> None:
    answer = msgspec.to_builtins(explain_offline(config, "d.example", "", "", ()))
    text = format_answer({**answer, "site": "mx", "security": ["MTA-STS: enforce"]})
    assert text.endswith("  site: mx\n  security: MTA-STS: enforce")


def test_what_bounds_a_path_now_stands_below_the_site(config: str) -> None:
    answer = msgspec.to_builtins(explain_offline(config, "d.example", "", "", ()))
    ceiling = {"key": "adaptive", "why": "adaptive limits", "connections": 3, "rate": "50/min"}
    text = format_answer({**answer, "site": "mx", "paths": [{"vmta": "acme-1", "ceilings": [ceiling]}]})
    assert text.endswith("\n  now: acme-1 at most 3 connections, 50/min (adaptive limits)")
