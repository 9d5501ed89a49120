"""Connections before and around SMTP: TLS in both ways, proxies, strangers who speak them."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.inject import smtp_opening
from engine.inject.shedding import Measure, Shedding
from engine.inject.smtp import SMTPListener
from engine.inject.smtp_opening import format_peer
from engine.net.proxied import SIGNATURE
from engine.settings.model import ListenerSettings
from tests.fakes.feeds import ENVELOPE, HELLO, MESSAGE, SMTP_SETTINGS, Intake
from tests.fakes.submission import (
    PASSWORD,
    SUBMISSION,
    USER,
    counts,
    make_listener,
    serving,
    trusting,
    write_certificate,
)
from tests.lacking import lack

SENDING = ("a@acme.example", ["b@x.example"], b"Subject: x\r\n\r\nbody\r\n")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    return write_certificate(tmp_path)


def with_tls(files: tuple[str, str], **changes: Any) -> dict[str, Any]:
    return {"tls_certificate": files[0], "tls_key": files[1], **changes}


def serve(
    run: Callable[..., Any], made: SMTPListener, client: Callable[[int], Any], *, is_async: bool = False
) -> Any:
    """Have a client speak to a listener: a blocking one in a thread."""

    async def scenario() -> Any:
        async with serving(made) as port:
            return await (client(port) if is_async else asyncio.to_thread(client, port))

    return run(scenario())


# -- strangers --------------------------------------------------------------------------------------------


def test_smtplib_starts_tls_logs_in_and_delivers(run: Any, certificate: tuple[str, str]) -> None:
    """RFC 3207, RFC 4954, RFC 6409 4.3: submission with STARTTLS."""
    intake = Intake()
    made = make_listener(intake, **with_tls(certificate))

    def client(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example") as smtp:
            smtp.ehlo()
            assert smtp.has_extn("starttls")
            assert not smtp.has_extn("auth")
            smtp.starttls(context=trusting(certificate[0]))
            smtp.ehlo()
            assert not smtp.has_extn("starttls")
            assert smtp.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
            with pytest.raises(smtplib.SMTPSenderRefused, match=r"5\.7\.0"):
                smtp.sendmail(*SENDING)
            smtp.login(USER, PASSWORD.decode())
            smtp.sendmail(*SENDING)

    serve(run, made, client)
    [(_, _, _, _, context)] = intake.taken
    assert context.customer == "acme"
    assert context.protocol.startswith("ESMTPSA (TLSv1.3 TLS_")
    assert counts(made, "mailrail_handshakes_total") == {("done",): 1}
    assert counts(made, "mailrail_authentications_total") == {("accepted",): 1}


def test_smtplib_speaks_tls_from_the_first_octet(run: Any, certificate: tuple[str, str]) -> None:
    """RFC 8314 3.3: implicit TLS for submission."""
    intake = Intake()
    made = make_listener(intake, **with_tls(certificate, protocol="submissions"))

    def client(port: int) -> None:
        with smtplib.SMTP_SSL("127.0.0.1", port, context=trusting(certificate[0])) as smtp:
            smtp.ehlo()
            assert not smtp.has_extn("starttls")
            smtp.login("bob", "secret")
            smtp.sendmail(*SENDING)

    serve(run, made, client)
    assert intake.taken[0][4].customer == "globex"


def test_aiosmtplib_starts_tls_on_a_relay_that_asks_for_no_password(
    run: Any, certificate: tuple[str, str]
) -> None:
    import aiosmtplib

    intake = Intake()
    made = make_listener(intake, SMTP_SETTINGS, **with_tls(certificate))

    async def client(port: int) -> None:
        smtp = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=port, start_tls=True, tls_context=trusting(certificate[0])
        )
        async with smtp:
            await smtp.sendmail(*SENDING)

    serve(run, made, client, is_async=True)
    assert intake.taken[0][4].protocol.startswith("ESMTPS (TLSv1.3")
    assert intake.taken[0][4].customer == "acme"


async def run_program(*command: str, octets: bytes = b"") -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate(octets)
    return process.returncode, out.decode(errors="replace")


@pytest.mark.stranger("swaks")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("way", ["--tls", "--tls-on-connect"])
def test_swaks_logs_in_under_tls(
    stranger: Callable[[str], str], run: Any, certificate: tuple[str, str], mechanism: str, way: str
) -> None:
    intake = Intake()
    protocol = "submission" if way == "--tls" else "submissions"
    made = make_listener(intake, **with_tls(certificate, protocol=protocol))

    async def client(port: int) -> tuple[int | None, str]:
        return await run_program(
            *(stranger("swaks"), "--server", "127.0.0.1", "--port", str(port), way),
            *("--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD.decode()),
            *("--from", "a@acme.example", "--to", "b@x.example"),
        )

    code, out = serve(run, made, client, is_async=True)
    if "TLS not available" in out or "Net::SSLeay" in out:
        lack("swaks has no TLS: install the Debian package libnet-ssleay-perl")
    assert code == 0, out
    assert [taken[4].customer for taken in intake.taken] == ["acme"]


@pytest.mark.stranger("swaks")
def test_swaks_is_refused_with_a_wrong_password_and_without_tls(
    stranger: Callable[[str], str], run: Any, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.inject.passwords.FAILURE_S", 0.0)
    intake = Intake()
    made = make_listener(intake, **with_tls(certificate, allow_plaintext_auth=True))

    async def client(port: int) -> list[tuple[int | None, str]]:
        base = (stranger("swaks"), "--server", "127.0.0.1", "--port", str(port))
        rest = ("--auth-user", USER, "--from", "a@acme.example", "--to", "b@x.example")
        return [
            await run_program(*base, *rest, "--auth", "PLAIN", "--auth-password", password)
            for password in ("wrong", PASSWORD.decode())
        ]

    (wrong, said), (right, _) = serve(run, made, client, is_async=True)
    assert "535 5.7.8" in said
    assert (wrong, right) == (28, 0)  # swaks: no authentication; all is well
    assert intake.taken[0][4].protocol == "ESMTPA"


@pytest.mark.stranger("openssl")
@pytest.mark.parametrize(("option", "is_taken"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_openssl_is_taken_from_tls_1_2_on(
    stranger: Callable[[str], str], run: Any, certificate: tuple[str, str], option: str, is_taken: bool
) -> None:
    """RFC 8996: TLS 1.0 and 1.1 MUST NOT be used."""
    made = make_listener(Intake(), **with_tls(certificate))

    async def client(port: int) -> tuple[int | None, str]:
        # -cipher: OpenSSL itself would not speak 1.1 above security level 0.
        return await run_program(
            *(stranger("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-starttls", "smtp"),
            *(option, "-cipher", "ALL:@SECLEVEL=0", "-quiet"),
            octets=b"QUIT\r\n",
        )

    _, out = serve(run, made, client, is_async=True)
    assert ("221 2.0.0" in out) == is_taken, out
    assert counts(made, "mailrail_handshakes_total") == {("done" if is_taken else "failed",): 1}


@pytest.mark.stranger("openssl")
@pytest.mark.parametrize("is_implicit", [True, False])
def test_client_of_tls_1_1_is_told_why_it_is_refused(
    stranger: Callable[[str], str], run: Any, certificate: tuple[str, str], is_implicit: bool
) -> None:
    """RFC 8446 section 6.2, RFC 8996: the alert protocol_version, and no mere end."""
    protocol = "submissions" if is_implicit else "submission"
    made = make_listener(Intake(), **with_tls(certificate, protocol=protocol))

    async def client(port: int) -> tuple[int | None, str]:
        return await run_program(
            *(stranger("openssl"), "s_client", "-connect", f"127.0.0.1:{port}"),
            *(() if is_implicit else ("-starttls", "smtp")),
            *("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
            octets=b"QUIT\r\n",
        )

    _, out = serve(run, made, client, is_async=True)
    assert "alert protocol version" in out
    assert counts(made, "mailrail_handshakes_total") == {("failed",): 1}


# -- STARTTLS ---------------------------------------------------------------------------------------------


async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, octets: bytes) -> bytes:
    """Write, and return the whole reply."""
    writer.write(octets)
    said = b""
    while True:
        line = await reader.readline()
        said += line
        if not line or line[3:4] != b"-":
            return said


def test_nothing_said_before_tls_counts_behind_it(run: Any, certificate: tuple[str, str]) -> None:
    """RFC 3207 4.2: the server MUST discard any knowledge obtained from the client."""
    made = make_listener(Intake(), SMTP_SETTINGS, **with_tls(certificate))

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        await dialogue(reader, writer, HELLO)
        assert (await dialogue(reader, writer, b"MAIL FROM:<a@acme.example>\r\n"))[:3] == b"250"
        assert (await dialogue(reader, writer, b"STARTTLS\r\n"))[:9] == b"220 2.0.0"
        await writer.start_tls(trusting(certificate[0]))
        assert (await dialogue(reader, writer, b"MAIL FROM:<a@acme.example>\r\n"))[:9] == b"503 5.5.1"
        assert b"STARTTLS" not in await dialogue(reader, writer, HELLO)
        assert (await dialogue(reader, writer, b"STARTTLS\r\n"))[:9] == b"503 5.5.1"
        assert (await dialogue(reader, writer, b"RCPT TO:<b@x.example>\r\n"))[:9] == b"503 5.5.1"
        writer.close()

    serve(run, made, client, is_async=True)


def test_what_xclient_said_in_clear_is_forgotten_and_may_be_said_again(
    run: Any, certificate: tuple[str, str]
) -> None:
    """RFC 3207 4.2: whoever is on the line in clear could have said it."""
    intake = Intake()
    front_end = {"xclient_networks": ("127.0.0.1/32",), "allow": ("127.0.0.0/8", "192.0.2.0/24")}
    made = make_listener(intake, SMTP_SETTINGS, **with_tls(certificate), **front_end)
    front = b"XCLIENT ADDR=192.0.2.9 HELO=laptop.example PROTO=SMTP LOGIN=bob\r\n"

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        assert (await dialogue(reader, writer, front))[:3] == b"220"
        await dialogue(reader, writer, HELLO)
        assert (await dialogue(reader, writer, b"STARTTLS\r\n"))[:9] == b"220 2.0.0"
        await writer.start_tls(trusting(certificate[0]))
        for said in (b"", front.replace(b".9", b".8")):
            if said:
                assert (await dialogue(reader, writer, said))[:3] == b"220"
            assert b"XCLIENT" in await dialogue(reader, writer, HELLO)
            for line in (b"MAIL FROM:<a@acme.example>\r\n", b"RCPT TO:<b@x.example>\r\n", b"DATA\r\n"):
                assert (await dialogue(reader, writer, line))[:1] in (b"2", b"3")
            assert (await dialogue(reader, writer, MESSAGE + b".\r\n"))[:3] == b"250"
        writer.close()

    serve(run, made, client, is_async=True)
    first, again = (taken[4] for taken in intake.taken)
    assert (first.peer, first.helo) == ("127.0.0.1", "client.example")
    assert first.protocol.startswith("ESMTPS (")
    assert (again.peer, again.helo, again.protocol.split()[0]) == ("192.0.2.8", "laptop.example", "SMTP")


@pytest.mark.parametrize("is_split", [False, True])
def test_octets_injected_behind_starttls_are_never_heard(
    run: Any, certificate: tuple[str, str], is_split: bool
) -> None:
    """RFC 3207 4.2, CVE-2011-0411: in the same segment, and in the next one before the handshake."""
    intake = Intake()
    made = make_listener(intake, SMTP_SETTINGS, **with_tls(certificate))

    async def client(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        await dialogue(reader, writer, HELLO)
        writer.write(b"STARTTLS\r\n")
        if is_split:
            await reader.readline()
        writer.write(ENVELOPE + MESSAGE + b".\r\n")
        rest = await reader.read()
        writer.close()
        return rest

    rest = serve(run, made, client, is_async=True)
    assert intake.taken == []
    if is_split:
        assert not rest.startswith(b"2")
        assert counts(made, "mailrail_handshakes_total") == {("failed",): 1}
    else:
        assert rest.startswith(b"554 5.5.1")
    assert not made.sessions


def test_client_that_leaves_in_the_handshake_leaves_no_session(
    run: Any, certificate: tuple[str, str], until: Any
) -> None:
    made = make_listener(Intake(), SMTP_SETTINGS, **with_tls(certificate))

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        await dialogue(reader, writer, HELLO)
        await dialogue(reader, writer, b"STARTTLS\r\n")
        writer.close()
        await until(lambda: not made.sessions)

    serve(run, made, client, is_async=True)
    assert counts(made, "mailrail_handshakes_total") == {("failed",): 1}


@pytest.mark.parametrize("way", ["STARTTLS", "implicit"])
def test_handshake_has_a_time_limit(
    run: Any, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, way: str, until: Any
) -> None:
    monkeypatch.setattr("engine.inject.smtp_opening.HANDSHAKE_TIMEOUT_S", 0.05)
    protocol = "submission" if way == "STARTTLS" else "submissions"
    made = make_listener(Intake(), **with_tls(certificate, protocol=protocol))

    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if way == "STARTTLS":
            await reader.readline()
            await dialogue(reader, writer, HELLO)
            await dialogue(reader, writer, b"STARTTLS\r\n")
        assert await reader.read() == b""
        await until(lambda: not made.sessions and not made.opening)
        writer.close()

    serve(run, made, client, is_async=True)


def test_certificate_that_a_reload_takes_away_ends_who_was_offered_it(
    run: Any, certificate: tuple[str, str]
) -> None:
    made = make_listener(Intake(), SMTP_SETTINGS, **with_tls(certificate))

    async def client(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        await dialogue(reader, writer, HELLO)
        made.use(SMTP_SETTINGS)
        await dialogue(reader, writer, b"STARTTLS\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        return b""

    serve(run, made, client, is_async=True)
    assert not made.sessions


def test_command_behind_the_handshake_in_one_segment_is_heard(run: Any, certificate: tuple[str, str]) -> None:
    """A client may write as soon as its own side of the handshake is done."""
    made = make_listener(Intake(), SMTP_SETTINGS, **with_tls(certificate))

    def client(port: int) -> list[bytes]:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting(certificate[0]).wrap_bio(incoming, outgoing)
        with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as lines:
            lines.readline()
            sock.sendall(HELLO)
            while lines.readline()[3:4] == b"-":
                pass
            sock.sendall(b"STARTTLS\r\n")
            lines.readline()
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(lines.read1(65536))  # type: ignore[attr-defined]
            tls.write(b"NOOP\r\nQUIT\r\n")
            sock.sendall(outgoing.read())  # with the Finished of the handshake in front
            while piece := lines.read():
                incoming.write(piece)
            return [tls.read(65536)]

    [said] = serve(run, made, client)
    assert said.startswith(b"250 2.0.0 Ok\r\n221 ")


def test_stop_in_the_handshake_says_421_when_that_is_done(run: Any, certificate: tuple[str, str]) -> None:
    made = make_listener(Intake(), SMTP_SETTINGS, **with_tls(certificate))

    async def client(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        await dialogue(reader, writer, HELLO)
        await dialogue(reader, writer, b"STARTTLS\r\n")
        stopping = asyncio.create_task(made.stop(5.0))
        await asyncio.sleep(0)
        await writer.start_tls(trusting(certificate[0]))
        said = await reader.readline()
        writer.close()
        await stopping
        return said

    assert serve(run, made, client, is_async=True).startswith(b"421 4.3.2")


async def greeting_of(port: int, tls: ssl.SSLContext | None = None, octets: bytes = b"") -> bytes:
    """Return all that a connection says, once it has closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(octets)
    said = await reader.read()
    writer.close()
    return said


