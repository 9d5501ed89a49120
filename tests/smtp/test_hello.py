"""What the reply to EHLO offers."""

from __future__ import annotations

import pytest

from engine.core.errors import Refused
from engine.smtp.hello import ServerLimits, format_hello, offered, parse_name

LIMITS = ServerLimits("mta1.example.net", max_message_bytes=5000)


def test_ehlo_offers_extensions_one_a_line() -> None:
    reply = format_hello(LIMITS, is_esmtp=True).decode().splitlines()
    assert reply[0] == "250-mta1.example.net"
    assert "250-SIZE 5000" in reply


def test_helo_offers_nothing() -> None:
    assert format_hello(LIMITS, is_esmtp=False) == b"250 mta1.example.net\r\n"


def test_future_release_is_offered_with_its_bounds() -> None:
    """RFC 4865 3: the longest interval, and the latest date, in seconds and UTC."""
    limits = ServerLimits("mta1.example.net", max_hold_s=3600.0)
    lines = format_hello(limits, is_esmtp=True, unix_now=0.0).decode().splitlines()
    assert "250 FUTURERELEASE 3600 1970-01-01T01:00:00Z" in lines
    assert "FUTURERELEASE" not in offered(LIMITS)


def test_requiretls_is_offered_only_under_tls() -> None:
    """RFC 8689 2."""
    assert "REQUIRETLS" in offered(LIMITS, is_tls=True)
    assert "REQUIRETLS" not in offered(LIMITS)


def test_binarymime_is_not_offered() -> None:
    assert "BINARYMIME" not in offered(LIMITS, is_tls=True)


@pytest.mark.parametrize("octets", [b"", b" ", b"a b", b"a(b", b"\xc3\xb6", b"x" * 256, b"a\x7f"])
def test_name_that_could_not_stand_in_received_is_refused(octets: bytes) -> None:
    """RFC 5321 4.1.1.1, 4.4."""
    with pytest.raises(Refused, match=r"501 5\.5\.4"):
        parse_name(octets)
    assert parse_name(b" client.example ") == "client.example"
