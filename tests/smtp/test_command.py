"""MAIL and RCPT lines."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Refused
from engine.smtp.command import (
    NO_MAIL_PARAMETERS,
    NO_RCPT_PARAMETERS,
    parse_mail_parameters,
    parse_path,
    parse_rcpt_parameters,
)
from engine.smtp.hello import ServerLimits, offered

PLAIN = ("SIZE", "8BITMIME")
ALL = offered(ServerLimits("mta.example", max_hold_s=60.0), is_tls=True)


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
        (b"<j\xc3\xbc@b\xc3\xbccher.example>", ("j\u00fc@xn--bcher-kva.example", b"")),
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
        (b"<\xc3@x.example>", 553),
        (b"<\xc2\x85@x.example>", 501),
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
    assert parse_mail_parameters(b"", PLAIN) is NO_MAIL_PARAMETERS
    assert parse_mail_parameters(b" size=10  body=8bitmime", PLAIN).size == 10


def test_every_parameter_of_mail_is_read_where_its_extension_is_offered() -> None:
    """RFC 3461 4.3 and 4.4, RFC 2852 4, RFC 4865 4, RFC 6531 3.4, RFC 8689 2."""
    octets = b" SMTPUTF8 RET=hdrs ENVID=a+2Bb BY=120;rt HOLDFOR=60 REQUIRETLS SIZE=7 BODY=7BIT"
    parameters = parse_mail_parameters(octets, ALL)
    assert parameters.is_utf8
    assert (parameters.ret, parameters.envid) == ("HDRS", "a+2Bb")
    assert (parameters.by, parameters.hold_for) == ((120, "RT"), 60)
    assert parameters.requires_tls
    until = parse_mail_parameters(b" HOLDUNTIL=1970-01-01T00:01:00Z", ALL)
    assert until.hold_until == 60.0


def test_parameters_of_rcpt() -> None:
    """RFC 3461 4.1 and 4.2."""
    assert parse_rcpt_parameters(b" ", ALL) is NO_RCPT_PARAMETERS
    parameters = parse_rcpt_parameters(b" NOTIFY=delay,success ORCPT=rfc822;ann+40x.example", ALL)
    assert (parameters.notify, parameters.orcpt) == ("SUCCESS,DELAY", "rfc822;ann+40x.example")


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b" NOTIFY=NEVER,SUCCESS", 501),
        (b" NOTIFY=", 501),
        (b" NOTIFY", 501),
        (b" ORCPT=ann@x.example", 501),
        (b" ORCPT=rfc822;", 501),
        (b" ORCPT=rfc822;a=b", 501),
        (b" ORCPT=rfc822;" + b"a" * 500, 501),
        (b" ORCPT=rfc822;a+4g", 501),
        (b" NOTIFY=NEVER NOTIFY=NEVER", 501),
        (b" SIZE=1", 555),
        (b" X", 555),
    ],
)
def test_bad_parameters_of_rcpt(octets: bytes, code: int) -> None:
    with pytest.raises(Refused) as refused:
        parse_rcpt_parameters(octets, ALL)
    assert refused.value.reply.code == code


@pytest.mark.parametrize(
    "octets",
    [
        b" RET=ALL",
        b" ENVID=",
        b" ENVID=a=b",
        b" ENVID=" + b"a" * 101,
        b" BY=0;R",
        b" BY=-5;R",
        b" BY=1",
        b" BY=1234567890;N",
        b" HOLDFOR=-1",
        b" HOLDFOR=1234567890",
        b" HOLDUNTIL=tomorrow",
        b" HOLDUNTIL=2026-13-01T00:00:00Z",
        b" HOLDFOR=1 HOLDUNTIL=2026-12-01T00:00:00Z",
        b" SMTPUTF8=yes",
        b" REQUIRETLS=",
        b" ENVID=\xff",
    ],
)
def test_bad_values_of_mail_parameters(octets: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_mail_parameters(octets, ALL)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (501, "5.5.4")


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
        parse_mail_parameters(octets, PLAIN)
    assert refused.value.reply.code == code


@given(st.binary(max_size=60), st.booleans())
def test_nothing_but_refused_escapes(octets: bytes, is_sender: bool) -> None:
    for rest in (octets, b"<" + octets + b">"):
        with contextlib.suppress(Refused):
            address, parameters = parse_path(rest, is_sender=is_sender)
            assert address.isprintable()
            parse_mail_parameters(parameters, ALL)
