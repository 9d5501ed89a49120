"""What is asked of a message, whoever sent it."""

from __future__ import annotations

import pytest

from engine.core.errors import Refused
from engine.smtp.hello import ServerLimits, offered
from engine.smtp.transaction import message_fault, read_mail, read_rcpt, too_large

LIMITS = ServerLimits("mta1.example.net", max_message_bytes=5000)


def test_sound_message_has_no_fault() -> None:
    assert message_fault(b"Subject: x\r\n\r\nbody\r\n", LIMITS) is None


@pytest.mark.parametrize(
    ("message", "enhanced"),
    [(b"a\0b\r\n", "5.6.0"), (b"a\nb\r\n", "5.6.11"), (b"a" * 999 + b"\r\n", "5.6.0")],
)
def test_fault_names_its_enhanced_code(message: bytes, enhanced: str) -> None:
    reply = message_fault(message, LIMITS)
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, enhanced)


def test_too_large_names_the_bound() -> None:
    assert "5000" in too_large(LIMITS).text


def test_plain_mail_has_no_terms_and_asks_no_clock() -> None:
    assert read_mail(b"<a@b.example> SIZE=10", ("SIZE",), LIMITS, lambda: 1.0) == ("a@b.example", None)
    assert read_mail(b"<>", (), LIMITS, _no_clock) == ("", None)


def test_terms_count_from_now() -> None:
    """RFC 2852 4 and RFC 4865 4: seconds from the MAIL command."""
    limits = ServerLimits("mta1.example.net", max_hold_s=100.0)
    _, terms = read_mail(b"<a@b.example> BY=95;R HOLDFOR=90", offered(limits), limits, lambda: 1000.0)
    assert terms is not None
    assert (terms.deliver_by_at, terms.by_mode, terms.hold_until) == (1095.0, "R", 1090.0)
    assert terms.expires_by == 1095.0


@pytest.mark.parametrize("hold", [b"HOLDFOR=101", b"HOLDUNTIL=1970-01-01T00:18:21Z"])
def test_longer_hold_than_offered_is_refused(hold: bytes) -> None:
    """RFC 4865 4."""
    limits = ServerLimits("mta1.example.net", max_hold_s=100.0)
    with pytest.raises(Refused) as refused:
        read_mail(b"<> " + hold, offered(limits), limits, lambda: 1000.0)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (501, "5.5.4")


def test_deadline_before_the_release_is_refused() -> None:
    limits = ServerLimits("mta1.example.net", max_hold_s=100.0)
    with pytest.raises(Refused):
        read_mail(b"<> BY=90;R HOLDFOR=90", offered(limits), limits, lambda: 1000.0)


def test_time_that_has_passed_holds_nothing() -> None:
    limits = ServerLimits("mta1.example.net", max_hold_s=100.0)
    held = read_mail(b"<> HOLDUNTIL=1970-01-01T00:00:00Z", offered(limits), limits, lambda: 1000.0)
    assert held == ("", None)


def test_address_beyond_ascii_needs_its_parameter() -> None:
    """RFC 6531 3.4; the domain becomes A-labels."""
    with pytest.raises(Refused) as refused:
        read_mail("<jü@bücher.example>".encode(), offered(LIMITS), LIMITS, _no_clock)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (553, "5.6.7")
    sender, terms = read_mail("<jü@bücher.example> SMTPUTF8".encode(), offered(LIMITS), LIMITS, lambda: 1.0)
    assert sender == "jü@xn--bcher-kva.example"
    assert terms is not None
    assert terms.is_utf8
    recipient = "<jü@bücher.example> ORCPT=utf-8;jü@x".encode()
    assert read_rcpt(recipient, offered(LIMITS), terms) == (sender, ("", "utf-8;jü@x"))
    with pytest.raises(Refused):
        read_rcpt(recipient, offered(LIMITS), None)


def test_recipient_without_parameters_has_no_terms_of_its_own() -> None:
    assert read_rcpt(b"<a@b.example>", offered(LIMITS), None) == ("a@b.example", None)
    assert read_rcpt(b"<a@b.example> ", offered(LIMITS), None) == ("a@b.example", None)


def _no_clock() -> float:
    raise AssertionError("nobody asked for an instant")
