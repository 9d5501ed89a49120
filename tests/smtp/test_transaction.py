"""What is asked of a message, whoever sent it."""

from __future__ import annotations

import pytest

from engine.smtp.hello import ServerLimits
from engine.smtp.transaction import message_fault, too_large

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