def test_full_listener_says_so_under_tls(run: Any, certificate: tuple[str, str]) -> None:
    """RFC 5321 3.8, 4.3.2: 421 is what a client can act on; a closed connection tells it nothing."""
    made = make_listener(Intake(), **with_tls(certificate, protocol="submissions", max_connections=1))

    async def client(port: int) -> None:
        tls = trusting(certificate[0])
        first = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        assert (await first[0].readline())[:3] == b"220"
        said = await greeting_of(port, tls)
        assert said.startswith(b"421 4.3.2 ")
        assert b"too many connections" in said
        first[1].close()

    serve(run, made, client, is_async=True)
    assert counts(made, "mailrail_closed_untold_total") == {}
    assert made.farewells == 0


def test_full_listener_says_so_behind_a_proxy(run: Any) -> None:
    made = make_listener(Intake(), SMTP_SETTINGS, **BEHIND_PROXY, allow=("0.0.0.0/0",), max_connections=1)

    async def client(port: int) -> None:
        first = await asyncio.open_connection("127.0.0.1", port)
        first[1].write(V1)
        assert (await first[0].readline())[:3] == b"220"
        assert (await greeting_of(port, octets=V2)).startswith(b"421 4.3.2 ")
        first[1].close()

    serve(run, made, client, is_async=True)


