"""Sockets and sessions against scripted peers on loopback, under uvloop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hmac
import socket
import ssl
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import NetworkError, RemoteProtocolError, TimedOut, TlsFailed
from engine.net import connect
from engine.net.connect import Login, OpenSession, OpenTimeouts, Rejection, open_session
from engine.net.handshake import ClientContexts
from engine.net.sockets import open_socket, open_unix_socket
from engine.net.tls import TlsRequirement

EHLO_REPLY = b"250-mx.example\r\n250-PIPELINING\r\n250-Size 1000\r\n250 8BITMIME\r\n"
OPPORTUNISTIC = TlsRequirement(mode="opportunistic")
REQUIRED = TlsRequirement(mode="required")
VERIFY = TlsRequirement(mode="verify")
SHORT = OpenTimeouts(0.05, 0.05, 0.05)
LONG = OpenTimeouts(5.0, 5.0, 5.0)


class Recorder(asyncio.Protocol):
    """Keeps what it is told; the engine's own protocol in these tests."""

    def __init__(self) -> None:
        self.octets = b""
        self.has_changed = asyncio.Event()
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.octets += data
        self.has_changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self.has_changed.set()

    async def wait_change(self) -> None:
        async with asyncio.timeout(5):
            await self.has_changed.wait()
        self.has_changed.clear()


def script(*steps: bytes | tuple[bytes, bytes], then_close: bool = False) -> Callable[..., Any]:
    """Return a dialogue: octets to send unasked, or (a command's beginning, the reply)."""

    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for step in steps:
            if isinstance(step, tuple):
                line = await reader.readline()
                if not line.upper().startswith(step[0].upper()):
                    raise ConnectionError(f"{line!r} where {step[0]!r} was expected")
                writer.write(step[1])
            else:
                writer.write(step)
        if not then_close:
            await reader.read()

    return dialogue


async def open_to(port: int, timeouts: OpenTimeouts = LONG, **options: Any) -> OpenSession | Rejection:
    sock = await open_socket(None, "127.0.0.1", port, 5.0)
    return await open_session(
        sock, peer_host="mx.example", helo="mail1.acme.example", timeouts=timeouts, **options
    )


async def open_ok(port: int, **options: Any) -> OpenSession:
    session = await open_to(port, **options)
    assert isinstance(session, OpenSession)
    return session


def test_session_is_opened_and_handed_over(run, peer):
    async def scenario() -> None:
        dialogue = script(
            b"220 mx.example ESMTP\r\n", (b"EHLO MAIL1.ACME.EXAMPLE", EHLO_REPLY), (b"NOOP", b"250 ok\r\n")
        )
        async with peer(dialogue) as port:
            session = await open_ok(port)
            assert (session.greeting.code, session.greeting.text) == (220, "mx.example ESMTP")
            assert session.extensions.has_pipelining
            assert session.extensions.size_limit == 1000
            assert session.tls is None
            protocol = Recorder()
            session.hand_over(protocol)
            session.transport.write(b"NOOP\r\n")
            await protocol.wait_change()
            assert protocol.octets == b"250 ok\r\n"
            session.transport.close()
            await protocol.wait_change()
            assert protocol.is_lost

    run(scenario())


def test_own_protocol_learns_that_the_peer_has_closed(run, peer):
    async def scenario() -> None:
        greeted = script(b"220 hi\r\n", (b"EHLO", b"250 mx\r\n"), (b"QUIT", b"221 bye\r\n"), then_close=True)
        async with peer(greeted) as port:
            session = await open_ok(port)
            protocol = Recorder()
            session.hand_over(protocol)
            session.transport.write(b"QUIT\r\n")
            while not protocol.is_lost:
                await protocol.wait_change()
            assert protocol.octets == b"221 bye\r\n"

    run(scenario())


