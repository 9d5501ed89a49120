"""XCLIENT's attributes."""

from __future__ import annotations

import pytest

from engine.core.errors import Refused
from engine.smtp.xclient import Attributes, parse_xclient


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            b"NAME=client.example ADDR=192.0.2.9 PORT=4000 PROTO=esmtp HELO=client.example LOGIN=ann+40x",
            Attributes("client.example", "192.0.2.9", "4000", "ESMTP", "client.example", "ann@x"),
        ),
        (b"addr=IPV6:2001:DB8::1", Attributes(addr="2001:db8::1")),
        (b"ADDR=::ffff:192.0.2.9", Attributes(addr="192.0.2.9")),
        (b"NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL] LOGIN=", Attributes()),
        (b"LOGIN=J+C3+B6rg+20x", Attributes(login="Jörg x")),
    ],
)
def test_attributes_are_read(rest: bytes, expected: Attributes) -> None:
    assert parse_xclient(rest) == expected


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"ADDR",
        b"NICK=x",
        b"ADDR=1.2.3",
        b"ADDR=IPV6:1.2.3.4",
        b"ADDR=192.0.2.1 addr=192.0.2.2",
        b"PORT=65536",
        b"PORT=x",
        b"PROTO=HTTP",
        b"HELO=a+0D+0Ab",
        b"HELO=a(b",
        b"NAME=\xff\xff",
        b"LOGIN=" + b"a" * 256,
        b"LOGIN=a+00",
    ],
)
def test_wrong_attributes_are_refused(rest: bytes) -> None:
    with pytest.raises(Refused, match="501 5\\.5\\.4"):
        parse_xclient(rest)
