"""An SMTP or LMTP session, opened over a connected socket.

`open_session` lets aiosmtplib read the greeting, say EHLO (or HELO), do STARTTLS and AUTH, and gives the
transport back for a protocol of our own (`OpenSession.hand_over`).

Owns: the seam to aiosmtplib (nothing else in the engine knows its private names),
    and every octet that the peer sent before the hand-over: none is dropped.
Never: sends mail, decides where to connect, retries.
Fails: NetworkError with its phase; TimedOut; RemoteProtocolError where the peer
    talks nonsense. A peer that refuses is a value: `Rejection`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
    SMTPResponse,
    SMTPResponseException,
    SMTPTimeoutError,
)
from aiosmtplib.protocol import SMTPProtocol

from engine.core.address import literal_address
from engine.core.errors import NetworkError, RemoteProtocolError, TimedOut, TlsFailed
from engine.core.reply import Reply, make_reply
from engine.net.extensions import NO_EXTENSIONS, Extensions, parse_extensions
from engine.net.handshake import ClientContexts, Handshake, explain
from engine.net.tls import (
    CLEAR,
    NOT_ASKED,
    STARTTLS_NOT_SUPPORTED,
    SUCCESS,
    TlsFacts,
    TlsOutcome,
    TlsRequirement,
)
from engine.smtp.wire import ReplyReader

# What a peer may send unasked before the hand-over; a reply that does not fit is bounded by aiosmtplib.
_MAX_SURPLUS_BYTES = 16_384


_HELLOS = (b"EHLO", b"LHLO", b"HELO")


class OpenTimeouts(NamedTuple):
    """How long each step of opening may take, in seconds (RFC 5321 section 4.5.3.2; policy has them)."""

    greeting_s: float = 300.0
    ehlo_s: float = 300.0
    tls_s: float = 60.0


class Login(msgspec.Struct, frozen=True):
    """Who to be at a peer (RFC 4954); `allows_plaintext`: without TLS, too."""

    user: str
    password: str
    allows_plaintext: bool = False

    def __repr__(self) -> str:  # whatever prints it never prints the password
        return f"Login({self.user!r})"


class Rejection(msgspec.Struct, frozen=True):
    """The peer (or the TLS requirement) refused the session in `phase`: greeting, ehlo, tls or auth.

    `tls` says more where the requirement did.
    """

    phase: str
    reply: Reply
    tls: TlsOutcome | None = None


class OpenSession:
    """A session that is open: greeted, EHLO said, TLS up where it should be."""

    __slots__ = ("_opening", "extensions", "greeting", "outcome", "transport")

    def __init__(
        self,
        opening: _OpeningProtocol,
        greeting: Reply,
        extensions: Extensions,
        outcome: TlsOutcome,
    ) -> None:
        assert opening.transport is not None
        self.transport: asyncio.Transport = opening.transport  # type: ignore[assignment]
        self.greeting = greeting
        self.extensions = extensions
        self.outcome = outcome
        self._opening: _OpeningProtocol | None = opening

    @property
    def tls(self) -> TlsFacts | None:
        """What protects it; None in clear."""
        return self.outcome.facts

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Make `protocol` the transport's own: calls its `connection_made`, and `data_received` with
        whatever the peer has sent unasked.

        Raises:
            NetworkError: the peer has closed since.
        """
        opening, self._opening = self._opening, None
        assert opening is not None, "a session is handed over once"
        if opening.transport is None or self.transport.is_closing():
            raise NetworkError("ehlo", f"connection lost {_show(opening.surplus)}".rstrip())
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        surplus = bytes(opening.surplus)
        opening.strip()
        if surplus:
            protocol.data_received(surplus)

    def leave(self) -> None:
        """Say QUIT to a peer that we have no use for, and close without waiting for its word."""
        self.transport.write(b"QUIT\r\n")
        self.transport.close()

    def close(self) -> None:
        """Give the session up instead of handing it over."""
        self._opening = None
        self.transport.abort()