def test_replies_that_come_byte_by_byte_are_read(run, peer):
    """RFC 5321 section 4.2.1."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for reply in (b"220-mx\r\n220 ESMTP\r\n", EHLO_REPLY):
            for octet in reply:
                writer.write(bytes([octet]))
                await writer.drain()
            await reader.readline()

    async def scenario() -> None:
        async with peer(drip) as port:
            session = await open_ok(port)
            assert session.greeting.text == "mx\nESMTP"
            assert session.extensions.has_8bitmime
            session.close()

    run(scenario())


def test_octets_behind_the_ehlo_reply_reach_our_protocol(run, peer):
    unasked = b"421 4.3.2 shutting down\r\n"

    async def scenario() -> None:
        async with peer(script(b"220 hi\r\n", (b"EHLO", EHLO_REPLY + unasked))) as port:
            session = await open_ok(port)
            protocol = Recorder()
            session.hand_over(protocol)
            assert protocol.octets == unasked
            session.transport.close()

    run(scenario())


def test_octets_between_opening_and_hand_over_reach_our_protocol(run, peer):
    async def scenario() -> None:
        gate = asyncio.Event()
        sent = asyncio.Event()

        async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await script(b"220 hi\r\n", (b"EHLO", EHLO_REPLY), then_close=True)(reader, writer)
            await gate.wait()
            writer.write(b"421 4.3.2")
            await writer.drain()
            sent.set()
            await reader.read(1)
            writer.write(b" later\r\n")

        async with peer(dialogue) as port:
            session = await open_ok(port)
            gate.set()
            await sent.wait()
            opening = session._opening
            while not opening.surplus:
                await asyncio.sleep(0)
            protocol = Recorder()
            session.hand_over(protocol)
            session.transport.write(b"x")
            while not protocol.octets.endswith(b"later\r\n"):
                await protocol.wait_change()
            assert protocol.octets == b"421 4.3.2 later\r\n"
            session.transport.close()

    run(scenario())


def test_hand_over_after_the_peer_closed_says_what_it_said(run, peer):
    async def scenario() -> None:
        dialogue = script(b"220 hi\r\n", (b"EHLO", b"250 mx\r\n421 no time\r\n"), then_close=True)
        async with peer(dialogue) as port:
            session = await open_ok(port)
            while session._opening.transport is not None:
                await asyncio.sleep(0)
            with pytest.raises(NetworkError, match=r"connection lost.*421 no time"):
                session.hand_over(Recorder())

    run(scenario())


def test_refusing_greeting_is_a_value_and_gets_a_quit(run, peer):
    """RFC 5321 section 3.1."""

    async def scenario() -> None:
        heard = asyncio.get_running_loop().create_future()

        async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"554-5.7.1 go away\r\n554 5.7.1 203.0.113.9 is listed\r\n")
            heard.set_result(await reader.read())

        async with peer(dialogue) as port:
            refused = await open_to(port)
            assert refused.phase == "greeting"
            assert (refused.reply.code, refused.reply.enhanced) == (554, "5.7.1")
            assert refused.reply.text == "go away\n203.0.113.9 is listed"
            assert not refused.reply.synthetic
            assert await heard == b"QUIT\r\n"

    run(scenario())


@pytest.mark.parametrize("tail", [b"", b"250 2.0.0 hm\r\n"])
def test_ehlo_answered_with_421_is_a_rejection(run, peer, tail):
    """RFC 5321 section 3.8."""

    async def scenario() -> None:
        async with peer(script(b"220 hi\r\n", (b"EHLO", b"421 4.7.0 busy\r\n" + tail))) as port:
            refused = await open_to(port)
            assert (refused.phase, str(refused.reply)) == ("ehlo", "421 4.7.0 busy")

    run(scenario())


def test_peer_without_ehlo_gets_helo(run, peer):
    """RFC 5321 section 3.2."""

    async def scenario() -> None:
        dialogue = script(b"220 old\r\n", (b"EHLO", b"502 what?\r\n"), (b"HELO MAIL1", b"250 old\r\n"))
        async with peer(dialogue) as port:
            session = await open_ok(port)
            assert session.extensions.parameters == {}
            session.close()

    run(scenario())


def test_peer_that_refuses_helo_too_is_a_rejection(run, peer):
    """RFC 5321 section 3.2."""

    async def scenario() -> None:
        dialogue = script(b"220 hi\r\n", (b"EHLO", b"550 no\r\n"), (b"HELO", b"550 5.7.1 bad name\r\n"))
        async with peer(dialogue) as port:
            refused = await open_to(port)
            assert (refused.phase, str(refused.reply)) == ("ehlo", "550 5.7.1 bad name")

    run(scenario())


@pytest.mark.parametrize("code", [b"251", b"220", b"250"])
def test_hello_is_accepted_by_the_first_digit_of_its_reply(run, peer, code):
    """RFC 5321 section 4.3.2: another code of the same class means the same."""

    async def scenario() -> None:
        async with peer(
            script(b"220 hi\r\n", (b"EHLO", code + b"-mx\r\n" + code + b" PIPELINING\r\n"))
        ) as port:
            opened = await open_to(port)
            assert opened.extensions.has_pipelining
            opened.close()

    run(scenario())


@pytest.mark.parametrize("dialogue", [(b"354 go\r\n",), (b"220 hi\r\n", (b"EHLO", b"354 go\r\n"))])
def test_reply_that_neither_accepts_nor_refuses_is_no_refusal(run, peer, dialogue):
    """RFC 5321 section 4.3.2: what is not provided for there."""

    async def scenario() -> None:
        async with peer(script(*dialogue)) as port:
            with pytest.raises(RemoteProtocolError, match="out of place"):
                await open_to(port)

    run(scenario())


def test_421_behind_the_greeting_is_a_rejection(run, peer):
    """RFC 5321 section 3.8."""

    async def scenario() -> None:
        async with peer(script(b"220 hi\r\n421 4.3.2 or rather not\r\n", then_close=True)) as port:
            refused = await open_to(port)
            assert (refused.phase, refused.reply.code) == ("ehlo", 421)

    run(scenario())


def test_non_ascii_text_is_kept(run, peer):
    """RFC 5321 section 4.2; RFC 6531 section 3.7.4.2: replies may hold UTF-8."""

    async def scenario() -> None:
        async with peer(script(b"554 gr\xfc\xdfe\r\n")) as port:
            refused = await open_to(port)
            assert refused.reply.text == "grüße"

    run(scenario())


@pytest.mark.parametrize(
    "greeting",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\r\n",
        b"700 what\r\n",
        b"220 hi\r\n250 unasked\r\n",
        b"220-" + b"x" * 40_000,
        b"220-x\r\n" * 8_000,
        b"220 hi\r\n" + b"noise" * 100_000,
    ],
    ids=["http", "tls", "code", "two replies", "long line", "many lines", "flood"],
)
def test_nonsense_ends_the_session(run, peer, greeting):
    """RFC 5321 section 4.5.3.1.5."""

    async def scenario() -> None:
        async with peer(script(greeting)) as port:
            with pytest.raises((RemoteProtocolError, NetworkError)):
                await open_to(port)

    run(scenario())


@pytest.mark.parametrize(
    ("steps", "phase"),
    [
        ((), "greeting"),
        ((b"220-almost\r\n",), "greeting"),
        ((b"220 hi\r\n", (b"EHLO", b"250-mx\r\n")), "ehlo"),
    ],
)
def test_silence_times_out_in_its_phase(run, peer, steps, phase):
    """RFC 5321 section 4.5.3.2.1."""

    async def scenario() -> None:
        async with peer(script(*steps)) as port:
            with pytest.raises(TimedOut, match=r"no reply in 0.05 s") as caught:
                await open_to(port, SHORT)
            assert caught.value.phase == phase

    run(scenario())


@pytest.mark.parametrize(
    ("steps", "phase"),
    [((), "greeting"), ((b"22",), "greeting"), ((b"220 hi\r\n", (b"EHLO", b"250-m")), "ehlo")],
)
def test_close_is_a_network_error_in_its_phase(run, peer, steps, phase):
    async def scenario() -> None:
        async with peer(script(*steps, then_close=True)) as port:
            with pytest.raises(NetworkError) as caught:
                await open_to(port)
            assert caught.value.phase == phase

    run(scenario())


def test_cancelled_opening_closes_the_socket(run, peer):
    async def scenario() -> None:
        async with peer(script()) as port:
            sock = await open_socket(None, "127.0.0.1", port, 5.0)
            task = asyncio.ensure_future(
                open_session(sock, peer_host="mx.example", helo="me.example", timeouts=LONG)
            )
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            while sock.fileno() != -1:
                await asyncio.sleep(0)

    run(scenario())


def test_nothing_of_aiosmtplib_remains_after_the_hand_over(run, peer):
    async def scenario() -> None:
        async with peer(script(b"220 hi\r\n", (b"EHLO", EHLO_REPLY))) as port:
            session = await open_ok(port)
            leftover = weakref.ref(session._opening)
            session.hand_over(Recorder())
            is_gone = leftover() is None and count_openers() == 0
            session.close()
        assert is_gone

    run_without_gc(run, scenario())


def test_nothing_of_aiosmtplib_remains_after_a_rejection(run, peer):
    async def scenario() -> None:
        async with peer(script(b"554 no\r\n")) as port:
            await open_to(port)
        assert count_openers() == 0

    run_without_gc(run, scenario())


def count_openers() -> int:
    return sum(isinstance(thing, connect._Opener) for thing in gc.get_objects())


def run_without_gc(run: Callable[..., Any], scenario: Any) -> None:
    """Run a scenario in which only reference counts free memory."""
    gc.collect()
    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()


# -- STARTTLS -----------------------------------------------------------------------------------------


def tls_peer(certificate: Path, behind: bytes = b"") -> Callable[..., Any]:
    """A peer that offers STARTTLS; `behind` follows its 220 in clear."""

    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        offer = b"250-mx.example\r\n250 STARTTLS\r\n"
        hello = script(
            b"220 hi\r\n", (b"EHLO", offer), (b"STARTTLS", b"220 go\r\n" + behind), then_close=True
        )
        await hello(reader, writer)
        with contextlib.suppress(ssl.SSLError):
            await writer.start_tls(context)
            await script((b"EHLO", EHLO_REPLY), (b"NOOP", b"250 secret\r\n"))(reader, writer)

    return dialogue


def test_session_is_handed_over_after_starttls(run, peer, certificate):
    """RFC 3207 section 4.2: the client SHOULD send EHLO first, and forgets what it was told in clear."""

    async def scenario() -> None:
        async with peer(tls_peer(certificate)) as port:
            session = await open_ok(port, tls=OPPORTUNISTIC, contexts=ClientContexts())
            assert session.tls.version == "TLSv1.3"
            assert not session.tls.is_verified
            assert not session.extensions.has_starttls  # what was said in clear is forgotten
            assert session.extensions.has_pipelining
            protocol = Recorder()
            session.hand_over(protocol)
            session.transport.write(b"NOOP\r\n")
            await protocol.wait_change()
            assert protocol.octets == b"250 secret\r\n"
            session.transport.abort()
            await protocol.wait_change()

    run(scenario())


def test_certificate_is_verified_where_asked(run, peer, certificate):
    """RFC 9525 section 6."""

    async def scenario() -> None:
        contexts = ClientContexts()
        async with peer(tls_peer(certificate)) as port:
            with pytest.raises(TlsFailed, match=r"tls: certificate: self-signed") as caught:
                await open_to(port, tls=VERIFY, contexts=contexts)
            assert caught.value.result == "certificate-not-trusted"
            contexts.use("roots.pem", {"roots.pem": certificate.read_text()})
            session = await open_ok(port, tls=VERIFY, contexts=contexts)
            assert session.tls.is_verified
            session.close()

    run(scenario())


def test_octets_in_clear_behind_starttls_are_refused(run, peer, certificate):
    """RFC 3207 section 4.2: "The client MUST discard any knowledge obtained from the server" before TLS."""

    async def scenario() -> None:
        async with peer(tls_peer(certificate, b"250-mx\r\n250 AUTH\r\n")) as port:
            with pytest.raises(RemoteProtocolError, match="clear"):
                await open_to(port, tls=OPPORTUNISTIC, contexts=ClientContexts())

    run(scenario())


def test_nothing_of_aiosmtplib_remains_after_starttls(run, peer, certificate):
    async def scenario() -> None:
        async with peer(tls_peer(certificate)) as port:
            session = await open_ok(port, tls=OPPORTUNISTIC, contexts=ClientContexts())
            leftover = weakref.ref(session._opening)
            session.hand_over(Recorder())
            shell = leftover()
            is_gone = (shell is None or not vars(shell)) and count_openers() == 0
            session.transport.abort()
        assert is_gone

    run_without_gc(run, scenario())


@pytest.mark.parametrize(("mode", "has_session"), [("opportunistic", True), ("required", False)])
@pytest.mark.parametrize("reply", [b"454 4.7.0 no certificate\r\n", b"502 what?\r\n"])
def test_refused_starttls_leaves_a_clear_session_only_where_allowed(run, peer, mode, has_session, reply):
    """RFC 3207 section 4.1."""

    async def scenario() -> None:
        dialogue = script(b"220 hi\r\n", (b"EHLO", b"250-mx\r\n250 STARTTLS\r\n"), (b"STARTTLS", reply))
        async with peer(dialogue) as port:
            tls = TlsRequirement(mode=mode)
            outcome = await open_to(port, tls=tls, contexts=ClientContexts())
            if has_session:
                assert outcome.tls is None
                outcome.close()
            else:
                assert (outcome.phase, outcome.reply.enhanced) == ("tls", "4.7.4")
                assert outcome.reply.text.endswith(reply.decode().strip())
                assert outcome.tls.result == "starttls-not-supported"

    run(scenario())


def test_required_tls_that_is_not_offered_is_a_rejection(run, peer):
    """RFC 3207 section 4.1."""

    async def scenario() -> None:
        async with peer(script(b"220 hi\r\n", (b"EHLO", EHLO_REPLY))) as port:
            refused = await open_to(port, tls=REQUIRED, contexts=ClientContexts())
            assert (refused.phase, refused.reply.enhanced) == ("tls", "4.7.4")
            assert refused.reply.synthetic

    run(scenario())


@pytest.mark.parametrize("noise", [b"", b"\x15\x03\x03\x00\x02\x02\x28", b"not tls at all\r\n"])
def test_failed_handshake_is_a_network_error_of_phase_tls(run, peer, noise):
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        offer = (b"EHLO", b"250-mx\r\n250 STARTTLS\r\n")
        await script(b"220 hi\r\n", offer, (b"STARTTLS", b"220 go\r\n"), then_close=True)(reader, writer)
        await reader.read(100)
        writer.write(noise)

    async def scenario() -> None:
        async with peer(dialogue) as port:
            with pytest.raises(NetworkError) as caught:
                await open_to(port, tls=OPPORTUNISTIC, contexts=ClientContexts())
            assert caught.value.phase == "tls"

    run(scenario())


# -- sockets ------------------------------------------------------------------------------------------


# -- LMTP ----------------------------------------------------------------------------------------------


def test_lmtp_is_greeted_with_lhlo(run, peer):
    """RFC 2033 section 4.1."""

    async def scenario() -> None:
        async with peer(script(b"220 lmtp\r\n", (b"LHLO mail1.acme.example", EHLO_REPLY))) as port:
            session = await open_ok(port, is_lmtp=True)
            assert session.extensions.is_lmtp
            assert session.extensions.has_pipelining
            session.close()

    run(scenario())


def test_lmtp_never_falls_back_on_helo(run, peer):
    """RFC 2033 section 4.1: a server MUST NOT take HELO or EHLO."""

    async def scenario() -> None:
        async with peer(script(b"220 smtp\r\n", (b"LHLO", b"500 5.5.1 what?\r\n"))) as port:
            rejection = await open_to(port, is_lmtp=True)
            assert isinstance(rejection, Rejection)
            assert (rejection.phase, rejection.reply.code) == ("ehlo", 500)

    run(scenario())


def test_helo_is_for_permanent_refusals_alone(run, peer):
    """RFC 5321 section 3.2: back to HELO at a 5yz; a 4yz to EHLO means later."""

    async def scenario() -> None:
        async with peer(script(b"220 smtp\r\n", (b"EHLO", b"451 4.3.0 later\r\n"))) as port:
            rejection = await open_to(port)
            assert isinstance(rejection, Rejection)
            assert (rejection.phase, rejection.reply.code) == ("ehlo", 451)

    run(scenario())


def test_lmtp_over_a_unix_socket(run, tmp_path):
    async def scenario() -> None:
        path = str(tmp_path / "lmtp")
        dialogue = script(b"220 lmtp\r\n", (b"LHLO", EHLO_REPLY), (b"NOOP", b"250 2.0.0 ok\r\n"))
        is_served = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await dialogue(reader, writer)
            writer.close()
            await writer.wait_closed()
            is_served.set()

        server = await asyncio.start_unix_server(serve, path)
        session = await open_session(
            await open_unix_socket(path, 5.0),
            peer_host=f"unix:{path}",
            helo="v1.acme.example",
            timeouts=LONG,
            is_lmtp=True,
        )
        assert isinstance(session, OpenSession)
        protocol = Recorder()
        session.hand_over(protocol)
        session.transport.write(b"NOOP\r\n")
        await protocol.wait_change()
        assert protocol.octets == b"250 2.0.0 ok\r\n"
        session.transport.abort()
        await protocol.wait_change()
        await is_served.wait()
        server.close()
        await server.wait_closed()

    run(scenario())


# -- AUTH ----------------------------------------------------------------------------------------------

LOGIN = Login("ann", "sesame")
IN_CLEAR = Login("ann", "sesame", allows_plaintext=True)
PLAIN = base64.b64encode(b"\0ann\0sesame")


def test_no_credentials_in_clear_unless_allowed(run, peer):
    """RFC 4954 section 4: passwords in clear need TLS, for the client too; X.7.11 says so."""

    async def scenario() -> None:
        offer = b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n"
        async with peer(script(b"220 hi\r\n", (b"EHLO", offer))) as port:
            rejection = await open_to(port, login=LOGIN)
            assert isinstance(rejection, Rejection)
            assert (rejection.phase, str(rejection.reply)[:10]) == ("auth", "451 4.7.11")
        accepted = (b"AUTH PLAIN " + PLAIN, b"235 2.7.0 ok\r\n")
        async with peer(script(b"220 hi\r\n", (b"EHLO", offer), accepted)) as port:
            (await open_ok(port, login=IN_CLEAR)).close()

    run(scenario())


def test_login_asks_for_user_and_password_in_turn(run, peer):
    async def scenario() -> None:
        user, password = base64.b64encode(b"ann"), base64.b64encode(b"sesame")
        dialogue = script(
            b"220 hi\r\n",
            (b"EHLO", b"250-mx\r\n250 AUTH LOGIN\r\n"),
            (b"AUTH LOGIN " + user, b"334 UGFzc3dvcmQ6\r\n"),
            (password, b"235 2.7.0 ok\r\n"),
        )
        async with peer(dialogue) as port:
            (await open_ok(port, login=IN_CLEAR)).close()

    run(scenario())


def test_cram_md5_shows_no_password(run, peer):
    """RFC 2195 section 2: a keyed digest of the challenge."""

    async def scenario() -> None:
        challenge = b"<1896.697170952@postoffice.example>"
        digest = hmac.new(b"sesame", challenge, "md5").hexdigest()
        dialogue = script(
            b"220 hi\r\n",
            (b"EHLO", b"250-mx\r\n250 AUTH CRAM-MD5 PLAIN\r\n"),
            (b"AUTH CRAM-MD5", b"334 " + base64.b64encode(challenge) + b"\r\n"),
            (base64.b64encode(f"ann {digest}".encode()), b"235 2.7.0 ok\r\n"),
        )
        async with peer(dialogue) as port:
            (await open_ok(port, login=IN_CLEAR)).close()

    run(scenario())


def test_refused_credentials_are_a_rejection_that_does_not_repeat_them(run, peer):
    async def scenario() -> None:
        dialogue = script(
            b"220 hi\r\n",
            (b"EHLO", b"250-mx\r\n250 AUTH PLAIN\r\n"),
            (b"AUTH PLAIN", b"535 5.7.8 no such luck\r\n"),
        )
        async with peer(dialogue) as port:
            rejection = await open_to(port, login=IN_CLEAR)
            assert isinstance(rejection, Rejection)
            assert (rejection.phase, str(rejection.reply)) == ("auth", "535 5.7.8 no such luck")
            assert "sesame" not in f"{rejection} {IN_CLEAR}"

    run(scenario())


def test_peer_that_offers_no_auth_is_told_apart(run, peer):
    async def scenario() -> None:
        async with peer(script(b"220 hi\r\n", (b"EHLO", EHLO_REPLY))) as port:
            with pytest.raises(NetworkError, match="AUTH") as caught:
                await open_to(port, login=IN_CLEAR)
            assert caught.value.phase == "auth"

    run(scenario())
