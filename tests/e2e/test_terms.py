"""What a message asks for, from a stranger through the engine to a stranger."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from bench.postfix import PostfixSetup, is_postfix_here, running_postfix
from engine.client import SocketClient
from tests.e2e.configuration import SINK_ADDRESS, Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.sink_process import SinkProcess
from tests.lacking import lack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(90)]

Run = Callable[..., EngineProcess]
SENDER = "news@acme.example"
MESSAGE = b"From: news@acme.example\r\nSubject: hello\r\nMessage-ID: <1@acme.example>\r\n\r\nhello\r\n"


class Mailbox:
    """An aiosmtpd handler that keeps what it gets; it knows SMTPUTF8 and 8BITMIME, and not DSN."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options += options
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.taken.append(envelope)
        return "250 2.6.0 taken"

    def wait(self, count: int) -> list[Envelope]:
        return wait_until(lambda: self.taken if len(self.taken) >= count else None, 15.0, f"{count} messages")


@pytest.fixture
def mailbox(configuration: Configuration) -> Iterator[Mailbox]:
    handler = Mailbox()
    port = free_port(SINK_ADDRESS)
    controller = Controller(handler, hostname=SINK_ADDRESS, port=port, enable_SMTPUTF8=True)
    controller.start()
    configuration.routes["*"] = f"{SINK_ADDRESS}:{port}"
    configuration.add_customer("acme", "127.0.1.1", senders=["*"])
    yield handler
    controller.stop()


@pytest.fixture
def port(configuration: Configuration, mailbox: Mailbox) -> int:
    return configuration.add_smtp(customer="acme")


def test_utf8_addresses_and_notifications_through_peers_that_do_not_know_dsn(
    port: int, mailbox: Mailbox, run_engine: Run
) -> None:
    """RFC 6531 3.2 and 3.4; RFC 3461 5.2.2: "relayed" where the peer has no DSN."""
    run_engine()
    text = "Subject: Grüße\r\n\r\nüber\r\n".encode()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.ehlo("client.example")
        assert session.has_extn("smtputf8")
        assert session.has_extn("dsn")
        session.sendmail(
            "jürgen@bücher.example",
            ["jörg@größe.example"],
            text,
            mail_options=["SMTPUTF8", "BODY=8BITMIME", "ENVID=batch+207"],
            rcpt_options=["NOTIFY=SUCCESS,FAILURE"],
        )
    first, told = mailbox.wait(2)
    assert first.mail_from == "jürgen@xn--bcher-kva.example"
    assert first.rcpt_tos == ["jörg@xn--gre-6ka8i.example"]
    assert first.smtp_utf8
    assert {option for option in first.mail_options if "=" in option} <= {
        f"SIZE={len(first.original_content)}",
        "BODY=8BITMIME",
    }
    assert first.rcpt_options == []
    assert first.original_content.endswith(text)
    assert b" with UTF8SMTP id " in first.original_content
    assert (told.mail_from, told.rcpt_tos) == ("<>", ["jürgen@xn--bcher-kva.example"])
    assert told.smtp_utf8
    assert b"\r\nOriginal-Envelope-Id: batch 7\r\n" in told.original_content
    assert "\r\nFinal-Recipient: utf-8; jörg@xn--gre-6ka8i.example\r\n".encode() in told.original_content
    assert b"\r\nAction: relayed\r\nStatus: 2.6.0\r\n" in told.original_content


def test_failures_are_told_as_the_sender_asked(port: int, mailbox: Mailbox, run_engine: Run) -> None:
    """RFC 3461 4.1 to 4.4: NEVER is silent, RET=FULL gives the message back, ORCPT comes back."""
    engine = run_engine()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.sendmail(SENDER, ["nobody-1@x.example"], MESSAGE, rcpt_options=["NOTIFY=NEVER"])
        session.sendmail(
            SENDER,
            ["nobody-2@x.example"],
            MESSAGE,
            mail_options=["RET=FULL"],
            rcpt_options=["NOTIFY=FAILURE", "ORCPT=rfc822;old+2Btag@x.example"],
        )
    (told,) = mailbox.wait(1)
    report = message_from_bytes(told.original_content)
    _, status, original = report.get_payload()
    assert status.get_payload()[1]["Original-Recipient"] == "rfc822; old+tag@x.example"
    assert status.get_payload()[1]["Action"] == "failed"
    assert original.get_content_type() == "message/rfc822"
    assert original.get_payload()[0]["Message-ID"] == "<1@acme.example>"
    wait_until(lambda: len(engine.events_of("bounced")) == 2, 10.0, "two bounces")
    assert len(mailbox.taken) == 1


