"""Address lists of header fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.message.addresses import parse_addresses


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("a@b.example", ["a@b.example"]),
        ("<a@b.example>", ["a@b.example"]),
        ("Ann <a@b.example>, bob@c.example", ["a@b.example", "bob@c.example"]),
        ('"Doe, John <x@evil.example>" <a@b.example>', ["a@b.example"]),
        ('"quoted part"@b.example', ['"quoted part"@b.example']),
        ("a@b.example (Ann, of <c@d.example> (nested))", ["a@b.example"]),
        ("(comment \\) still) a@b.example", ["a@b.example"]),
        ("undisclosed-recipients:;", []),
        ("Team: a@b.example, Cy <c@d.example>;, e@f.example", ["a@b.example", "c@d.example", "e@f.example"]),
        ("<@relay.example:a@b.example>", ["a@b.example"]),
        ("a@[IPv6:2001:db8::1]", ["a@[IPv6:2001:db8::1]"]),
        ("=?utf-8?q?J=C3=BCrgen?= <j@b.example>", ["j@b.example"]),
        (",, a@b.example ,", ["a@b.example"]),
        ("<>", [""]),
        ("not an address", ["not an address"]),
        ("a@b.example c@d.example", ["a@b.example c@d.example"]),
        ('"open', ['"open']),
        ("<open", ["<open"]),
    ],
)
def test_addresses_of_a_list(value: str, expected: list[str]) -> None:
    assert parse_addresses(value) == expected


@given(st.text(max_size=60) | st.text(alphabet='a@<>()",:;\\[] .', max_size=30))
def test_nothing_raises(value: str) -> None:
    assert all(isinstance(address, str) for address in parse_addresses(value))


@pytest.mark.parametrize("junk", ["<", '"', "[", "\\", '"\\"', "<a", "[a", '"a'])
def test_long_garbage_comes_back_as_it_stands(junk: str) -> None:
    value = junk * 100_001
    assert parse_addresses(value) == [value]


def test_a_comment_that_never_ends_is_no_address() -> None:
    assert parse_addresses("a@b.example " + "(" * 100_000) == ["a@b.example"]
