from __future__ import annotations

from typing import Any

import pytest

from engine.core import fields
from engine.core.document import Document
from engine.core.errors import ConfigError
from engine.core.fields import Field, Parser, describe, read_table, suggest
from engine.core.units import Rate

FIELDS = {
    "max_connections": Field("max_connections", fields.whole(1, 1000)),
    "retry": Field("retry_s", fields.many(fields.duration(1, 3600), 1, 3)),
    "name": Field("name", fields.name, required=True),
}


def read(text: str) -> dict[str, Any]:
    document = Document("f.toml", text)
    return read_table(document, ("default",), document.table.get("default", {}), FIELDS)


def test_table_becomes_parsed_attributes() -> None:
    assert read('[default]\nname = "a"\nretry = ["5m", 7]') == {"name": "a", "retry_s": (300.0, 7.0)}


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("max_conections = 1", 3, "unknown key 'max_conections'; did you mean 'max_connections'?"),
        ("zzz = 1", 3, "unknown key 'zzz'; known: max_connections, name, retry"),
        ("max_connections = 0", 3, "key max_connections: expected a whole number from 1 to 1,000, got 0"),
        (
            "max_connections = true",
            3,
            "key max_connections: expected a whole number from 1 to 1,000, got true",
        ),
        ('retry = [\n"5m",\n"2h",\n]', 5, "key retry: expected a duration from 1s to 1h, got '2h'"),
        ("retry = []", 3, "key retry: expected a list of 1 to 3 items, got []"),
    ],
)
def test_error_names_file_line_key_and_what_was_expected(body: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f'[default]\nname = "a"\n{body}')
    assert str(caught.value) == f"f.toml:{line}: [default]: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[default]", "f.toml:1: [default]: key name is missing"),
        ("default = 5", "f.toml:1: [default]: expected a table, got 5"),
    ],
)
def test_table_that_is_absent_or_none_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("parse", "raw", "value"),
    [
        (fields.text, "a b", "a b"),
        (fields.boolean, False, False),
        (fields.hostname, "Mail.Example.NET.", "mail.example.net"),
        (fields.hostname, "bücher.example", "xn--bcher-kva.example"),
        (fields.pattern, "*.Example.com", "*.example.com"),
        (fields.absolute_path, "/var/spool/", "/var/spool"),
        (fields.absolute_path, "/", "/"),
        (fields.path, "policies/", "policies"),
        (fields.path, "/etc/policies", "/etc/policies"),
        (fields.address, "2001:DB8:0::1", "2001:db8::1"),
        (fields.network, "192.0.2.1", "192.0.2.1/32"),
        (fields.size(0, 100), "50B", 50),
        (fields.rate(100, 60), "10/s", Rate(10, 1.0)),
        (fields.rate(100, 60), "unlimited", None),
        (fields.choice("a", "b"), "b", "b"),
        (fields.one_or_many(fields.address, 2), "192.0.2.1", ("192.0.2.1",)),
        (fields.one_or_many(fields.address, 2), ["192.0.2.1"], ("192.0.2.1",)),
    ],
)
def test_value_is_parsed_to_its_canonical_form(parse: Parser, raw: object, value: object) -> None:
    assert parse(raw) == value


OUT_OF_RANGE = [
    (fields.text, ["", "a\r\nb"]),
    (fields.boolean, [1]),
    (fields.name, ["-a", "a/b", "a" * 64]),
    (
        fields.hostname,
        [
            "192.0.2.1",
            "a..b",
            "*.example",
            "a" * 64 + ".example",
            ".".join(["abc"] * 70),
            "mail.example.net\n",
            5,
        ],
    ),
    (fields.pattern, ["*", "mx*.example", 5]),
    (fields.absolute_path, ["spool", "/a\0b"]),
    (fields.path, ["", "a\0b", 5]),
    (fields.address, ["192.0.2.256", 5]),
    (fields.network, ["192.0.2.1/24", "nowhere"]),
    (fields.size(0, 100), ["1kB"]),
    (fields.rate(100, 60), ["101/s", "5/2min", 5]),
    (fields.choice("sync", "async"), ["synk", 1]),
    (fields.one_or_many(fields.address, 2), [["a"] * 3]),
]


@pytest.mark.parametrize(("parse", "raw"), [(parse, raw) for parse, raws in OUT_OF_RANGE for raw in raws])
def test_value_out_of_range_says_what_was_expected(parse: Parser, raw: object) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        parse(raw)


def test_wrong_choice_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'sync'"):
        fields.choice("sync", "async")("synk")


def test_suggestion_lists_what_there_is_when_nothing_is_near() -> None:
    assert suggest("x", ["gmail", "yahoo"]) == "known: gmail, yahoo"
    assert suggest("x", []) == "none is defined"


def test_path_is_described_as_the_file_has_it() -> None:
    assert describe(("vmta", "a.b", "provider", "gmail")) == '[vmta."a.b".provider.gmail]'
    assert describe(("customer", 1, "dkim", 0)) == "[[customer.dkim]] number 1"
    assert describe(()) == "top level"


def test_long_values_are_shortened_in_errors() -> None:
    assert len(fields.show("x" * 1000)) < 100
