"""What a sender may ask for: text to values and back."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import terms
from engine.core.terms import NO_TERMS, Terms

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@given(TEXT)
def test_xtext_comes_back(text: str) -> None:
    """RFC 3461 4."""
    assert terms.decode_xtext(terms.encode_xtext(text)) == text
    if text and len(terms.encode_xtext(text)) <= terms.MAX_ENVID_CHARACTERS:
        assert terms.parse_envid(terms.encode_xtext(text)) == terms.encode_xtext(text)


@given(st.integers(0, 4_000_000_000))
def test_instant_comes_back(unix: int) -> None:
    assert terms.parse_instant(terms.format_instant(unix)) == unix


@given(st.integers(1, terms.MAX_BY_S), st.sampled_from(["N", "R", "NT", "RT"]))
def test_deliver_by_comes_back(seconds: int, mode: str) -> None:
    """RFC 2852 4."""
    assert terms.parse_by(terms.format_by(seconds, mode)) == (seconds, mode)


@given(TEXT)
def test_anything_else_is_a_value_error(text: str) -> None:
    for parse in (
        terms.parse_notify,
        terms.parse_ret,
        terms.parse_envid,
        terms.parse_orcpt,
        terms.parse_by,
        terms.parse_hold_for,
        terms.parse_instant,
    ):
        assert fault(parse, text).startswith("expected ")


def fault(parse: Callable[[str], object], text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return "expected and found"


def test_notify_has_one_form() -> None:
    assert terms.parse_notify("delay,Success,delay") == "SUCCESS,DELAY"
    assert terms.parse_notify("never") == "NEVER"
    with pytest.raises(ValueError, match="expected NEVER"):
        terms.parse_notify("NEVER,DELAY")


@pytest.mark.parametrize(
    ("notify", "kinds"),
    [
        ("", {"FAILURE"}),
        ("NEVER", set()),
        ("SUCCESS", {"SUCCESS"}),
        ("FAILURE,DELAY", {"FAILURE", "DELAY"}),
    ],
)
def test_who_says_nothing_hears_of_failures(notify: str, kinds: set[str]) -> None:
    """RFC 3461 4.1."""
    asked = Terms(recipients={"a@b.example": (notify, "")})
    assert {kind for kind in ("SUCCESS", "FAILURE", "DELAY") if asked.wants("a@b.example", kind)} == kinds


def test_what_a_recipient_has_of_its_own_outranks_what_all_have() -> None:
    asked = Terms(notify="NEVER", recipients={"a@b.example": ("SUCCESS", "rfc822;x")})
    assert asked.notify_of("a@b.example") == "SUCCESS"
    assert asked.notify_of("other@b.example") == "NEVER"
    assert (asked.orcpt_of("a@b.example"), asked.orcpt_of("other@b.example")) == ("rfc822;x", "")


def test_orcpt_in_utf8_goes_to_ascii_and_is_read_back() -> None:
    """RFC 6533 3: utf-8-addr-unitext, and utf-8-addr-xtext where only ASCII goes."""
    orcpt = terms.parse_orcpt("utf-8;jürgen@x.example")
    assert terms.to_ascii_orcpt(orcpt) == "utf-8;j\\x{FC}rgen@x.example"
    assert terms.decode_orcpt(terms.to_ascii_orcpt(orcpt)) == ("utf-8", "jürgen@x.example")
    assert terms.decode_orcpt("rfc822;a+2Bb@x.example") == ("rfc822", "a+b@x.example")
    assert terms.decode_orcpt("utf-8;a\\x{110000}") == ("utf-8", "a\\x{110000}")


def test_terms_that_older_records_hold_are_read() -> None:
    octets = msgspec.msgpack.encode([True, "id"])
    assert msgspec.msgpack.Decoder(Terms).decode(octets) == Terms(is_utf8=True, envid="id")
    assert msgspec.msgpack.Decoder(Terms).decode(msgspec.msgpack.encode([])) == NO_TERMS


def test_terms_in_a_line_for_people() -> None:
    assert terms.format_terms(None) == ""
    asked = Terms(
        is_utf8=True,
        envid="7",
        ret="FULL",
        notify="DELAY",
        recipients={"a@b.example": ("NEVER", "")},
        deliver_by_at=60.0,
        by_mode="RT",
        hold_until=30.0,
        requires_tls=True,
    )
    assert terms.format_terms(asked) == (
        "SMTPUTF8 ENVID=7 RET=FULL NOTIFY=DELAY BY=1970-01-01T00:01:00Z;RT HOLDUNTIL=1970-01-01T00:00:30Z "
        "REQUIRETLS and of 1 recipients their own"
    )


@pytest.mark.parametrize("text", ["0", "00", "060", "1234567890", "-1", "+1", "1.5", ""])
def test_hold_for_is_one_to_nine_digits_and_not_zero(text: str) -> None:
    """RFC 4865 3: future-release-integer."""
    assert fault(terms.parse_hold_for, text).startswith("expected ")
    assert terms.parse_hold_for("999999999") == 999_999_999


def test_deadline_of_our_own_has_a_mode_that_smtp_does_not_know() -> None:
    """RFC 2852 4: by-mode is N or R."""
    assert terms.parse_deadline("60;e") == (60, "E")
    assert terms.parse_deadline("-5;nt") == (-5, "NT")
    assert fault(terms.parse_by, "60;E").startswith("expected ")
    assert fault(terms.parse_deadline, "0;E").startswith("expected more than 0")
    assert fault(terms.parse_deadline, "60;ET").startswith("expected ")
    assert terms.Terms(deliver_by_at=60.0, by_mode="E").expires_by == 60.0
