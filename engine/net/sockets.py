"""A socket from a vmta's source address to a peer, or to a unix socket next door.

Owns: binding and connecting, and the socket options.
Never: decides where to connect, retries.
Fails: NetworkError with its phase; TimedOut, SourceUnavailable.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from engine.core.errors import NetworkError, SourceUnavailable, TimedOut

# Linux, include/uapi/linux/in.h; the socket module of Python 3.11 lacks it. The kernel then picks the
# port at connect, when it knows the peer: 28,000 sessions per peer instead of over all peers.
IP_BIND_ADDRESS_NO_PORT = 24

# How long octets that we sent may stay unacknowledged before the connection counts as lost. A live
# peer acknowledges within a second; RFC 5321's timers are for a live peer that thinks.
USER_TIMEOUT_MS = 60_000

# Our own host is the cause of these: no descriptor, buffer, or local port left.
_LOCAL_ERRORS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EADDRINUSE)
)


async def open_socket(source: str | None, address: str, port: int, timeout_s: float) -> socket.socket:
    """Return a non-blocking socket, bound to `source` and connected to `address`.

    Args:
        source: an address of this host, of the peer's family; None lets the kernel choose.
        address: IPv4 or IPv6, as text.

    Raises:
        SourceUnavailable: `source` is not on this host.
        TimedOut, NetworkError: phase "connect" is the peer's or the network's failing, phase "local"
            this host's own (no descriptor, no port).
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = _bind_socket(source, family)
    try:
        async with asyncio.timeout(timeout_s):
            await _connect(sock, (address, port))
    except TimeoutError as error:
        sock.close()
        raise TimedOut("connect", f"{address} port {port}: no connection in {timeout_s:g} s") from error
    except OSError as error:
        sock.close()
        raise _translate_connect(error, address, port) from error
    except BaseException:
        sock.close()
        raise
    return sock


async def open_unix_socket(path: str, timeout_s: float) -> socket.socket:
    """Return a non-blocking socket, connected to the unix socket at `path`.

    Raises:
        TimedOut, NetworkError: as `open_socket`.
    """
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise NetworkError("local", f"no socket: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            await _connect(sock, path)
    except TimeoutError as error:
        sock.close()
        raise TimedOut("connect", f"{path}: no connection in {timeout_s:g} s") from error
    except OSError as error:  # EAGAIN too: nobody has accepted for so long that its queue is full
        sock.close()
        raise NetworkError("connect", f"{path}: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_socket(source: str | None, family: socket.AddressFamily) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise NetworkError("local", f"no socket: {error.strerror}") from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        if source is not None:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
    except OSError as error:
        sock.close()
        raise SourceUnavailable("local", f"{source}: {error.strerror}") from error
    return sock


async def _connect(sock: socket.socket, address: tuple[str, int] | str) -> None:
    """Connect a non-blocking socket.

    Not loop.sock_connect: uvloop's sends even a numeric address through getaddrinfo in a thread (60 us more).
    """
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        connected: asyncio.Future[None] = loop.create_future()
        loop.add_writer(sock.fileno(), _set_once, connected)
        try:
            await connected
        finally:
            loop.remove_writer(sock.fileno())
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _set_once(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _translate_connect(error: OSError, address: str, port: int) -> NetworkError:
    phase = "local" if error.errno in _LOCAL_ERRORS else "connect"
    return NetworkError(phase, f"{address} port {port}: {error.strerror or error}")
