"""What the reply to EHLO offers."""

from __future__ import annotations

from engine.smtp.hello import ServerLimits, format_hello

LIMITS = ServerLimits("mta1.example.net", max_message_bytes=5000)


def test_ehlo_offers_extensions_one_a_line() -> None:
    reply = format_hello(LIMITS, is_esmtp=True).decode().splitlines()
    assert reply[0] == "250-mta1.example.net"
    assert "250-SIZE 5000" in reply


def test_helo_offers_nothing() -> None:
    assert format_hello(LIMITS, is_esmtp=False) == b"250 mta1.example.net\r\n"
