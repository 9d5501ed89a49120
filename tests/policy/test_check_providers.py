from __future__ import annotations

from tests.policy.shipped import SHIPPED, errors, errors_over_shipped, findings


def provider(name: str, mx: str, sample: str) -> str:
    return f'[provider.{name}]\nmx = ["{mx}"]\nmx_samples = ["{sample}"]\n'


def line_of(text: str) -> str:
    """Return file and line of a text that stands once in what ships."""
    (found,) = (
        f"{file}:{number}"
        for file, content in SHIPPED
        for number, line in enumerate(content.splitlines(), 1)
        if line.startswith(text)
    )
    return found


def test_sample_that_no_pattern_matches_is_an_error() -> None:
    text = '[provider.a]\nmx = ["*.a.example"]\nmx_samples = ["mx.a.example", "mx.b.example"]'
    assert findings(text) == ["f:3: error: [provider.a]: no pattern of mx matches the sample 'mx.b.example'"]


def test_patterns_that_replace_those_of_the_samples_are_to_blame() -> None:
    text = provider("a", "*.a.example", "mx.a.example")
    assert errors(text, '[provider.a]\nmx = ["*.b.example"]') == [
        "g:2: error: [provider.a]: no pattern of mx matches the sample 'mx.a.example' (f:3);"
        " mx_samples belong here, too"
    ]
    assert findings(text, text.replace("a.example", "b.example")) == []


def test_provider_without_samples_is_an_error() -> None:
    assert findings('[provider.a]\nmx = ["*.a.example"]') == [
        "f:1: error: [provider.a]: mx without mx_samples: nothing shows that it fires"
    ]
    assert findings('[provider.a]\ndomains = ["a.example"]') == []


def test_samples_without_patterns_are_an_error() -> None:
    assert findings('[provider.a]\ndomains = ["a.example"]\nmx_samples = ["mx.a.example"]') == [
        "f:3: error: [provider.a]: mx_samples without mx: none can match"
    ]


def test_sample_claimed_twice_is_an_error_of_both() -> None:
    text = provider("a", "*.x.example", "mx.x.example") + provider("b", "*.x.example", "mx.x.example")
    assert findings(text) == [
        "f:3: error: [provider.a]: the sample 'mx.x.example' is claimed by [provider.b] (f:5) too",
        "f:6: error: [provider.b]: the sample 'mx.x.example' is claimed by [provider.a] (f:2) too",
    ]


def test_pattern_of_two_providers_is_an_error_without_a_sample_of_it_too() -> None:
    text = (
        '[provider.a]\nmx = ["*.a.example", "*.x.example"]\nmx_samples = ["mx.a.example"]\n'
        '[provider.b]\nmx = ["*.b.example", "*.x.example"]\nmx_samples = ["mx.b.example"]\n'
    )
    assert findings(text) == [
        "f:2: error: [provider.a]: the pattern '*.x.example' is [provider.b] (f:5)'s, too",
        "f:5: error: [provider.b]: the pattern '*.x.example' is [provider.a] (f:2)'s, too",
    ]


def test_more_special_provider_may_cut_out_of_a_general_one() -> None:
    text = provider("a", "*.x.example", "mx.x.example") + provider("b", "*.b.x.example", "mx.b.x.example")
    assert findings(text) == []
    assert findings(text.replace("*.b.x.example", "mx.b.x.example")) == []


def test_sample_that_goes_to_a_more_special_provider_is_an_error() -> None:
    text = provider("a", "*.x.example", "mx.b.x.example") + provider("b", "*.b.x.example", "mx.b.x.example")
    assert findings(text) == [
        "f:3: error: [provider.a]: the sample 'mx.b.x.example' is claimed by [provider.b] (f:5) too"
    ]


def test_pattern_without_a_sample_is_a_warning() -> None:
    text = '[provider.a]\nmx = ["*.a.example", "*.b.example"]\nmx_samples = ["mx.a.example"]'
    assert findings(text) == ["f:2: warning: [provider.a]: no sample for the pattern '*.b.example'"]


