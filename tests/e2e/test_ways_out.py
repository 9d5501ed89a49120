"""A whole engine whose mail goes to a mailbox next door, or would come back to itself."""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import UnixSocketController
from aiosmtpd.lmtp import LMTP

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import inject, make_message

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]

Run = Callable[..., EngineProcess]


class Mailboxes:
    """Takes what is for ann, and has no room for bob."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(envelope.content)
        ann, bob = "250 2.1.5 saved", "552 5.2.2 no room"
        return "\r\n".join(ann if to.startswith("ann") else bob for to in envelope.rcpt_tos)


class LMTPController(UnixSocketController):
    def factory(self) -> LMTP:
        return LMTP(self.handler)


def wait_final(engine: EngineProcess, count: int) -> dict[str, dict]:
    """Wait for so many final events; return them by recipient."""

    def final() -> list[dict]:
        found = engine.events_of("delivered", "bounced", "expired")
        return found if len(found) >= count else []

    found = wait_until(final, 15.0, f"{count} final events; the log ends:\n{engine.log_tail()}")
    return {event["recipient"]: event for event in found}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_lmtp_over_a_unix_socket_answers_each_recipient(
    configuration: Configuration, run_engine: Run, tmp_path: Path
) -> None:
    """RFC 2033 section 4.2, from injection to event."""
    path = tmp_path / "lmtp"
    mailboxes = Mailboxes()
    controller = LMTPController(mailboxes, unix_socket=str(path))
    controller.start()
    try:
        configuration.add_customer("acme", "127.0.1.1")
        configuration.routes = {"local.example": f"lmtp:unix:{path}", "*": "127.0.0.1:1"}
        port = configuration.add_smtp(customer="acme")
        engine = run_engine()
        to = ["ann@local.example", "bob@local.example"]
        with smtplib.SMTP("127.0.0.1", port, "feeder.example", timeout=10) as session:
            session.sendmail("news@acme.example", to, make_message("news@acme.example", to[0], "one", 500))
        found = wait_final(engine, 2)
        assert found["ann@local.example"]["event"] == "delivered"
        assert found["bob@local.example"]["event"] == "bounced"
        assert found["bob@local.example"]["status"] == "5.2.2"
        assert found["ann@local.example"]["peer"]["host"] == f"unix:{path}"
        assert len(mailboxes.messages) == 1
    finally:
        controller.stop()


def test_mail_for_an_address_of_ours_bounces_as_a_loop(configuration: Configuration, run_engine: Run) -> None:
    """RFC 5321 section 5.1, RFC 3463 section 3.5: 5.4.6, where no route says otherwise."""
    configuration.policies += "bounce_message = false\n"
    configuration.add_customer("acme", "127.0.1.1")
    configuration.routes = {}
    port = configuration.add_smtp(customer="acme")
    engine = run_engine()
    inject(port, "news@acme.example", ["me@[127.0.1.1]"])
    (event,) = wait_final(engine, 1).values()
    assert (event["event"], event["reply"]["enhanced"]) == ("bounced", "5.4.6")


def test_a_listener_on_all_addresses_makes_each_of_the_hosts_a_loop(
    configuration: Configuration, run_engine: Run
) -> None:
    """RFC 5321 section 5.1, RFC 3463 section 3.5: 127.0.0.77 is in no list, but it is this host."""
    configuration.add_customer("acme", "127.0.1.1")
    configuration.routes = {}
    port = configuration.add_smtp(customer="acme")
    configuration.listeners[-1]["listen"] = f"0.0.0.0:{port}"
    configuration.policies += f"bounce_message = false\nport = {port}\n"
    configuration.engine["prohibited_networks"] = ["192.0.2.0/24"]
    engine = run_engine()
    to = ["me@[127.0.0.77]", "me@[IPv6:::ffff:127.0.0.78]"]
    inject(port, "news@acme.example", to)
    found = wait_final(engine, 2)
    assert {(each["event"], each["reply"]["enhanced"]) for each in found.values()} == {("bounced", "5.4.6")}
