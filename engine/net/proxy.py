"""Connections to peers through a proxy that holds the vmta's address.

HAProxy gets the PROXY protocol's header ahead of everything: from the vmta's address to the peer's. It must
be set to connect there, from there (docs/operations.md has the lines). SOCKS5 is asked for the peer
(RFC 1928), with user and password where there are some (RFC 1929); from where it connects is its own matter,
and kept where it says so.

Owns: the header's octets; which failures are the proxy's and which the peer's.
Never: resolves names; a peer is handed on as the address that was chosen.
Fails: NetworkError, TimedOut: phase "proxy" is the proxy's own failing, "connect" what it says of the peer.
Source: HAProxy's doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

from python_socks._connectors.socks5_async import Socks5AsyncConnector
from python_socks._errors import IncompleteReadError
from python_socks._protocols.errors import ReplyError
from python_socks.async_.asyncio._resolver import Resolver
from python_socks.async_.asyncio._stream import AsyncioSocketStream

from engine.core.errors import NetworkError, TimedOut
from engine.net.sockets import open_socket
from engine.settings.model import EgressProxy

_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_PROXY = 0x21  # version 2, a connection on behalf of another
_V2_FAMILIES = {4: 0x11, 6: 0x21}  # TCP over IPv4, over IPv6

# RFC 1928 section 6: network unreachable, host unreachable, refused, TTL expired: that is said of the peer.
_OF_THE_PEER = frozenset((3, 4, 5, 6))


class EgressSocket(socket.socket):
    """A connection to a proxy; `outer` is from where it connects on, where it has said so."""

    outer = ""


def format_header(version: int, source: str, address: str, port: int) -> bytes:
    """Return the PROXY header of a connection from `source`, of any port, to the peer."""
    own, peer = ip_address(source), ip_address(address)
    assert own.version == peer.version
    if version == 1:
        return f"PROXY TCP{own.version} {own} {peer} 0 {port}\r\n".encode()
    addresses = own.packed + peer.packed + (0).to_bytes(2, "big") + port.to_bytes(2, "big")
    head = bytes((_V2_PROXY, _V2_FAMILIES[own.version])) + len(addresses).to_bytes(2, "big")
    return _V2_SIGNATURE + head + addresses


async def open_through(
    proxy: EgressProxy, proxy_address: str, source: str, peer: tuple[str, int], timeout_s: float
) -> EgressSocket:
    """Return a socket whose other end is the peer, or will be as soon as the proxy has connected on.

    Args:
        proxy_address: the proxy's host, as an address.
        source: the vmta's address, of the peer's family.
        peer: address and port.
    """
    sock = await _open_proxy(proxy, proxy_address, timeout_s)
    if proxy.kind == "socks5":
        return await _ask_socks(proxy, sock, peer, timeout_s)
    header = format_header(1 if proxy.kind == "haproxy-v1" else 2, source, *peer)
    try:
        sent = sock.send(header)  # the buffer of a new connection is empty
    except OSError as error:
        sock.close()
        raise NetworkError("proxy", f"{proxy}: {error.strerror}") from error
    assert sent == len(header)
    return sock


async def _open_proxy(proxy: EgressProxy, proxy_address: str, timeout_s: float) -> EgressSocket:
    try:
        sock = await open_socket(None, proxy_address, proxy.port, timeout_s)
    except TimedOut as error:
        raise TimedOut("proxy", f"{proxy}: {error.detail}") from error
    except NetworkError as error:
        phase = "local" if error.phase == "local" else "proxy"
        raise NetworkError(phase, f"{proxy}: {error.detail}") from error
    return EgressSocket(fileno=sock.detach())


async def _ask_socks(
    proxy: EgressProxy, sock: EgressSocket, peer: tuple[str, int], timeout_s: float
) -> EgressSocket:
    """Have the proxy connect on. (The package's own client keeps the reply, with the address, to itself.)"""
    loop = asyncio.get_running_loop()
    connector = Socks5AsyncConnector(proxy.user or None, proxy.password or None, None, Resolver(loop))
    try:
        async with asyncio.timeout(timeout_s):
            reply = await connector.connect(AsyncioSocketStream(sock, loop), *peer)
    except BaseException as error:
        sock.close()
        if isinstance(error, TimeoutError):
            raise TimedOut("proxy", f"{proxy}: no connection in {timeout_s:g} s") from error
        if isinstance(error, ReplyError):
            phase = "connect" if error.error_code in _OF_THE_PEER else "proxy"
            detail = f"{peer[0]} port {peer[1]} through {proxy}: {error}"
            raise NetworkError(phase, detail) from error
        if isinstance(error, OSError | IncompleteReadError | ValueError):
            detail = getattr(error, "strerror", "") or str(error)
            raise NetworkError("proxy", f"{proxy}: {detail}") from error
        raise
    sock.outer = _outer_address(reply.bound_host)
    return sock


def _outer_address(bound: str) -> str:
    """Return the address that a proxy says it connects from; "" where it says none (0.0.0.0, a name)."""
    try:
        address = ip_address(bound)
    except ValueError:
        return ""
    return "" if address.is_unspecified else str(address)
