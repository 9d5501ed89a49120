from __future__ import annotations

from pathlib import Path

from engine.policy.check import check_policies
from engine.policy.parse import parse_policies

SHIPPED = sorted(
    (Path(__file__).parents[2] / "policies").glob("*.toml"), key=lambda file: file.name != "default.toml"
)
DEFAULT = SHIPPED[0].read_text()


def findings(text: str) -> list[str]:
    return [str(found) for found in check_policies(parse_policies([("default.toml", DEFAULT), ("f", text)]))]


def test_policies_that_ship_have_no_findings() -> None:
    assert check_policies(parse_policies([(file.name, file.read_text()) for file in SHIPPED])) == []


def test_every_provider_that_ships_has_samples_and_gets_them() -> None:
    policies = parse_policies([(file.name, file.read_text()) for file in SHIPPED])
    assert len(policies.providers) >= 12
    for name, section in policies.layers.base.providers.items():
        for host in section.attributes["mx_samples"].value:
            assert policies.destination("a.example", host, (host,)).name == name


def test_sample_that_no_pattern_matches_is_an_error() -> None:
    text = '[provider.a]\nmx = ["*.a.example"]\nmx_samples = ["mx.a.example", "mx.b.example"]'
    assert findings(text) == ["f:3: error: [provider.a]: no pattern of mx matches the sample 'mx.b.example'"]


def test_provider_without_samples_is_an_error() -> None:
    assert findings('[provider.a]\nmx = ["*.a.example"]') == [
        "f:1: error: [provider.a]: mx without mx_samples: nothing shows that it fires"
    ]
    assert findings('[provider.a]\ndomains = ["a.example"]') == []


def test_sample_claimed_twice_is_an_error_of_both() -> None:
    text = "".join(
        f'[provider.{name}]\nmx = ["*.x.example"]\nmx_samples = ["mx.x.example"]\n' for name in ("a", "b")
    )
    assert findings(text) == [
        "f:3: error: [provider.a]: the sample 'mx.x.example' is claimed by [provider.b] too",
        "f:6: error: [provider.b]: the sample 'mx.x.example' is claimed by [provider.a] too",
    ]


def test_more_special_provider_may_cut_out_of_a_general_one() -> None:
    text = (
        '[provider.a]\nmx = ["*.x.example"]\nmx_samples = ["mx.x.example"]\n'
        '[provider.b]\nmx = ["*.b.x.example"]\nmx_samples = ["mx.b.x.example"]\n'
    )
    assert findings(text) == []


def test_sample_that_goes_to_a_more_special_provider_is_an_error() -> None:
    text = (
        '[provider.a]\nmx = ["*.x.example"]\nmx_samples = ["mx.b.x.example"]\n'
        '[provider.b]\nmx = ["*.b.x.example"]\nmx_samples = ["mx.b.x.example"]\n'
    )
    assert findings(text) == [
        "f:3: error: [provider.a]: the sample 'mx.b.x.example' is claimed by [provider.b] too"
    ]


def test_pattern_without_a_sample_is_a_warning() -> None:
    text = '[provider.a]\nmx = ["*.a.example", "*.b.example"]\nmx_samples = ["mx.a.example"]'
    assert findings(text) == ["f:2: warning: [provider.a]: no sample for the pattern '*.b.example'"]


def test_domain_claimed_twice_is_an_error() -> None:
    text = '[provider.a]\ndomains = ["x.example"]\n[provider.b]\ndomains = ["x.example"]'
    assert findings(text) == [
        "f:2: error: [provider.a]: the domain 'x.example' is claimed by [provider.b] too",
        "f:4: error: [provider.b]: the domain 'x.example' is claimed by [provider.a] too",
    ]


def test_section_that_says_nothing_is_a_warning() -> None:
    assert findings('[domain."a.example"]') == [
        'f:1: warning: [domain."a.example"]: empty, so it changes nothing'
    ]


def test_reply_rule_must_match_its_samples() -> None:
    rule = '[[default.on_reply]]\nmatch = "^421"\nsamples = ["421 slow down", "451 no"]'
    assert findings(rule) == [
        "f:1: error: [default] on_reply: match does not match the sample '451 no'",
        "f:1: warning: [default] on_reply: reply rules are read, but this version does not act on them",
    ]


def test_reply_rule_needs_samples_and_a_pattern_that_is_one() -> None:
    assert "no samples: nothing shows that it fires" in findings('[[default.on_reply]]\nmatch = "x"')[0]
    assert "expected a pattern in RE2's syntax" in findings('[[default.on_reply]]\nmatch = "("')[0]
    assert "expected a pattern in RE2's syntax" in findings("[[default.on_reply]]\nmatch = 5")[0]


def test_burst_over_the_window_is_a_warning() -> None:
    text = '[domain."a.example"]\nmax_message_rate = "10/s"\n[vmta.a1.domain."a.example"]\nburst = 50'
    assert findings(text) == [
        'f:4: warning: [vmta.a1.domain."a.example"]: burst 50 is more than 10/s allows; it counts as 10'
    ]


def test_retry_after_expiry_is_a_warning() -> None:
    (found,) = findings('[default]\nexpire_after = "5m"')
    assert found.endswith("warning: [default]: the first retry comes after expire_after 5m: none")
