"""Commands that are none of ours, and clients that speak no SMTP."""

from __future__ import annotations

import pytest

from engine.smtp.hello import ServerLimits
from engine.smtp.server import ServerConversation
from engine.smtp.strangers import is_stranger, unknown


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"get / HTTP/1.0",
        b"PRI * HTTP/2.0",
        b"SSH-2.0-OpenSSH_9.2p1",
        b"Host: mta1.example.net",
        b"User-Agent: x",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25",
        b"\x16\x03\x01\x02",
    ],
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_clients_of_other_protocols_are_sent_away(line, end):
    """RFC 5321 section 7.8: HTTP/2, SSH and fields of an HTTP header as well."""
    assert is_stranger(line)
    conversation = ServerConversation(ServerLimits("mta1.example.net"))
    said = conversation.receive(line + end + b"EHLO x\r\n")
    assert said == b"521 5.5.1 This is a mail server\r\n"
    assert conversation.is_closing


@pytest.mark.parametrize("line", [b"MAIL FROM:<a@x.example>", b"FOO", b"", b"HELLO there:", b"GETS"])
def test_a_command_that_is_merely_wrong_is_no_stranger(line):
    assert not is_stranger(line)


@pytest.mark.parametrize(
    ("line", "code"), [(b"EXPN list", 502), (b"etrn x", 502), (b"TURN", 502), (b"EXPNX", 500), (b"FOO", 500)]
)
def test_commands_that_are_known_and_not_for_us_are_not_implemented(line, code):
    """RFC 5321 section 4.2.4: 502, and 500 for what is not known."""
    assert unknown(line).code == code
