"""The PROXY header: exactly it is taken, whatever pieces it comes in."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.errors import RemoteProtocolError
from engine.net.proxied import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    SIGNATURE,
    HeaderReader,
    Origin,
    parse_header,
    read_header,
)


def v2(command: int, family: int, body: bytes, size: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + (size or len(body)).to_bytes(2, "big") + body


FOUR = bytes([192, 0, 2, 9, 192, 0, 2, 1]) + (4000).to_bytes(2, "big") + (25).to_bytes(2, "big")
SIX = ipaddress.ip_address("2001:db8::9").packed + ipaddress.ip_address("2001:db8::1").packed + FOUR[8:]
CRC_TLV = b"\x03\0\x04abcd"
HEADERS = [
    (b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 25\r\n", Origin("192.0.2.9", 4000)),
    (b"PROXY TCP6 2001:DB8::9 2001:db8::1 4000 25\r\n", Origin("2001:db8::9", 4000)),
    (b"PROXY UNKNOWN\r\n", Origin()),
    (b"PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n", Origin()),
    (v2(0x21, 0x11, FOUR), Origin("192.0.2.9", 4000)),
    (v2(0x21, 0x11, FOUR + CRC_TLV), Origin("192.0.2.9", 4000)),
    (v2(0x21, 0x21, SIX), Origin("2001:db8::9", 4000)),
    (v2(0x20, 0x00, b""), Origin()),
    (v2(0x20, 0x11, FOUR), Origin()),
    (v2(0x21, 0x31, b"/" * 216), Origin()),
    (v2(0x21, 0x00, b"x" * MAX_V2_BYTES), Origin()),
]


def read(octets: bytes, pieces: list[int]) -> tuple[Origin | None, int]:
    """Feed what waits piece by piece, as a socket does; return the origin and how much was taken."""
    reader, taken, arrived = HeaderReader(), 0, 0
    for size in [*pieces, len(octets)]:
        arrived = min(arrived + size, len(octets))
        while reader.origin is None and taken < arrived:
            count = reader.take(octets[taken:arrived])
            assert count > 0
            taken += count
    return reader.origin, taken


@pytest.mark.parametrize(("header", "origin"), HEADERS)
@pytest.mark.parametrize("size", [1, 5, 13, 17, 10_000])
def test_header_is_taken_and_nothing_behind_it(header: bytes, origin: Origin, size: int) -> None:
    """proxy-protocol.txt 2.1, 2.2."""
    pieces = [size] * (len(header) // size + 1)
    assert read(header + b"EHLO x\r\n", pieces) == (origin, len(header))


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"\x16\x03\x01\x02\x00",
        b"PROXY TCP4 192.0.2.9 192.0.2.1 4000\r\n",
        b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 25\n",
        b"PROXY TCP4 2001:db8::9 192.0.2.1 4000 25\r\n",
        b"PROXY TCP4 192.0.2.999 192.0.2.1 4000 25\r\n",
        b"PROXY TCP4 192.0.2.9 192.0.2.1 65536 25\r\n",
        b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 99999\r\n",
        b"PROXY TCP4 192.0.2.9 192.0.2.1 0400 25\r\n",
        b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 025\r\n",
        b"PROXY UDP4 192.0.2.9 192.0.2.1 4000 25\r\n",
        b"PROXY UNKNOWN \xff\r\n",
        b"PROXY " + b"x" * MAX_V1_BYTES,
        b"PROXY  TCP4 192.0.2.9 192.0.2.1 4000 25\r\n",
        SIGNATURE[:-1] + b"x",
        v2(0x11, 0x11, FOUR),
        v2(0x22, 0x11, FOUR),
        v2(0x21, 0x11, FOUR[:-1]),
        v2(0x21, 0x21, FOUR),
        v2(0x21, 0x11, FOUR, MAX_V2_BYTES + 1),
    ],
)
def test_what_is_no_header_is_refused(octets: bytes) -> None:
    """proxy-protocol.txt section 2.1: ports are 0 to 65535, both, without leading zeros."""
    with pytest.raises(RemoteProtocolError):
        read(octets, [1] * len(octets))
    with pytest.raises(RemoteProtocolError):
        read(octets, [])


@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", SIGNATURE]))
@example(b"", b"PROXY")
def test_any_octets_are_a_header_or_refused_within_bounds(octets: bytes, head: bytes) -> None:
    try:
        origin, taken = read(head + octets, [])
    except RemoteProtocolError:
        return
    assert taken <= 16 + MAX_V2_BYTES
    assert origin is None or not origin.address or ipaddress.ip_address(origin.address)


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


def finish(work: Callable[[], object], *sockets: socket.socket) -> None:
    async def scenario() -> None:
        await work()  # type: ignore[misc]

    try:
        asyncio.run(scenario())
    finally:
        for each in sockets:
            each.close()


def test_what_follows_stays_on_the_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair

    async def work() -> None:
        reading = asyncio.ensure_future(read_header(ours))
        for octets in (HEADERS[4][0][:14], HEADERS[4][0][14:] + b"EHLO"):
            await asyncio.sleep(0)
            theirs.send(octets)
        assert await reading == HEADERS[4][1]
        assert ours.recv(100) == b"EHLO"

    finish(work, ours, theirs)


def test_end_before_the_header_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"PROXY ")
    theirs.close()

    async def work() -> None:
        with pytest.raises(ConnectionError):
            await read_header(ours)

    finish(work, ours)


def test_silence_ends(pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.net.proxied.HEADER_TIMEOUT_S", 0.0)

    async def work() -> None:
        with pytest.raises(TimeoutError):
            await read_header(pair[0])

    finish(work, *pair)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP6 ::ffff:192.0.2.9 ::ffff:192.0.2.1 4000 25\r\n",
        v2(0x21, 0x21, bytes(10) + b"\xff\xff" + FOUR[:4] + bytes(10) + b"\xff\xff" + FOUR[4:8] + FOUR[8:]),
    ],
)
def test_ipv4_of_a_proxy_that_listens_on_both_families_is_ipv4(header: bytes) -> None:
    assert parse_header(header) == Origin("192.0.2.9", 4000)