def test_8bit_mail_of_a_customer_who_asks_goes_out_in_seven_bits(
    configuration: Configuration, port: int, mailbox: Mailbox, run_engine: Run
) -> None:
    """RFC 6152 3."""
    configuration.customers[0]["encode_8bit"] = "always"
    run_engine()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.sendmail(SENDER, ["a@x.example"], MESSAGE + "Grüße\r\n".encode(), ["BODY=8BITMIME"])
    (taken,) = mailbox.wait(1)
    assert taken.original_content.isascii()
    assert not any("8BITMIME" in option for option in taken.mail_options)
    parsed = message_from_bytes(taken.original_content)
    assert parsed["Content-Transfer-Encoding"] == "quoted-printable"
    payload = parsed.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.decode().splitlines() == ["hello", "Grüße"]


def test_message_in_chunks_arrives_as_it_was(port: int, mailbox: Mailbox, run_engine: Run) -> None:
    """RFC 3030 2."""
    run_engine()
    content = MESSAGE + b".\r\n..\r\n"
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.ehlo("client.example")
        session.mail(SENDER)
        session.rcpt("a@x.example")
        session.send(b"BDAT 50\r\n" + content[:50])
        assert session.getreply()[0] == 250
        session.send(b"BDAT %d LAST\r\n%b" % (len(content) - 50, content[50:]))
        assert session.getreply()[0] == 250
    (taken,) = mailbox.wait(1)
    assert taken.original_content.endswith(content)


def test_held_message_leaves_at_its_time_from_every_feed(
    configuration: Configuration, port: int, mailbox: Mailbox, run_engine: Run
) -> None:
    """RFC 4865 4: not before, and within a second or so."""
    configuration.listeners.append(
        {"protocol": "socket", "path": str(configuration.socket), "customer": "acme"}
    )
    configuration.listeners.append(
        {"protocol": "spool", "path": str(configuration.spool), "customer": "acme", "max_hold": "1h"}
    )
    engine = run_engine()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.ehlo("client.example")
        assert session.esmtp_features["futurerelease"].startswith("604800 20")
        session.sendmail(SENDER, ["smtp@x.example"], MESSAGE, ["HOLDFOR=2"])
        with pytest.raises(smtplib.SMTPSenderRefused, match="604800"):
            session.sendmail(SENDER, ["no@x.example"], MESSAGE, ["HOLDFOR=604801"])
    with SocketClient(str(configuration.socket)) as client:
        assert client.submit(SENDER, ["socket@x.example"], MESSAGE, hold_for=2).is_accepted
        assert client.submit(SENDER, ["no@x.example"], MESSAGE, notify="maybe").code == 501
    _drop(
        configuration.spool,
        b"X-Sender: <news@acme.example>\nX-Receiver: <spool@x.example>\nX-Mailrail-Hold-For: 2\n",
    )
    assert len(mailbox.wait(3)) == 3
    waited = {event["recipient"]: event["queue_s"] for event in _delivered(engine, 3)}
    assert set(waited) == {"smtp@x.example", "socket@x.example", "spool@x.example"}
    assert all(2.0 <= seconds < 5.0 for seconds in waited.values()), waited


def test_deadline_ends_a_message_that_can_not_be_delivered(
    configuration: Configuration, port: int, mailbox: Mailbox, run_engine: Run
) -> None:
    """RFC 2852 4: BY=n;R is returned at its time, whatever the policy says."""
    configuration.routes["dead.example"] = f"{SINK_ADDRESS}:{free_port(SINK_ADDRESS)}"
    engine = run_engine()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.sendmail(SENDER, ["a@dead.example"], MESSAGE, ["BY=2;R"])
    (told,) = mailbox.wait(1)
    assert b"\r\nDeliver-By-Date: " in told.original_content
    assert b"\r\nStatus: 5.4.7\r\n" in told.original_content
    (event,) = engine.events_of("expired")
    assert event["queue_s"] >= 2.0


def test_deadline_with_return_goes_to_no_peer_that_does_not_keep_it(
    configuration: Configuration, port: int, mailbox: Mailbox, run_engine: Run
) -> None:
    """RFC 2852 4.1.4.1 and RFC 2852 4.1.4.2: R is returned, N goes and is told of; E, our own, goes."""
    configuration.listeners.append(
        {"protocol": "socket", "path": str(configuration.socket), "customer": "acme"}
    )
    engine = run_engine()
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
        session.sendmail(SENDER, ["r@x.example"], MESSAGE, ["BY=3600;R"])
        session.sendmail(SENDER, ["n@x.example"], MESSAGE, ["BY=3600;N"])
        with pytest.raises(smtplib.SMTPSenderRefused, match=r"5\.5\.4 BY"):
            session.sendmail(SENDER, ["e@x.example"], MESSAGE, ["BY=3600;E"])
    with SocketClient(str(configuration.socket)) as client:
        assert client.submit(SENDER, ["e@x.example"], MESSAGE, deliver_by="3600;E").is_accepted
    taken = mailbox.wait(4)
    assert {to for each in taken for to in each.rcpt_tos} == {"n@x.example", "e@x.example", SENDER}
    told = b"".join(each.original_content for each in taken if each.rcpt_tos == [SENDER])
    assert told.count(b"\r\nAction: failed\r\n") == told.count(b"\r\nStatus: 5.4.7\r\n") == 1
    assert told.count(b"\r\nAction: relayed\r\n") == 1
    (event,) = engine.events_of("bounced")
    assert (event["recipient"], event["reply"]["enhanced"]) == ("r@x.example", "5.4.7")


