"""Mailboxes, domains, patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.address import (
    as_literal,
    domain_of,
    literal_address,
    matches_sender,
    parse_domain,
    parse_ip,
    parse_mailbox,
    parse_network,
    pattern_matches,
)

GOOD = [
    ("a@b.example", "a@b.example"),
    ("A.b+c=d@B.Example", "A.b+c=d@b.example"),
    ("a@localhost", "a@localhost"),
    ("a@x_y.example", "a@x_y.example"),
    ('"a b"@x.example', '"a b"@x.example'),
    ('"a@b"@x.example', '"a@b"@x.example'),
    ('"a\\"b"@x.example', '"a\\"b"@x.example'),
    ('""@x.example', '""@x.example'),
    ('"plain"@x.example', "plain@x.example"),
    ("a@[192.0.2.1]", "a@[192.0.2.1]"),
    ("a@[IPv6:2001:DB8::1]", "a@[IPv6:2001:db8::1]"),
    ("a@[ipv6:2001:db8:0:0::1]", "a@[IPv6:2001:db8::1]"),
    ("a@bücher.example", "a@xn--bcher-kva.example"),
    ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
    ("x" * 200 + "@verp.example", "x" * 200 + "@verp.example"),
]

BAD = [
    "",
    "a",
    "@x.example",
    "a@",
    "a@@x.example",
    ".a@x.example",
    "a.@x.example",
    "a..b@x.example",
    "a b@x.example",
    "a@x..example",
    "a@x.example.",
    "a@-x.example",
    "a@x-.example",
    "a@x y",
    'a"b@x.example',
    '"a"b"@x.example',
    '"a\\"@x.example',
    '"a\r\nb"@x.example',
    "a\n@x.example",
    "a@x.example\n",
    "a@x.example\r\nRSET",
    "a>@x.example",
    "a@[192.0.2.256]",
    "a@[192.0.2.1",
    "a@[IPv6:zz]",
    "a@[IPv6:192.0.2.1]",
    "a@[fe80::1%eth0]",
    "ä@x.example",
    "a@" + "x" * 64 + ".example",
    "x" * 250 + "@x.example",
    "a@\u2024x",
    "a@\ud800.example",
]


@pytest.mark.parametrize(("text", "normal"), GOOD)
def test_mailbox_has_one_normal_form(text: str, normal: str) -> None:
    assert str(parse_mailbox(text)) == normal
    assert str(parse_mailbox(normal)) == normal


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_mailbox_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_mailbox(text)


@given(st.text(max_size=40) | st.from_regex(r"[a-z\".@\[\]:\\ ü-]{1,30}", fullmatch=True))
def test_mailbox_raises_only_value_error_and_never_injects(text: str) -> None:
    try:
        mailbox = parse_mailbox(text)
    except ValueError:
        return
    normal = str(mailbox)
    assert normal.isascii()
    assert normal.isprintable()
    assert parse_mailbox(normal) == mailbox
    assert domain_of(normal) == mailbox.domain


def test_scope_ids_are_no_literals() -> None:
    with pytest.raises(ValueError, match="literal"):
        parse_domain("[IPv6:fe80::1%eth0]")


def test_domain_of() -> None:
    assert domain_of("a@b.example") == "b.example"
    assert domain_of('"a@b"@c.example') == "c.example"
    assert domain_of("") == ""


def test_literal_address() -> None:
    assert literal_address("[192.0.2.1]") == "192.0.2.1"
    assert literal_address("[IPv6:2001:db8::1]") == "2001:db8::1"
    assert literal_address("x.example") == ""


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "x.example", True),
        ("x.example", "x.example", True),
        ("x.example", "y.x.example", False),
        ("*.example", "x.example", True),
        ("*.example", "y.x.example", True),
        ("*.example", "example", False),
        ("*.example", ".example", False),
        ("*.example", "xexample", False),
    ],
)
def test_pattern_matches(pattern: str, name: str, expected: bool) -> None:
    assert pattern_matches(pattern, name) is expected


@pytest.mark.parametrize(
    ("pattern", "address", "expected"),
    [
        ("*@acme.example", "news@acme.example", True),
        ("*@acme.example", "news@mail.acme.example", False),
        ("*@*.acme.example", "news@mail.acme.example", True),
        ("*@ACME.example", "news@acme.example", True),
        ("News@acme.example", "news@acme.example", True),
        ("news@acme.example", "other@acme.example", False),
        ("acme.example", "news@acme.example", True),
        ("*@acme.example", "", False),
        ("*", "", True),
        ("*@acme.example", '"x@acme.example"@evil.example', False),
    ],
)
def test_matches_sender(pattern: str, address: str, expected: bool) -> None:
    assert matches_sender(pattern, address) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jürgen@bücher.example", "jürgen@xn--bcher-kva.example"),
        ("用户@例子.example", "用户@xn--fsqu00a.example"),
        ('"ü b"@x.example', '"ü b"@x.example'),
        ("a.ü@x.example", "a.ü@x.example"),
        ("plain@Bücher.Example", "plain@xn--bcher-kva.example"),
    ],
)
def test_local_part_may_be_utf8_where_that_is_allowed(text: str, expected: str) -> None:
    """RFC 6531 3.3; the domain comes out as A-labels (RFC 5890)."""
    assert str(parse_mailbox(text, allow_utf8=True)) == expected


@pytest.mark.parametrize(
    "text", ["ü ü@x.example", "ü..ü@x.example", "ü\u0085@x.example", "ü\u2028@x.example"]
)
def test_local_part_in_utf8_is_atoms_and_printable(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_mailbox(text, allow_utf8=True)


def test_local_part_in_utf8_is_refused_where_it_is_not_allowed() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        parse_mailbox("jürgen@x.example")


def test_ipv4_inside_ipv6_is_that_ipv4_address():
    """RFC 4291 section 2.5.5.2."""
    assert parse_ip("::ffff:192.0.2.1") == parse_ip("::ffff:c000:201") == parse_ip("192.0.2.1")
    assert str(parse_ip("2001:db8::1")) == "2001:db8::1"
    assert parse_network("::ffff:192.0.2.0/120") == parse_network("192.0.2.0/24")
    assert str(parse_network("::ffff:0:0/96")) == "0.0.0.0/0"
    assert str(parse_network("::/0")) == "::/0"
    assert literal_address("[IPv6:::ffff:c000:201]") == "192.0.2.1"


def test_address_is_a_literal_and_a_name_is_itself():
    """RFC 5321 section 4.1.3."""
    assert [as_literal(host) for host in ("192.0.2.1", "2001:db8::1", "mx.example", "[192.0.2.1]")] == [
        "[192.0.2.1]",
        "[IPv6:2001:db8::1]",
        "mx.example",
        "[192.0.2.1]",
    ]
