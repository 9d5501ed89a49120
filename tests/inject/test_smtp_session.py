"""SMTP sessions: the transport, the clock and the wait for a commit, around a conversation."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import smtplib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.core.reply import make_reply
from engine.inject.room import Room
from engine.inject.smtp import SMTPListener
from engine.inject.smtp_session import (
    COMMAND_TIMEOUT_S,
    DATA_BLOCK_TIMEOUT_S,
    MAX_KEPT_BYTES,
    MESSAGE_TIMEOUT_S,
    SMTPSession,
)
from engine.telemetry.metrics import Counters
from tests.fakes.feeds import (
    ENVELOPE,
    HELLO,
    MESSAGE,
    QUEUED,
    SMTP_SETTINGS,
    Intake,
    connect_smtp,
    make_smtp,
)
from tests.fakes.submission import make_listener, write_certificate


def test_message_reaches_the_acceptor_with_its_context() -> None:
    intake = Intake()
    session, transport = connect_smtp(make_smtp(intake))
    session.data_received(HELLO + ENVELOPE)
    session.data_received(MESSAGE + b".\r\nQUIT\r\n")
    [(sender, recipients, message, is_8bit, context)] = intake.taken
    assert (sender, recipients, message, is_8bit) == ("a@acme.example", ["b@x.example"], MESSAGE, False)
    assert (context.feed, context.customer, context.is_trusted) == ("smtp", "acme", False)
    assert (context.peer, context.helo, context.listener) == (
        "127.0.0.1",
        "client.example",
        SMTP_SETTINGS.name,
    )
    assert transport.codes() == [220, 250, 250, 250, 354, 250, 221]
    assert transport.is_closed


def test_terms_are_those_of_their_own_message() -> None:
    intake = Intake()
    session, _ = connect_smtp(make_smtp(intake))
    session.data_received(HELLO + b"MAIL FROM:<a@acme.example> ENVID=7 HOLDFOR=60\r\n")
    session.data_received(b"RCPT TO:<b@x.example> NOTIFY=NEVER\r\nBDAT 3 LAST\r\na\r\n" + ENVELOPE + b".\r\n")
    first, second = [context for *_, context in intake.taken]
    assert first.terms.envid == "7"
    assert first.terms.recipients == {"b@x.example": ("NEVER", "")}
    assert first.terms.hold_until > 60
    assert second.terms is None


def test_reply_waits_for_the_commit_and_what_is_behind_waits_too() -> None:
    intake = Intake(reply=None)
    session, transport = connect_smtp(make_smtp(intake))
    session.data_received(HELLO + ENVELOPE + MESSAGE + b".\r\n" + ENVELOPE + MESSAGE + b".\r\n" + ENVELOPE)
    assert transport.codes() == [220, 250, 250, 250, 354]
    intake.waiting.pop()(QUEUED, ["1"])
    assert transport.codes()[5:] == [250, 250, 250, 354]
    assert len(intake.taken) == 2
    intake.waiting.pop()(make_reply(452, "4.3.1", "full"), [])
    assert transport.codes()[9:] == [452, 250, 250, 354]


def test_thousands_of_messages_refused_at_once_do_not_recurse() -> None:
    intake = Intake(reply=make_reply(550, "5.7.1", "no"))
    session, transport = connect_smtp(make_smtp(intake))
    session.data_received(HELLO + (ENVELOPE + b".\r\n") * 3000)
    assert len(intake.taken) == 3000
    assert transport.codes().count(550) == 3000


def test_reading_stops_while_too_much_is_kept() -> None:
    intake = Intake(reply=None)
    session, transport = connect_smtp(make_smtp(intake))
    session.data_received(HELLO + ENVELOPE + MESSAGE + b".\r\n")
    session.data_received(ENVELOPE + b"x" * 98 + b"\r\n")
    assert transport.is_reading_now
    session.data_received((b"x" * 98 + b"\r\n") * (MAX_KEPT_BYTES // 100))
    assert not transport.is_reading_now
    intake.waiting.pop()(QUEUED, ["1"])
    assert transport.is_reading_now
    assert transport.codes()[-1] == 354


def test_reading_stops_while_the_client_does_not_read() -> None:
    session, transport = connect_smtp(make_smtp(Intake()))
    session.pause_writing()
    assert not transport.is_reading_now
    session.resume_writing()
    assert transport.is_reading_now


def test_client_gone_before_the_commit_is_told_nothing() -> None:
    intake = Intake(reply=None)
    made = make_smtp(intake)
    session, transport = connect_smtp(made)
    session.data_received(HELLO + ENVELOPE + MESSAGE + b".\r\n" + ENVELOPE + MESSAGE + b".\r\n")
    session.connection_lost(None)
    written = transport.written
    intake.waiting.pop()(QUEUED, ["1"])
    assert transport.written == written
    assert len(intake.taken) == 1
    assert not made.sessions


def test_sender_is_checked_at_mail() -> None:
    session, transport = connect_smtp(make_smtp(Intake()))
    session.data_received(HELLO + b"MAIL FROM:<x@evil.example>\r\n")
    assert transport.codes() == [220, 250, 550]


def sweep(made: SMTPListener, seconds: int) -> None:
    for _ in range(seconds):
        made.sweep()


def test_silent_client_is_timed_out() -> None:
    """RFC 5321 section 4.5.3.2.7."""
    made = make_smtp(Intake())
    session, transport = connect_smtp(made)
    sweep(made, COMMAND_TIMEOUT_S)
    assert not transport.is_closed
    session.data_received(HELLO)
    sweep(made, COMMAND_TIMEOUT_S)
    session.data_received(b"NO")
    assert not transport.is_closed
    sweep(made, 1)
    assert transport.codes()[-1] == 421
    assert transport.is_closed


def test_message_that_stalls_is_timed_out() -> None:
    made = make_smtp(Intake())
    session, transport = connect_smtp(made)
    session.data_received(HELLO + ENVELOPE)
    sweep(made, DATA_BLOCK_TIMEOUT_S)
    session.data_received(b"x")
    sweep(made, DATA_BLOCK_TIMEOUT_S)
    assert not transport.is_closed
    sweep(made, 1)
    assert transport.codes()[-1] == 421


def test_message_that_drips_for_an_hour_is_timed_out() -> None:
    made = make_smtp(Intake())
    session, transport = connect_smtp(made)
    session.data_received(HELLO + ENVELOPE)
    for _ in range(MESSAGE_TIMEOUT_S // 100):
        session.data_received(b"x")
        sweep(made, 100)
    assert not transport.is_closed
    sweep(made, 1)
    assert transport.is_closed


def test_client_that_waits_for_our_commit_is_not_timed_out() -> None:
    made = make_smtp(Intake(reply=None))
    session, transport = connect_smtp(made)
    session.data_received(HELLO + ENVELOPE + b".\r\n")
    sweep(made, 10 * COMMAND_TIMEOUT_S)
    assert not transport.is_closed


LARGE = (b"x" * 998 + b"\r\n") * 300  # more than LARGE_MESSAGE_BYTES


def large_listener(intake: Intake) -> SMTPListener:
    """Return a listener whose room is taken by one large message."""
    made = make_smtp(intake, max_message_size_bytes=1_000_000)
    made.room = Room(1_500_000)
    return made


@pytest.mark.parametrize("end", ["finished", "refused", "lost"])
def test_large_messages_wait_for_room_in_turn(end: str) -> None:
    intake = Intake(reply=None)
    made = large_listener(intake)
    first, _ = connect_smtp(made)
    second, waiting = connect_smtp(made)
    small, _ = connect_smtp(made)
    for session in (first, second):
        session.data_received(HELLO + ENVELOPE + LARGE)
    assert not waiting.is_reading_now
    sweep(made, DATA_BLOCK_TIMEOUT_S)
    assert not waiting.is_closed
    small.data_received(HELLO + ENVELOPE + b".\r\n")
    assert len(intake.taken) == 1
    if end == "finished":
        first.data_received(b".\r\n")
        assert not waiting.is_reading_now
        intake.waiting.pop()(QUEUED, ["1"])
    elif end == "refused":
        first.data_received(b"bare\n\r\n.\r\n")
    else:
        first.connection_lost(None)
    assert waiting.is_reading_now
    second.data_received(b".\r\n")
    intake.waiting.pop()(QUEUED, ["2"])
    assert made.room.reserved_bytes == 0
    assert intake.taken[-1][2] == LARGE


def test_client_gone_while_it_waits_for_room_leaves_the_queue() -> None:
    made = large_listener(Intake())
    first, _ = connect_smtp(made)
    second, _ = connect_smtp(made)
    for session in (first, second):
        session.data_received(HELLO + ENVELOPE + LARGE)
    second.connection_lost(None)
    first.data_received(b".\r\n")
    assert made.room.reserved_bytes == 0


# -- who it is --------------------------------------------------------------------------------------------


def test_messages_are_the_customers_whose_user_logged_in(run: Callable[..., Any], until: Any) -> None:
    intake = Intake()

    async def scenario() -> None:
        made = make_listener(intake, allow_plaintext_auth=True)
        session, transport = connect_smtp(made)
        login = b"AUTH PLAIN " + base64.b64encode(b"\0bob\0secret") + b"\r\n"
        session.data_received(HELLO + login + ENVELOPE + MESSAGE + b".\r\n")
        assert intake.taken == []
        assert session.listener.sessions
        await until(lambda: bool(intake.taken))
        assert transport.codes() == [220, 250, 235, 250, 250, 354, 250]
        made.passwords.close()

    run(scenario())
    context = intake.taken[0][4]
    assert (context.customer, context.protocol, context.is_trusted) == ("globex", "ESMTPA", False)


def test_client_gone_while_its_password_is_looked_at_is_told_nothing(
    run: Callable[..., Any], until: Any
) -> None:
    async def scenario() -> None:
        made = make_listener(Intake(), allow_plaintext_auth=True)
        session, transport = connect_smtp(made)
        session.data_received(HELLO + b"AUTH PLAIN " + base64.b64encode(b"\0bob\0secret") + b"\r\n")
        session.connection_lost(None)
        written = transport.written
        await until(lambda: not made.passwords._tasks)
        assert transport.written == written
        made.passwords.close()

    run(scenario())


def test_client_that_waits_for_its_password_is_not_timed_out(run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        made = make_listener(Intake(), allow_plaintext_auth=True)
        session, transport = connect_smtp(made)
        session.data_received(HELLO + b"AUTH PLAIN " + base64.b64encode(b"\0bob\0x") + b"\r\n")
        sweep(made, 10 * COMMAND_TIMEOUT_S)
        assert not transport.is_closed
        session.shut()
        assert transport.codes()[-1] == 421
        made.passwords.close()

    run(scenario())


@pytest.mark.parametrize("end", ["lost", "aborted"])
def test_connection_that_ends_before_its_handshake_begins_is_let_go(
    run: Callable[..., Any], tmp_path: Path, end: str
) -> None:
    certificate, key = write_certificate(tmp_path)

    async def scenario() -> None:
        made = make_smtp(Intake(), tls_certificate=certificate, tls_key=key)
        session, transport = connect_smtp(made)
        session.data_received(HELLO + b"STARTTLS\r\n")
        assert transport.codes() == [220, 250, 220]
        if end == "lost":
            session.connection_lost(None)
        else:
            session.abort()
        await asyncio.gather(*made._tasks)
        assert transport.codes() == [220, 250, 220]

    run(scenario())


FRONT_END: dict[str, Any] = {"xclient_networks": ("127.0.0.1/32",), "allow": ("127.0.0.0/8", "192.0.2.0/24")}


def test_front_end_speaks_for_its_client() -> None:
    intake = Intake()
    session, transport = connect_smtp(make_smtp(intake, **FRONT_END))
    session.data_received(b"XCLIENT ADDR=192.0.2.9 HELO=laptop.example PROTO=SMTP\r\n")
    session.data_received(HELLO + ENVELOPE + MESSAGE + b".\r\n")
    context = intake.taken[0][4]
    assert (context.peer, context.helo, context.protocol) == ("192.0.2.9", "laptop.example", "SMTP")
    assert transport.codes() == [220, 220, 250, 250, 250, 354, 250]


def test_front_end_whose_client_may_not_inject_is_closed() -> None:
    session, transport = connect_smtp(make_smtp(Intake(), **FRONT_END))
    session.data_received(b"XCLIENT ADDR=198.51.100.1\r\n" + HELLO)
    assert transport.codes() == [220, 554]
    assert transport.is_closed


@pytest.mark.parametrize(("login", "codes"), [("bob", [220, 220, 250, 250]), ("nobody", [220, 535])])
def test_front_end_says_who_has_logged_in(login: str, codes: list[int]) -> None:
    made = make_listener(Intake(), xclient_networks=("127.0.0.1/32",), allow_plaintext_auth=True)
    session, transport = connect_smtp(made)
    session.data_received(f"XCLIENT ADDR=192.0.2.9 LOGIN={login}\r\n".encode())
    if not transport.is_closed:
        session.data_received(HELLO + b"MAIL FROM:<a@acme.example>\r\n")
    assert transport.codes() == codes


def test_xclient_from_elsewhere_is_refused() -> None:
    session, transport = connect_smtp(make_smtp(Intake(), xclient_networks=("192.0.2.1/32",)))
    session.data_received(HELLO + b"XCLIENT ADDR=192.0.2.9\r\n")
    assert transport.codes() == [220, 250, 550]
    assert b"XCLIENT" not in transport.written.partition(b"550")[0]


# -- on real sockets --------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(intake: Intake) -> AsyncIterator[tuple[SMTPListener, int]]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    made = SMTPListener(SMTP_SETTINGS, intake, Counters())
    await made.open(sock, SMTPSession)
    try:
        yield made, sock.getsockname()[1]
    finally:
        made.close()
        await asyncio.sleep(0)


def test_smtplib_delivers_over_a_socket(run: Callable[..., Any]) -> None:
    """RFC 5321 section 3.3."""
    intake = Intake()

    def deliver(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example") as smtp:
            smtp.sendmail("a@acme.example", ["b@x.example", "c@x.example"], b"Subject: x\r\n\r\n.dot\r\n")
            assert smtp.has_extn("pipelining")
            assert smtp.esmtp_features["size"] == "100000"
            with pytest.raises(smtplib.SMTPSenderRefused):
                smtp.sendmail("a@evil.example", ["b@x.example"], b"")
            with pytest.raises(smtplib.SMTPDataError, match=r"5\.6\.0"):
                smtp.sendmail("a@acme.example", ["b@x.example"], b"y" * 999)

    async def scenario() -> None:
        async with serving(intake) as (made, port):
            await asyncio.to_thread(deliver, port)
            while made.sessions:
                await asyncio.sleep(0)

    run(scenario())
    [(sender, recipients, message, _, context)] = intake.taken
    assert (sender, recipients) == ("a@acme.example", ["b@x.example", "c@x.example"])
    assert message == b"Subject: x\r\n\r\n.dot\r\n"
    assert context.helo == "client.example"


def test_stop_ends_idle_sessions_and_waits_for_transactions(run: Callable[..., Any]) -> None:
    """RFC 5321 section 3.8."""
    intake = Intake()

    async def scenario() -> None:
        async with serving(intake) as (made, port):
            idle = await asyncio.open_connection("127.0.0.1", port)
            busy = await asyncio.open_connection("127.0.0.1", port)
            for reader, writer in (idle, busy):
                await reader.readline()
                writer.write(HELLO)
                await reader.readuntil(b"\r\n250 ")
                await reader.readline()
            busy[1].write(b"MAIL FROM:<a@acme.example>\r\n")
            await busy[0].readline()
            stopping = asyncio.create_task(made.stop(5.0))
            assert (await idle[0].read()).startswith(b"421 4.3.2")
            busy[1].write(b"RCPT TO:<b@x.example>\r\nDATA\r\n")
            await busy[0].readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            busy[1].write(b".\r\n")
            rest = await busy[0].read()
            assert [line[:3] for line in rest.splitlines()] == [b"250", b"421"]
            await stopping
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            for _, writer in (idle, busy):
                writer.close()

    run(scenario())
    assert len(intake.taken) == 1


def test_stop_cuts_what_outlasts_the_grace(run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with serving(Intake(reply=None)) as (made, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HELLO + ENVELOPE + b".\r\n")
            await reader.readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            await made.stop(0.01)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert not made.sessions
            writer.close()

    run(scenario())


@pytest.mark.stranger("postfix")
def test_smtp_source_delivers_over_many_sessions(
    stranger: Callable[[str], str], run: Callable[..., Any]
) -> None:
    """RFC 5321 section 3.3."""
    intake = Intake()

    async def scenario() -> None:
        async with serving(intake) as (_, port):
            process = await asyncio.create_subprocess_exec(
                stranger("smtp-source"),
                *("-s", "10", "-m", "200", "-l", "9000", "-d", "-N", "-S", "subject of these"),
                *("-f", "a@acme.example", "-t", "b@x.example", f"127.0.0.1:{port}"),
            )
            assert await process.wait() == 0

    run(scenario())
    assert len(intake.taken) == 200
    assert {sender for sender, *_ in intake.taken} == {"a@acme.example"}


@pytest.mark.stranger("swaks")
def test_swaks_pipelines_a_message_and_reads_a_refusal(
    stranger: Callable[[str], str], run: Callable[..., Any]
) -> None:
    """RFC 5321 section 3.3."""
    intake = Intake()

    async def swaks(port: int, *arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            stranger("swaks"),
            *(
                "--server",
                "127.0.0.1",
                "--port",
                str(port),
                "--helo",
                "client.example",
                "--pipeline",
                *arguments,
            ),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    async def scenario() -> None:
        async with serving(intake) as (_, port):
            code, out = await swaks(port, "--from", "a@acme.example", "--to", "b@x.example,c@x.example")
            assert code == 0, out
            code, out = await swaks(port, "--from", "a@evil.example", "--to", "b@x.example")
            assert code != 0
            assert "550 5.7.1 not yours" in out

    run(scenario())
    [(sender, recipients, message, *_)] = intake.taken
    assert (sender, recipients) == ("a@acme.example", ["b@x.example", "c@x.example"])
    assert b"This is a test mailing" in message