async def open_session(
    sock: socket.socket,
    *,
    peer_host: str,
    helo: str,
    timeouts: OpenTimeouts,
    tls: TlsRequirement = CLEAR,
    contexts: ClientContexts | None = None,
    login: Login | None = None,
    is_lmtp: bool = False,
) -> OpenSession | Rejection:
    """Open an SMTP (or LMTP) session over a connected socket, which from now on belongs to the session.

    Args:
        peer_host: the MX host's name (or the domain literal): SNI, and whom the certificate must name
            where the requirement verifies and has no names of its own.
        helo: the name to give in EHLO.
        contexts: of the shard; needed unless `tls` is "none".
        login: who to be there.

    Raises:
        NetworkError, TimedOut: phase is greeting, ehlo or tls; the socket is closed.
        TlsFailed: the handshake failed, or did not prove what is required.
        RemoteProtocolError: what the peer said is no reply, or came where it may not.
    """
    smtp = _Opener(sock, literal_address(peer_host) or peer_host, helo, is_lmtp=is_lmtp)
    try:
        greeting = await _read_greeting(smtp, timeouts.greeting_s)
        extensions = await _say_hello(smtp, timeouts.ehlo_s)
        outcome = TlsOutcome(NOT_ASKED)
        if tls.mode != "none":
            assert contexts is not None
            handshake = Handshake(contexts, tls, smtp.hostname or "", sock.getpeername()[:2])
            outcome = await _start_tls(smtp, extensions, timeouts.tls_s, tls, handshake)
        if outcome.facts is not None:
            extensions = await _say_hello(smtp, timeouts.ehlo_s)
            handshake.keep_ticket(smtp.get_transport_info("ssl_object"), outcome.facts)
        else:
            extensions = extensions.in_clear()
        if login is not None:
            await _log_in(smtp, login, timeouts.ehlo_s, is_clear=outcome.facts is None)
        return OpenSession(smtp.release(), greeting, extensions, outcome)
    except _RejectedError as refused:
        smtp.leave()
        return Rejection(refused.phase, refused.reply, refused.tls)
    except BaseException:
        smtp.abandon()
        raise


async def _read_greeting(smtp: _Opener, timeout_s: float) -> Reply:
    with _translated("greeting", smtp, timeout_s):
        response = await smtp.connect(timeout=timeout_s)
        if not 200 <= response.code < 300:
            raise SMTPResponseException(response.code, response.message)
        return _to_reply(response.code, response.message)


async def _say_hello(smtp: _Opener, timeout_s: float) -> Extensions:
    """Say EHLO, and HELO to a peer that permanently refuses that (RFC 5321 section 3.2); never in LMTP."""
    with _translated("ehlo", smtp, timeout_s):
        smtp.check_silence()
        try:
            text = (await smtp.ehlo(timeout=timeout_s)).message
        except SMTPHeloError as error:
            if not 500 <= error.code < 600 or not smtp.is_connected or smtp.is_lmtp:
                raise
        else:
            return parse_extensions(text.partition("\n")[2], is_lmtp=smtp.is_lmtp)
        smtp.check_silence()
        await smtp.helo(timeout=timeout_s)
        return NO_EXTENSIONS


async def _start_tls(
    smtp: _Opener, extensions: Extensions, timeout_s: float, tls: TlsRequirement, handshake: Handshake
) -> TlsOutcome:
    """Encrypt the session, or leave it in clear where the peer will not and the requirement allows that."""
    if not extensions.has_starttls:
        return _stay_clear(tls, "the peer does not offer STARTTLS")
    with _translated("tls", smtp, timeout_s):
        smtp.check_silence()
    try:
        with _translated("tls", smtp, timeout_s), handshake.context() as context:
            await smtp.starttls(tls_context=context, timeout=timeout_s)
    except _RejectedError as refused:
        if refused.reply.code == 421:
            raise
        return _stay_clear(tls, f"STARTTLS refused: {refused.reply}")
    except NetworkError as error:
        raise handshake.failed(error) from error
    if smtp.opening.surplus:
        # RFC 3207 section 4.2: what came in clear behind the 220 may be another's word.
        raise RemoteProtocolError("octets in clear behind the reply to STARTTLS")
    try:
        facts = handshake.check(smtp.get_transport_info("ssl_object"))
    except TlsFailed as error:
        raise handshake.failed(error) from None
    return TlsOutcome(SUCCESS, "", facts)


