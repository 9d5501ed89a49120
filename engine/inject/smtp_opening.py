"""What surrounds an SMTP conversation: a proxy's header, TLS, and what a message's context says of both.

Owns: the order in which a connection is opened (header, handshake, greeting), its time-outs.
Never: speaks SMTP (smtp.server does), keeps sessions (inject.listener does).
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING

from engine.core.errors import RemoteProtocolError
from engine.inject.context import FeedContext
from engine.inject.smtp import SMTPListener
from engine.net.alerts import telling
from engine.net.certificate import HANDSHAKE_TIMEOUT_S, SHUTDOWN_TIMEOUT_S
from engine.net.proxied import Origin, read_header
from engine.telemetry.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.smtp.server import ServerConversation

# Who comes where nobody is taken is told so (421), but what stands before the first word of SMTP costs: a
# header a wait, a handshake 1 to 2 ms. So many at a time get it, for a short while; the others are closed.
MAX_FAREWELLS = 16
FAREWELL_TIMEOUT_S = 5.0

log = Log("smtp")


async def open_connection(
    make_session: Callable[[SMTPListener, Origin | None], asyncio.Protocol],
    listener: SMTPListener,
    connection: socket.socket,
) -> None:
    """Make a session of a connection, once the proxy and TLS are done with it.

    Raises:
        OSError: the client has left, or was too slow.
    """
    loop = asyncio.get_running_loop()
    if not listener.has_preamble:
        await loop.connect_accepted_socket(partial(make_session, listener, None), connection)
        return
    if listener.takes_nobody:
        await _say_farewell(make_session, listener, connection)
        return
    listener.opening += 1
    try:
        await _open(make_session, listener, connection)
    finally:
        listener.opening -= 1


async def _say_farewell(
    make_session: Callable[[SMTPListener, Origin | None], asyncio.Protocol],
    listener: SMTPListener,
    connection: socket.socket,
) -> None:
    """Open a connection only to have its session refuse it (or take it, where a place is free by then)."""
    if listener.farewells >= MAX_FAREWELLS:
        listener.count_untold()
        connection.close()
        return
    listener.farewells += 1
    try:
        await _open(make_session, listener, connection, FAREWELL_TIMEOUT_S)
    finally:
        listener.farewells -= 1


async def _open(
    make_session: Callable[[SMTPListener, Origin | None], asyncio.Protocol],
    listener: SMTPListener,
    connection: socket.socket,
    handshake_timeout_s: float = 0.0,
) -> None:
    name = listener.settings.name
    peer = format_peer(connection.getpeername())
    origin: Origin | None = None
    if listener.settings.proxy_protocol and listener.is_proxy(peer):
        try:
            origin = await read_header(connection)
        except RemoteProtocolError as error:
            log.warning("connection refused", listener=name, peer=peer, reason=str(error))
            listener.count_refusal(521)
            connection.close()
            return
    make = partial(make_session, listener, origin)
    loop = asyncio.get_running_loop()
    if not listener.is_implicit_tls:
        await loop.connect_accepted_socket(make, connection)
        return
    client = origin.address if origin is not None and origin.address else peer
    context = listener.tls_context
    stranger = listener.stranger(client) if origin is None or origin.address else None
    if context is None or stranger is not None:
        log.info("connection refused", listener=name, peer=client, reason=str(stranger or "no certificate"))
        listener.count_refusal(stranger.code if stranger is not None else 454)
        connection.close()  # a stranger is not worth a handshake
        return
    try:
        with telling(context, connection.fileno()) as lent:
            await loop.connect_accepted_socket(
                make,
                connection,
                ssl=lent,
                ssl_handshake_timeout=handshake_timeout_s or HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            )
    except OSError as error:
        _handshake_failed(listener, client, error)
        connection.close()
    else:
        listener.count_handshake("done")


async def start_tls(
    listener: SMTPListener, transport: asyncio.Transport, protocol: asyncio.Protocol, peer: str
) -> asyncio.Transport | None:
    """Do the handshake behind STARTTLS; None if it failed: the connection has ended then."""
    context = listener.tls_context
    if context is None:  # taken from the configuration since it was offered
        _handshake_failed(listener, peer, ConnectionAbortedError("no certificate any more"))
        transport.abort()
        return None
    loop = asyncio.get_running_loop()
    try:
        with telling(context, transport.get_extra_info("socket").fileno()) as lent:
            secured = await loop.start_tls(
                transport,
                protocol,
                lent,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            )
    except OSError as error:
        _handshake_failed(listener, peer, error)
        transport.abort()
        return None
    if secured is None or secured.is_closing():
        transport.abort()
        return None
    listener.count_handshake("done")
    return secured


def _handshake_failed(listener: SMTPListener, peer: str, error: OSError) -> None:
    listener.count_handshake("failed")
    log.info("handshake failed", listener=listener.settings.name, peer=peer, reason=str(error) or "closed")


def make_context(
    listener: SMTPListener,
    conversation: ServerConversation,
    peer: str,
    transport: asyncio.Transport | None,
) -> FeedContext:
    """Return what acceptance is told of a session's messages."""
    settings, access = listener.settings, conversation.access
    protocol = conversation.protocol
    if access.is_secure and transport is not None:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            protocol += f" ({tls.version()} {(tls.cipher() or ('?',))[0]})"
    return FeedContext(
        "smtp",
        settings.name,
        customer=listener.passwords.customer_of(access.user) if listener.has_auth else settings.customer,
        is_trusted=settings.trusted,
        peer=peer,
        helo=access.xhelo or conversation.helo,
        protocol=protocol,
        max_hold_s=settings.max_hold_s,
    )


def format_peer(peername: object) -> str:
    """Return the address of a peer; IPv4 in IPv6 as IPv4."""
    address = str(peername[0]) if isinstance(peername, tuple) and peername else ""
    return address.removeprefix("::ffff:") if "." in address else address
