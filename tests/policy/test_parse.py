from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.errors import ConfigError, Origin
from engine.policy.fold import PolicySet
from engine.policy.parse import parse_policies

DEFAULT = (Path(__file__).parents[2] / "policies" / "default.toml").read_text()
GMAIL = '[provider.gmail]\nmx = ["*.google.com"]\n'


def parse(*texts: str) -> PolicySet:
    return parse_policies(
        [("default.toml", DEFAULT), *((f"f{n}.toml", text) for n, text in enumerate(texts, 1))]
    )


def test_sections_of_several_files_add_up_key_by_key() -> None:
    policies = parse(
        GMAIL + "max_connections = 5\nmax_messages_per_connection = 7",
        "[provider.gmail]\nmax_connections = 6",
    )
    section = policies.layers.base.providers["gmail"]
    assert section.settings["max_connections"] == (6, 6, Origin("f2.toml", 2))
    assert section.settings["max_messages_per_connection"].origin == ("f1.toml", 4)
    assert section.origin == ("f1.toml", 1)


def test_domain_names_are_made_canonical() -> None:
    policies = parse('[domain."Bücher.Example"]\nmax_connections = 1')
    assert list(policies.layers.base.domains) == ["xn--bcher-kva.example"]


@pytest.mark.parametrize(
    ("text", "line", "detail"),
    [
        ("[provder.gmail]", 1, "top level: unknown key 'provder'; did you mean 'provider'?"),
        (
            "[default]\nmax_conections = 1",
            2,
            "[default]: unknown key 'max_conections'; did you mean 'max_connections'?",
        ),
        (
            "[default]\n\nmax_connections = 0",
            3,
            "[default]: key max_connections: expected a whole number from 1 to 100,000, got 0",
        ),
        (
            '[default]\nmax_message_rate = "100 per s"',
            2,
            '[default]: key max_message_rate: expected a rate such as "100/s", "20/30min" or "1,000/h", '
            "or \"unlimited\", got '100 per s'",
        ),
        (
            '[default]\nretry = [\n  "5m",\n  "5 min later",\n]',
            4,
            '[default]: key retry: expected a duration such as "250ms", "90s", "5m", "1h", "4d" '
            "or a number of seconds, got '5 min later'",
        ),
        (
            "[provider.gmial]\nmax_connections = 1",
            1,
            "[provider.gmial]: neither mx nor domains: nothing can match it",
        ),
        (
            '[provider.other]\nmx = ["a.example"]',
            1,
            "[provider]: key other: expected a name that is not 'other', which metrics use, got 'other'",
        ),
        (
            "[domain.gmail.com]\nmax_connections = 1",
            1,
            "[domain.gmail]: unknown section 'com'; a name with dots stands in quotes: \"gmail.com\"",
        ),
        (
            '[vmta."acme-1".default]\ntls_certificate = "/etc/mailrail/a.pem"',
            2,
            "[vmta.acme-1.default]: tls_certificate and tls_key stand together, in one section; ",
        ),
        (
            '[default]\ntls_certificate = ""\ntls_key = "/etc/mailrail/a.key"',
            2,
            "[default]: tls_certificate and tls_key stand together, in one section; ",
        ),
        (
            '[domain."a b"]\nmax_connections = 1',
            1,
            "[domain]: key a b: expected a domain name such as \"mta1.example.net\", got 'a b'",
        ),
        (
            '[domain."a.example"]\nmx = ["b.example"]',
            2,
            "[domain.\"a.example\"]: unknown key 'mx'; known: ",
        ),
        (
            '[customer."acme"]\nmax_connections = 1',
            2,
            "[customer.acme]: unknown key 'max_connections'; "
            'settings stand below [customer.acme.default], ...provider.NAME or ...domain."NAME"',
        ),
        (
            '[customer."acme".provider.gmial]\nmax_connections = 1',
            1,
            "[customer.acme.provider.gmial]: there is no provider 'gmial'; did you mean 'gmail'?",
        ),
        (
            '[vmta."acme-1".default]\nexpire_after = "1d"',
            2,
            "[vmta.acme-1.default]: key expire_after: "
            "belongs to the message, which has no vmta while it waits; set it for a customer or a domain",
        ),
        (
            '[customer.acme.provider.gmail]\nmx = ["b.example"]',
            2,
            "[customer.acme.provider.gmail]: unknown key 'mx'; known: ",
        ),
        ("default = 1", 1, "[default]: expected a table, got 1"),
        ("[provider]\ngmail = 1", 2, "[provider.gmail]: expected a table, got 1"),
        ("vmta = 1", 1, "[vmta]: expected a table, got 1"),
        ("[default]\non_reply = 1", 2, "[default.on_reply]: expected [[...on_reply]], got 1"),
        ("[default", 1, "not valid TOML: "),
    ],
)
def test_wrong_policy_is_named_with_its_line(text: str, line: int, detail: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(GMAIL, text)
    assert caught.value.origin == ("f2.toml", line)
    assert caught.value.detail.startswith(detail)


def test_every_key_needs_a_default() -> None:
    with pytest.raises(ConfigError, match=r"d\.toml:1: \[default\]: key max_connections is missing"):
        parse_policies([("d.toml", "[default]\nport = 25")])
    with pytest.raises(ConfigError, match="key max_connections is missing"):
        parse_policies([])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('[domain."A.Test"]', '[domain."a.test"]'),
        ('[domain."bücher.example"]', '[domain."xn--bcher-kva.example"]'),
        ('[customer.acme.domain."A.Test"]', '[customer.acme.domain."a.test"]'),
    ],
)
def test_two_spellings_of_a_domain_in_one_file_are_a_slip(first: str, second: str) -> None:
    body = "\nmax_connections = 1\n"
    with pytest.raises(ConfigError) as caught:
        parse(first + body + second + body)
    assert str(caught.value) == f"f1.toml:3: {second}: the file has {first} already, in line 1"
    parse(first + body, second + body)  # a later file adds to the section, whichever way it writes it