async def _log_in(smtp: _Opener, login: Login, timeout_s: float, *, is_clear: bool) -> None:
    """Say who we are, by what the peer offers of CRAM-MD5, PLAIN and LOGIN, in that order."""
    if is_clear and not login.allows_plaintext:
        # RFC 4954 section 6 has this code for the peer's word, 538 5.7.11; here it is ours, and mail waits.
        raise _RejectedError("auth", make_reply(451, "4.7.11", "AUTH needs TLS, which the session has not"))
    with _translated("auth", smtp, timeout_s):
        smtp.check_silence()
        await smtp.login(login.user, login.password, timeout=timeout_s)


def _stay_clear(tls: TlsRequirement, why: str) -> TlsOutcome:
    outcome = TlsOutcome(STARTTLS_NOT_SUPPORTED, why)
    if tls.allows_clear:
        return outcome
    # RFC 3463 section 3.8: X.7.4, a security feature that is required but not supported.
    raise _RejectedError("tls", make_reply(451, "4.7.4", f"TLS is required: {why}"), outcome)


class _OpeningProtocol(SMTPProtocol):
    """aiosmtplib's protocol, but what arrives unasked is kept, where aiosmtplib drops it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.surplus = bytearray()

    def data_received(self, data: bytes) -> None:
        waiter = self._response_waiter
        if waiter is None or waiter.done() or not self._response_pending:
            self.surplus += data
        else:
            super().data_received(data)
            if waiter.done():
                self.surplus += self._buffer
                self._buffer.clear()
        if len(self.surplus) > _MAX_SURPLUS_BYTES and self.transport is not None:
            self.transport.abort()  # type: ignore[attr-defined]

    def strip(self) -> None:
        """Drop what we hold: below TLS, uvloop's plain transport never lets go of us (1 kB a session)."""
        self.__dict__.clear()

    def unasked_reply(self) -> SMTPResponse | None:
        """Return the whole reply that arrived unasked, or None."""
        if not self.surplus:
            return None
        self._buffer[:] = self.surplus
        try:
            return self._read_response_from_buffer()
        except SMTPException:
            return None


