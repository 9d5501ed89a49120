"""MAIL and RCPT lines."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Refused
from engine.smtp.command import parse_mail_parameters, parse_path


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"<a@B.Example>", ("a@b.example", b"")),
        (b" <a@b.example>", ("a@b.example", b"")),
        (b"<a@b.example> SIZE=1", ("a@b.example", b" SIZE=1")),
        (b"<>", ("", b"")),
        (b"<> BODY=7BIT", ("", b" BODY=7BIT")),
        (b'<"a>b"@x.example> SIZE=1', ('"a>b"@x.example', b" SIZE=1")),
        (b'<"a\\">b"@x.example>', ('"a\\">b"@x.example', b"")),
        (b"<@relay.example,@other.example:a@b.example>", ("a@b.example", b"")),
        (b"<a@[192.0.2.1]>", ("a@[192.0.2.1]", b"")),
    ],
)
def test_path(rest: bytes, expected: tuple[str, bytes]) -> None:
    """RFC 5321 section 4.1.2."""
    assert parse_path(rest, is_sender=True) == expected


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (b"", 501),
        (b"a@b.example", 501),
        (b"<a@b.example", 501),
        (b"<a@b.example>SIZE=1", 501),
        (b"<a@b.example>>", 501),
        (b"<a b@x.example>", 501),
        (b'<"a>@x.example>', 501),
        (b"<<a@b.example>>", 501),
        (b"<a>", 501),
        (b"<\xc3\xa4@x.example>", 553),
        (b"<a@b.example\x00>", 501),
        (b"<@relay.example>", 501),
    ],
)
def test_bad_path(rest: bytes, code: int) -> None:
    """RFC 5321 section 4.1.2."""
    with pytest.raises(Refused) as refused:
        parse_path(rest, is_sender=False)
    assert refused.value.reply.code == code


def test_null_path_is_no_recipient_and_postmaster_needs_no_domain() -> None:
    """RFC 5321 section 4.5.1."""
    with pytest.raises(Refused):
        parse_path(b"<>", is_sender=False)
    with pytest.raises(Refused):
        parse_path(b"<postmaster>", is_sender=True)
    assert parse_path(b"<PostMaster>", is_sender=False) == ("postmaster", b"")


def test_parameters() -> None:
    assert parse_mail_parameters(b"") == 0
    assert parse_mail_parameters(b" size=10  body=8bitmime") == 10


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b" SIZE", 501),
        (b" SIZE=", 501),
        (b" SIZE=x", 501),
        (b" SIZE=-1", 501),
        (b" SIZE=" + b"9" * 21, 501),
        (b" SIZE=1 SIZE=2", 501),
        (b" BODY=BINARYMIME", 501),
        (b" BODY=", 501),
        (b" AUTH=<>", 555),
        (b" SMTPUTF8", 555),
        (b" RET=HDRS", 555),
    ],
)
def test_bad_parameters(octets: bytes, code: int) -> None:
    """RFC 5321 section 4.1.1.11."""
    with pytest.raises(Refused) as refused:
        parse_mail_parameters(octets)
    assert refused.value.reply.code == code


@given(st.binary(max_size=60), st.booleans())
def test_nothing_but_refused_escapes(octets: bytes, is_sender: bool) -> None:
    for rest in (octets, b"<" + octets + b">"):
        with contextlib.suppress(Refused):
            address, parameters = parse_path(rest, is_sender=is_sender)
            assert address.isascii()
            assert address.isprintable()
            parse_mail_parameters(parameters)
