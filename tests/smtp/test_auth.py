"""AUTH: what clients say, in the order of RFC 4954."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Refused
from engine.smtp.auth import MAX_PART_BYTES, Credentials, Exchange, decode, parse_plain

ANN = Credentials("ann", b"pass word")


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def refusal(step: object, *arguments: bytes) -> str:
    with pytest.raises(Refused) as caught:
        step(*arguments)  # type: ignore[operator]
    return f"{caught.value.reply.code} {caught.value.reply.enhanced}"


def test_plain_with_an_initial_response() -> None:
    """RFC 4616 2, RFC 4954 4."""
    assert Exchange("PLAIN").begin(b64(b"\0ann\0pass word")) == ANN
    assert Exchange("PLAIN").begin(b64(b"ann\0ann\0pass word")) == ANN


def test_plain_without_one_gets_an_empty_challenge() -> None:
    """RFC 4954 4: a 334 with nothing behind it but a space."""
    exchange = Exchange("PLAIN")
    assert exchange.begin(b"") == b"334 \r\n"
    assert exchange.respond(b64(b"\0ann\0pass word")) == ANN


def test_login_asks_for_both() -> None:
    exchange = Exchange("LOGIN")
    assert exchange.begin(b"") == b"334 VXNlcm5hbWU6\r\n"
    assert exchange.respond(b64(b"ann")) == b"334 UGFzc3dvcmQ6\r\n"
    assert exchange.respond(b64(b"pass word")) == ANN


def test_login_takes_the_name_as_initial_response() -> None:
    exchange = Exchange("LOGIN")
    assert exchange.begin(b64(b"ann")) == b"334 UGFzc3dvcmQ6\r\n"
    assert exchange.respond(b64(b"pass word")) == ANN


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_client_may_cancel(mechanism: str) -> None:
    """RFC 4954 4: "*" cancels, and the server MUST say 501."""
    exchange = Exchange(mechanism)
    exchange.begin(b"")
    assert refusal(exchange.respond, b"*") == "501 5.7.0"


def test_equals_sign_is_an_empty_initial_response() -> None:
    """RFC 4954 4: not an empty string, which would be none."""
    assert refusal(Exchange("PLAIN").begin, b"=") == "501 5.5.2"


@pytest.mark.parametrize("line", [b"YQ", b"Y Q=", b"Y\xffQ=", b"YQ==YQ==", b"=YQ=", b"YQ=\t="])
def test_bad_base64_is_refused(line: bytes) -> None:
    """RFC 4954 4: 501 where the response can't be decoded."""
    assert refusal(decode, line) == "501 5.5.2"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"", "501 5.5.2"),
        (b"\0ann", "501 5.5.2"),
        (b"\0\0pass", "501 5.5.2"),
        (b"\0ann\0", "501 5.5.2"),
        (b"\0ann\0pass\0more", "501 5.5.2"),
        (b"\0ann\xff\0pass", "501 5.5.2"),
        (b"\0a\nnn\0pass", "501 5.5.2"),
        (b"\0" + b"a" * (MAX_PART_BYTES + 1) + b"\0pass", "501 5.5.2"),
        (b"\0ann\0" + b"p" * (MAX_PART_BYTES + 1), "501 5.5.2"),
        (b"bob\0ann\0pass", "535 5.7.8"),
    ],
)
def test_plain_that_says_no_credentials_is_refused(response: bytes, expected: str) -> None:
    """RFC 4616 2: 1 to 255 octets each; nobody may act as somebody else here."""
    assert refusal(parse_plain, response) == expected


def test_unknown_mechanism_is_504() -> None:
    """RFC 4954 4."""
    assert refusal(Exchange, "CRAM-MD5") == "504 5.5.4"  # type: ignore[arg-type]


def test_password_is_in_no_representation() -> None:
    assert "pass" not in repr(ANN)


@given(st.sampled_from(["PLAIN", "LOGIN"]), st.lists(st.binary(max_size=400), max_size=4))
def test_whatever_comes_is_answered_or_refused(mechanism: str, lines: list[bytes]) -> None:
    exchange = Exchange(mechanism)
    outcome = exchange.begin(b"")
    for line in lines:
        try:
            outcome = exchange.respond(line)
        except Refused:
            return
        if isinstance(outcome, Credentials):
            return
        assert outcome.startswith(b"334 ")