class _Opener(SMTP):
    """aiosmtplib's client with our protocol inside, which can let go of its connection."""

    def __init__(self, sock: socket.socket, peer_host: str, helo: str, *, is_lmtp: bool = False) -> None:
        super().__init__(hostname=peer_host, local_hostname=helo, sock=sock, start_tls=False, timeout=None)
        self.is_lmtp = is_lmtp
        loop = asyncio.get_running_loop()
        self.opening = _OpeningProtocol(loop=loop, connection_lost_callback=self._on_connection_lost)

    async def _create_connection(self, timeout: float | None) -> SMTPResponse:  # noqa: ASYNC109 - its signature
        """Take the socket over and return the greeting, whatever its code."""
        assert self.loop is not None
        self.protocol = protocol = self.opening
        assert self.sock is not None
        if self.sock.family == socket.AF_UNIX:
            self.transport, _ = await self.loop.create_unix_connection(lambda: protocol, sock=self.sock)
        else:
            self.transport, _ = await self.loop.create_connection(lambda: protocol, sock=self.sock)
        return await protocol.read_response(timeout=timeout)

    async def execute_command(self, *args: bytes, **kwargs: Any) -> SMTPResponse:
        """Send a command; LMTP's hello is EHLO by another name (RFC 2033 section 4.1)."""
        if self.is_lmtp and args[0] == b"EHLO":
            args = (b"LHLO", *args[1:])
        response = await super().execute_command(*args, **kwargs)
        if args[0] in _HELLOS and 200 <= response.code < 300:  # RFC 5321 section 4.3.2: by its first digit
            return SMTPResponse(250, response.message)
        return response

    def check_silence(self) -> None:
        """Raise where the peer has spoken unasked: its reply, if that is a 421, else RemoteProtocolError."""
        if not self.opening.surplus:
            return
        response = self.opening.unasked_reply()
        if response is None or response.code != 421:
            raise RemoteProtocolError(f"octets that nobody asked for: {_show(self.opening.surplus)}")
        raise SMTPResponseException(response.code, response.message)

    def release(self) -> _OpeningProtocol:
        """Let go of the connection."""
        if self.protocol is None:
            raise NetworkError("ehlo", f"connection lost {_show(self.opening.surplus)}".rstrip())
        self.protocol = self.transport = self.sock = None
        self._cut()
        return self.opening

    def leave(self) -> None:
        """Say QUIT to a peer that refused us, and close without waiting for its word."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(b"QUIT\r\n")  # type: ignore[attr-defined]
        self.close()
        self._cut()

    def abandon(self) -> None:
        """Close at once, whatever state the connection is in."""
        transport, sock = self.transport, self.sock
        self.close()
        self._cut()
        if transport is not None:
            transport.abort()  # type: ignore[attr-defined]
        elif sock is not None:
            sock.close()

    def _cut(self) -> None:
        """Cut the circle of references that would keep us in memory until the collector's next round."""
        self.opening._connection_lost_callback = None


class _RejectedError(Exception):
    """Carries a rejection up to `open_session`, from where aiosmtplib raised it."""

    def __init__(self, phase: str, reply: Reply, tls: TlsOutcome | None = None) -> None:
        self.phase = phase
        self.reply = reply
        self.tls = tls


@contextmanager
def _translated(phase: str, smtp: _Opener, timeout_s: float) -> Iterator[None]:
    """Translate what aiosmtplib and the loop raise in this phase."""
    try:
        yield
    except SMTPResponseException as error:
        if 100 <= error.code < 400 and phase != "tls":  # no refusal, and not what was asked for
            detail = f"{error.code} {error.message[:80]}"
            raise RemoteProtocolError(f"out of place as {phase}: {detail!r}") from None
        raise _RejectedError(phase, _to_reply(error.code, error.message)) from None
    except (SMTPTimeoutError, TimeoutError):
        raise TimedOut(phase, f"no reply in {timeout_s:g} s") from None
    except ssl.SSLError as error:
        raise explain(error) from error
    except (SMTPException, OSError) as error:
        response = smtp.opening.unasked_reply()
        if response is not None:  # the peer said why, and closed
            raise _RejectedError(phase, _to_reply(response.code, response.message)) from None
        raise NetworkError(phase, str(error)) from error
    except UnicodeError as error:  # a host name that no certificate can carry
        raise NetworkError(phase, str(error)) from error


def _to_reply(code: int, message: str) -> Reply:
    """Parse a reply as a session's own replies are parsed; aiosmtplib has taken it apart.

    Raises:
        RemoteProtocolError: it is none (aiosmtplib's code is -1 then).
    """
    if code < 0:
        raise RemoteProtocolError(f"not a reply: {message[:80]!r}")
    *lines, last = message.split("\n")
    text = "".join(f"{code}-{line}\n" for line in lines) + f"{code} {last}\n"
    return ReplyReader().feed(text.encode("utf-8", "surrogateescape"))[0]


def _show(surplus: bytes | bytearray) -> str:
    """Return what a peer said unasked, for people; "" for nothing."""
    return repr(bytes(surplus[:80])) if surplus else ""