def test_who_is_to_be_told_is_bounded_and_the_rest_is_closed_and_counted(
    run: Any, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_opening, "MAX_FAREWELLS", 2)
    made = make_listener(Intake(), **with_tls(certificate, protocol="submissions", max_connections=1))

    async def client(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port)]
        await wait_for(lambda: made.opening == 1)
        silent += [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await wait_for(lambda: made.farewells == 2)
        assert await greeting_of(port) == b""
        for _, each in silent:
            each.close()
        await wait_for(lambda: not made.farewells)

    serve(run, made, client, is_async=True)
    assert counts(made, "mailrail_closed_untold_total") == {("too many connections",): 1}


def test_shed_load_says_the_same_under_tls_and_behind_a_proxy(
    run: Any, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shedding = Shedding()
    shedding.measures = [Measure("loop lag", lambda: 9.0, 2.0, 1.0)]
    shedding.look(0.0)
    tls = make_listener(Intake(), shedding=shedding, **with_tls(certificate, protocol="submissions"))
    behind = make_listener(Intake(), SMTP_SETTINGS, shedding, **BEHIND_PROXY, allow=("0.0.0.0/0",))
    plain = make_listener(Intake(), SMTP_SETTINGS, shedding)

    async def through_tls(port: int) -> bytes:
        return await greeting_of(port, trusting(certificate[0]))

    async def through_proxy(port: int) -> bytes:
        return await greeting_of(port, octets=V1)

    said = {
        serve(run, made, client, is_async=True)
        for made, client in ((tls, through_tls), (behind, through_proxy), (plain, greeting_of))
    }
    assert said == {b"421 4.3.2 overloaded (loop lag), try again later\r\n"}
    monkeypatch.setattr(smtp_opening, "MAX_FAREWELLS", 0)
    assert serve(run, tls, greeting_of, is_async=True) == b""
    assert counts(tls, "mailrail_closed_untold_total") == {("loop lag",): 1}


async def wait_for(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


# -- proxies ----------------------------------------------------------------------------------------------

BEHIND_PROXY: dict[str, Any] = {"proxy_protocol": True, "proxy_networks": ("127.0.0.0/8",)}
V1 = b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 25\r\n"
V2 = SIGNATURE + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 9, 192, 0, 2, 1]) + b"\x0f\xa0\0\x19"
LOCAL = SIGNATURE + b"\x20\x00\0\0"


async def speak(port: int, octets: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    said = b""
    with contextlib.suppress(ConnectionResetError):  # closed before all was read
        while piece := await reader.read(65536):
            said += piece
    writer.close()
    return said


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_client_behind_a_proxy_is_the_peer(run: Any, header: bytes) -> None:
    """proxy-protocol.txt 2: the addresses in the header are those of the connection."""
    intake = Intake()
    made = make_listener(intake, SMTP_SETTINGS, **BEHIND_PROXY, allow=("192.0.2.0/24",))
    serve(
        run,
        made,
        lambda port: speak(port, header + HELLO + ENVELOPE + MESSAGE + b".\r\nQUIT\r\n"),
        is_async=True,
    )
    assert intake.taken[0][4].peer == "192.0.2.9"


def test_client_behind_a_proxy_is_asked_for_its_own_network(run: Any) -> None:
    made = make_listener(Intake(), SMTP_SETTINGS, **BEHIND_PROXY)
    said = serve(run, made, lambda port: speak(port, V1), is_async=True)
    assert said.startswith(b"554 5.7.1 mta1.example.net takes no mail from 192.0.2.9")


def test_proxy_may_look_whether_we_are_up_but_not_send(run: Any) -> None:
    """proxy-protocol.txt 2.2: LOCAL is the proxy itself, health checks too."""
    made = make_listener(Intake(), SMTP_SETTINGS, **BEHIND_PROXY, allow=("192.0.2.0/24",))
    said = serve(run, made, lambda port: speak(port, LOCAL + HELLO + ENVELOPE + b"QUIT\r\n"), is_async=True)
    assert said.startswith(b"220 ")
    assert b"\r\n554 5.7.1 mta1.example.net takes no mail from 127.0.0.1\r\n" in said


@pytest.mark.parametrize("octets", [HELLO, b"GET / HTTP/1.0\r\n\r\n", b"PROXY TCP4 x\r\n", V2[:12] + b"\x11"])
def test_proxy_without_a_header_is_closed_at_once(run: Any, octets: bytes) -> None:
    """proxy-protocol.txt 5: the receiver must not guess whether a header comes."""
    made = make_listener(Intake(), SMTP_SETTINGS, **BEHIND_PROXY)
    octets += b"\0" * 20
    assert serve(run, made, lambda port: speak(port, octets), is_async=True) == b""
    assert made.opening == 0


def test_header_has_a_time_limit(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.net.proxied.HEADER_TIMEOUT_S", 0.05)
    made = make_listener(Intake(), SMTP_SETTINGS, **BEHIND_PROXY)
    assert serve(run, made, lambda port: speak(port, V1[:10]), is_async=True) == b""


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_header_from_elsewhere_is_refused(run: Any, header: bytes) -> None:
    intake = Intake()
    for changes in ({}, {"proxy_protocol": True, "proxy_networks": ("192.0.2.0/24",)}):
        made = make_listener(intake, SMTP_SETTINGS, **changes)
        said = serve(run, made, lambda port: speak(port, header + HELLO + ENVELOPE), is_async=True)
        assert b"\r\n5" in said
        assert b"\r\n250" not in said
    assert intake.taken == []


def test_tls_from_the_first_octet_begins_behind_the_header(run: Any, certificate: tuple[str, str]) -> None:
    intake = Intake()
    made = make_listener(intake, **with_tls(certificate, protocol="submissions"), **BEHIND_PROXY)

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(V2)
            with trusting(certificate[0]).wrap_socket(sock) as tls, tls.makefile("rb") as lines:
                assert lines.readline().startswith(b"220 ")
                tls.sendall(b"QUIT\r\n")
                lines.read()

    serve(run, made, client)


HAPROXY = """
global
    maxconn 50
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen in
    bind 127.0.0.1:{front}
    server mailrail 127.0.0.1:{back} {option}
"""


@pytest.mark.stranger("haproxy")
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("protocol", ["smtp", "submissions"])
def test_haproxy_hands_its_clients_on(
    stranger: Callable[[str], str],
    run: Any,
    tmp_path: Path,
    certificate: tuple[str, str],
    option: str,
    protocol: str,
) -> None:
    intake = Intake()
    base: ListenerSettings = SMTP_SETTINGS if protocol == "smtp" else SUBMISSION
    made = make_listener(intake, base, **with_tls(certificate, protocol=protocol), **BEHIND_PROXY)

    def send(front: int) -> None:
        if protocol == "smtp":
            with smtplib.SMTP("127.0.0.1", front, source_address=("127.0.0.77", 0)) as smtp:
                smtp.sendmail(*SENDING)
            return
        with smtplib.SMTP_SSL(
            "127.0.0.1", front, source_address=("127.0.0.77", 0), context=trusting(certificate[0])
        ) as smtp:
            smtp.login("bob", "secret")
            smtp.sendmail(*SENDING)

    async def client(port: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            front = probe.getsockname()[1]
        file = tmp_path / "haproxy.cfg"
        file.write_text(HAPROXY.format(front=front, back=port, option=option))
        process = await asyncio.create_subprocess_exec(
            stranger("haproxy"), "-q", "-db", "-f", str(file), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", front)
                    writer.close()
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(send, front)
        finally:
            process.terminate()
            await process.wait()

    serve(run, made, client, is_async=True)
    assert intake.taken[0][4].peer == "127.0.0.77"


# -- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peername", "expected"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::1", 1, 0, 0), "::1"),
        (("::ffff:10.0.0.1", 1), "10.0.0.1"),
        (None, ""),
    ],
)
def test_format_peer(peername: object, expected: str) -> None:
    assert format_peer(peername) == expected
