"""The header that HAProxy puts in front of a connection: who the client behind it is.

Of what waits on the socket exactly the header is taken, so that what follows (a TLS handshake, a pipelined
client) is there for whoever reads next.

Owns: both versions of the header, their bounds.
Never: decides who may send one (the listener does).
Fails: RemoteProtocolError for octets that are no header; TimeoutError, ConnectionError from the socket.
Source: HAProxy's proxy-protocol.txt, sections 2.1 (v1), 2.2 (v2).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket

import msgspec

from engine.core.errors import RemoteProtocolError

MAX_V1_BYTES = 107  # proxy-protocol.txt 2.1
MAX_V2_BYTES = 4096  # of addresses and TLVs; HAProxy's own stay under 536
HEADER_TIMEOUT_S = 5.0  # it is sent with the connection (section 2: "at once")

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PORT = rb"(0|[1-9]\d{0,4})"  # section 2.1: no leading zeros
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) "
    + _PORT
    + b" "
    + _PORT
    + rb")\r\n"
)
_V2_HEAD_BYTES = 16
# Version 2; command LOCAL or PROXY; family and transport to the octets of one address.
_COMMANDS = {0x20: "LOCAL", 0x21: "PROXY"}
_ADDRESS_BYTES = {0x11: 4, 0x21: 16}  # TCP over IPv4, over IPv6; others tell nothing that we could use


class Origin(msgspec.Struct, frozen=True):
    """Who is behind a proxy; "" where it speaks for itself (a health check), or does not know."""

    address: str = ""
    port: int = 0


class HeaderReader:
    """Reads one header from pieces, and no octet more."""

    __slots__ = ("_octets", "origin")

    def __init__(self) -> None:
        self._octets = b""
        self.origin: Origin | None = None  # once it is complete

    def take(self, waiting: bytes) -> int:
        """Return how many of the octets that wait belong to the header; they are taken.

        Raises:
            RemoteProtocolError: this is no header.
        """
        octets = self._octets + waiting
        head = octets[: len(SIGNATURE)]
        if head == SIGNATURE[: len(head)]:
            end = self._find_v2_end(octets)
        elif octets[:6] == b"PROXY "[: len(octets[:6])]:
            end = self._find_v1_end(octets)
        else:
            raise RemoteProtocolError("no PROXY header")
        stop = end or len(octets)
        if end and stop <= len(octets):
            self.origin = parse_header(octets[:stop])
        taken = min(stop, len(octets)) - len(self._octets)
        self._octets = octets[:stop]
        return taken

    @staticmethod
    def _find_v1_end(octets: bytes) -> int:
        end = octets.find(b"\n", 0, MAX_V1_BYTES) + 1
        if not end and len(octets) >= MAX_V1_BYTES:
            raise RemoteProtocolError("PROXY header too long")
        return end

    @staticmethod
    def _find_v2_end(octets: bytes) -> int:
        if len(octets) < _V2_HEAD_BYTES:
            return _V2_HEAD_BYTES if len(octets) >= len(SIGNATURE) else 0
        size = int.from_bytes(octets[14:16], "big")
        if size > MAX_V2_BYTES:
            raise RemoteProtocolError("PROXY header too long")
        return _V2_HEAD_BYTES + size


def parse_header(octets: bytes) -> Origin:
    """Return whom a whole header speaks for.

    Raises:
        RemoteProtocolError: the header is wrong.
    """
    return _parse_v2(octets) if octets[:12] == SIGNATURE else _parse_v1(octets)


def _parse_v1(octets: bytes) -> Origin:
    found = _V1.fullmatch(octets)
    if found is None:
        raise RemoteProtocolError("PROXY header of a form that is unknown")
    if found[1] is None:
        return Origin()
    try:
        addresses = [ipaddress.ip_address(found[index].decode()) for index in (2, 3)]
    except ValueError:
        raise RemoteProtocolError("PROXY header with a bad address") from None
    if any(address.version != int(found[1]) for address in addresses):
        raise RemoteProtocolError("PROXY header with a bad address")
    if max(int(found[4]), int(found[5])) > 65535:
        raise RemoteProtocolError("PROXY header with a bad port")
    return Origin(_plain(addresses[0]), int(found[4]))


def _parse_v2(octets: bytes) -> Origin:
    command = _COMMANDS.get(octets[12])
    if command is None:
        raise RemoteProtocolError("PROXY header of a version or command that is unknown")
    size = _ADDRESS_BYTES.get(octets[13])
    if command == "LOCAL" or size is None:
        return Origin()
    body = octets[_V2_HEAD_BYTES:]
    if len(body) < 2 * size + 4:
        raise RemoteProtocolError("PROXY header too short")
    return Origin(
        _plain(ipaddress.ip_address(body[:size])), int.from_bytes(body[2 * size : 2 * size + 2], "big")
    )


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return an address as text; IPv4 in IPv6, as a proxy on a socket of both families says it, as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


async def read_header(sock: socket.socket) -> Origin:
    """Read the header from a socket that does not block; what follows it stays there.

    Raises:
        RemoteProtocolError: no header, or a wrong one.
        TimeoutError: it did not come in time.
        ConnectionError: the connection ended.
    """
    reader = HeaderReader()
    async with asyncio.timeout(HEADER_TIMEOUT_S):
        while reader.origin is None:
            waiting = await _peek(sock)
            if not waiting:
                raise ConnectionResetError("closed before the PROXY header")
            taken = reader.take(waiting)
            sock.recv(taken)
    return reader.origin


async def _peek(sock: socket.socket) -> bytes:
    """Return what waits on the socket, and leave it there; b"" at its end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return sock.recv(_V2_HEAD_BYTES + MAX_V2_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            readable = loop.create_future()
            loop.add_reader(sock.fileno(), _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(sock.fileno())


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