def test_domain_claimed_twice_is_an_error() -> None:
    for domain in ("x.example", "*.x.example"):
        text = f'[provider.a]\ndomains = ["{domain}"]\n[provider.b]\ndomains = ["{domain}"]'
        assert findings(text) == [
            f"f:2: error: [provider.a]: the domain '{domain}' is claimed by [provider.b] (f:4) too",
            f"f:4: error: [provider.b]: the domain '{domain}' is claimed by [provider.a] (f:2) too",
        ]


def test_domain_may_be_cut_out_of_a_general_one() -> None:
    text = '[provider.a]\ndomains = ["*.x.example"]\n[provider.b]\ndomains = ["b.x.example"]'
    assert findings(text) == []


def test_pattern_below_a_broader_one_of_the_same_provider_is_a_warning() -> None:
    text = (
        '[provider.a]\nmx = ["*.x.example", "*.a.x.example"]\n'
        'mx_samples = ["mx.a.x.example", "mx.x.example"]\n'
    )
    found = "f:2: warning: [provider.a]: '*.a.x.example' of mx adds nothing to '*.x.example'"
    assert findings(text) == [found]
    domains = '[provider.a]\ndomains = ["*.x.example", "a.x.example"]'
    assert findings(domains) == [
        "f:2: warning: [provider.a]: 'a.x.example' of domains adds nothing to '*.x.example'"
    ]


def test_pattern_below_a_broader_one_saves_a_host_from_another_provider() -> None:
    own = (
        '[provider.a]\nmx = ["*.x.example", "mx.b.x.example"]\n'
        'mx_samples = ["mx.x.example", "mx.b.x.example"]\n'
    )
    assert findings(own, provider("b", "*.b.x.example", "mx2.b.x.example")) == []


def test_whole_top_level_domain_is_a_warning() -> None:
    assert findings(provider("a", "*.example", "mx.example")) == [
        "f:2: warning: [provider.a]: '*.example' of mx takes a whole top-level domain"
    ]


def test_name_that_is_a_domain_or_no_word_is_a_warning() -> None:
    (found,) = findings('[provider."gmail.com"]\ndomains = ["gmail.com"]')
    assert found.startswith(
        'f:1: warning: [provider."gmail.com"]: a provider\'s name: it looks like a domain'
    )
    assert '[domain."gmail.com"]' in found
    (found,) = findings('[provider.Acme]\ndomains = ["a.example"]')
    assert "lower case letters" in found


def test_operators_provider_may_not_take_the_hosts_of_one_that_ships() -> None:
    found = errors_over_shipped(provider("mine", "*.google.com", "mx.google.com"))
    patterns, samples = line_of('mx = ["*.google.com"'), line_of('mx_samples = ["gmail-smtp-in')
    taken = f"claimed by [provider.gmail] ({patterns}) too"
    assert f"f:3: error: [provider.mine]: the sample 'mx.google.com' is {taken}" in found
    assert {each.partition(": ")[0] for each in found} == {"f:3", samples}
    assert any("'aspmx.l.google.com' is claimed by [provider.mine] (f:2) too" in each for each in found)


def test_operators_provider_may_cut_out_of_one_that_ships() -> None:
    host = "fabrikam-com.mail.protection.outlook.com"
    assert errors_over_shipped(provider("fabrikam", host, host)) == []


def test_operators_patterns_need_samples_that_are_theirs() -> None:
    samples = line_of('mx_samples = ["mx.kpnmail.nl"]')
    found = errors_over_shipped('[provider.kpn]\nmx = ["*.kpn.example"]')
    assert found == [
        "f:2: error: [provider.kpn]: no pattern of mx matches the sample 'mx.kpnmail.nl'"
        f" ({samples}); mx_samples belong here, too"
    ]
