from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from engine.cli.configuration import load_settings
from engine.cli.send import Letter, SendError, find_listener, make_message, send_letter
from engine.core.errors import ConfigError

PORT = 21712


class Taker:
    """Takes mail for everybody but nobody@."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.taken.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 2.0.0 taken as 1a2b"


@pytest.fixture
def taker() -> Iterator[Taker]:
    handler = Taker()
    controller = Controller(handler, hostname="127.0.0.1", port=PORT)
    controller.start()
    yield handler
    controller.stop()


def test_addresses_in_utf8_go_by_smtputf8(taker: Taker) -> None:
    message = make_message("jürgen@b.example", ["jörg@d.example"], "Grüße", "hello\n")
    send_letter("127.0.0.1", PORT, Letter("jürgen@b.example", ["jörg@d.example"], message))
    sender, recipients, content = taker.taken[0]
    assert (sender, recipients) == ("jürgen@b.example", ["jörg@d.example"])
    assert "From: jürgen@b.example\r\n".encode() in content


def test_letter_is_taken_and_the_reply_shown(taker: Taker) -> None:
    message = make_message("a@b.example", ["u@d.example"], "Grüße", "hello\n")
    answer = send_letter("127.0.0.1", PORT, Letter("a@b.example", ["u@d.example"], message))
    assert answer == {"reply": "2.0.0 taken as 1a2b", "refused": {}, "listener": f"127.0.0.1:{PORT}"}
    sender, recipients, content = taker.taken[0]
    assert (sender, recipients) == ("a@b.example", ["u@d.example"])
    assert message_from_bytes(content)["Message-ID"].endswith("@b.example>")


def test_one_refused_recipient_is_told(taker: Taker) -> None:
    recipients = ["nobody@d.example", "u@d.example"]
    answer = send_letter("127.0.0.1", PORT, Letter("a@b.example", recipients, b"Subject: s\r\n\r\nx\r\n"))
    assert answer["refused"] == {"nobody@d.example": "550 5.1.1 unknown"}


def test_letter_refused_for_all_is_an_error(taker: Taker) -> None:
    with pytest.raises(SendError, match=r"nobody@d\.example: 550 5\.1\.1 unknown"):
        send_letter("127.0.0.1", PORT, Letter("a@b.example", ["nobody@d.example"], b"\r\nx\r\n"))


def test_listener_is_found_by_name_or_is_the_first(config: str) -> None:
    settings = load_settings(config)
    name = settings.listeners[0].name
    assert find_listener(settings, config, "") == ("127.0.0.1", 21710)
    assert find_listener(settings, config, name) == ("127.0.0.1", 21710)
    with pytest.raises(ConfigError, match=f"no SMTP listener 'other'; there are: {name}"):
        find_listener(settings, config, "other")