@pytest.mark.stranger("postfix")
def test_postfix_gets_the_parameters_and_notifies_by_them(
    configuration: Configuration, sink: SinkProcess, root: Path, run_engine: Run
) -> None:
    """RFC 3461 5.2.1: what was asked for goes on to a peer with DSN, which is responsible from there on."""
    if not is_postfix_here():
        lack("Postfix's own instance needs root and the Debian package postfix")
    saved = root / "saved"
    saved.mkdir()
    sink = SinkProcess(root, sink.port, SINK_ADDRESS, options=("--save", str(saved)))
    sink.start()
    hop = f"[{SINK_ADDRESS}]:{sink.port}"
    setup = PostfixSetup(
        free_port(), {"x.example": hop, "acme.example": hop}, tuning={"disable_dns_lookups": "yes"}
    )
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    try:
        with running_postfix(setup):
            configuration.routes["*"] = f"127.0.0.1:{setup.port}"
            engine = run_engine()
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as session:
                session.sendmail(SENDER, ["jörg@x.example"], MESSAGE, ["SMTPUTF8"], ["NOTIFY=NEVER"])
                session.sendmail(
                    SENDER,
                    ["ann@x.example"],
                    MESSAGE + "Grüße\r\n".encode(),
                    mail_options=["ENVID=batch-7", "RET=HDRS", "BODY=8BITMIME"],
                    rcpt_options=["NOTIFY=SUCCESS", "ORCPT=rfc822;old@x.example"],
                )
            report = wait_until(lambda: _report(saved), 30.0, "Postfix's notification at the sink")
            taken = {event["recipient"] for event in _delivered(engine, 2)}
            assert taken == {"jörg@x.example", "ann@x.example"}
    finally:
        sink.close()
    about, block = report.get_payload()[1].get_payload()
    assert about["Original-Envelope-Id"] == "batch-7"
    assert block["Original-Recipient"] == "rfc822;old@x.example"
    assert block["Action"] == "relayed"


@pytest.mark.stranger("postfix")
def test_what_postfix_hands_on_is_kept(
    configuration: Configuration, port: int, mailbox: Mailbox, run_engine: Run
) -> None:
    """RFC 3461 5.2.1 as the receiver: a relay in front of us is told that we take care of it from here."""
    if not is_postfix_here():
        lack("Postfix's own instance needs root and the Debian package postfix")
    engine = run_engine()
    setup = PostfixSetup(
        free_port(),
        {"x.example": f"[127.0.0.1]:{port}", "acme.example": f"[127.0.0.1]:{port}"},
        tuning={"disable_dns_lookups": "yes"},
    )
    with running_postfix(setup), smtplib.SMTP("127.0.0.1", setup.port, timeout=10) as session:
        session.sendmail(
            SENDER,
            ["jörg@x.example"],
            MESSAGE,
            mail_options=["SMTPUTF8", "ENVID=batch-8"],
            rcpt_options=["NOTIFY=SUCCESS", "ORCPT=utf-8;old@x.example"],
        )
        taken, told = mailbox.wait(2)
    assert taken.rcpt_tos == ["jörg@x.example"]
    assert taken.smtp_utf8
    assert b"\r\nAction: relayed\r\n" in told.original_content
    assert b"\r\nOriginal-Envelope-Id: batch-8\r\n" in told.original_content
    assert b"\r\nOriginal-Recipient: utf-8; old@x.example\r\n" in told.original_content
    assert engine.stop() == 0


def _report(saved: Path):  # type: ignore[no-untyped-def]
    """Return the notification among the messages that the sink has saved."""
    for path in saved.iterdir():
        message = message_from_bytes(path.read_bytes())
        if message.get_content_type() == "multipart/report":
            return message
    return None


def _drop(spool: Path, head: bytes) -> None:
    name = f"held-{time.monotonic_ns()}"
    (spool / "tmp" / name).write_bytes(head + MESSAGE.replace(b"\r\n", b"\n"))
    (spool / "tmp" / name).rename(spool / "new" / name)


def _delivered(engine: EngineProcess, count: int) -> list[dict]:
    def found() -> list[dict]:
        events = engine.events_of("delivered")
        return events if len(events) >= count else []

    return wait_until(found, 15.0, f"{count} deliveries")
