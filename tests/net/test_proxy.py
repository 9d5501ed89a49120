"""Egress through HAProxy and SOCKS5: the header's octets, whose failure it is, and the strangers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import NetworkError, TimedOut
from engine.net.proxy import format_header, open_through
from engine.settings.fields import proxy as parse_proxy

PEER = ("192.0.2.25", 25)
V2_SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"


# -- the header --------------------------------------------------------------------------------------------


def test_version_1_is_one_line_of_text() -> None:
    """proxy-protocol.txt section 2.1: PROXY, family, source, destination, ports, CRLF."""
    assert format_header(1, "203.0.113.10", *PEER) == b"PROXY TCP4 203.0.113.10 192.0.2.25 0 25\r\n"
    assert format_header(1, "2001:db8::10", "2001:db8::25", 25) == (
        b"PROXY TCP6 2001:db8::10 2001:db8::25 0 25\r\n"
    )


@pytest.mark.parametrize(
    ("source", "address", "family", "kind"),
    [("203.0.113.10", "192.0.2.25", socket.AF_INET, 0x11), ("::10", "2001:db8::25", socket.AF_INET6, 0x21)],
)
def test_version_2_is_binary(source: str, address: str, family: int, kind: int) -> None:
    """proxy-protocol.txt section 2.2: signature, version and command, family, length, addresses, ports."""
    header = format_header(2, source, address, 587)
    assert header[:12] == V2_SIGNATURE
    command, found, length = struct.unpack("!BBH", header[12:16])
    assert (command, found, length) == (0x21, kind, len(header) - 16)
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, address)
    assert header[16:] == addresses + struct.pack("!HH", 0, 587)


# -- HAProxy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("haproxy", format_header(2, "203.0.113.10", *PEER)),
        ("haproxy-v1", b"PROXY TCP4 203.0.113.10 192.0.2.25 0 25\r\n"),
    ],
)
def test_header_goes_ahead_of_everything(run, peer, kind, header):
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(header)) == header
        writer.write(b"220 beyond\r\n")

    async def scenario() -> None:
        async with peer(proxy) as port:
            through = parse_proxy(f"{kind}:127.0.0.1:{port}")
            sock = await open_through(through, "127.0.0.1", "203.0.113.10", PEER, 5.0)
            with sock:
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"220 beyond\r\n"

    run(scenario())


@pytest.mark.parametrize("kind", ["haproxy:", "socks5://"])
def test_proxy_that_does_not_listen_is_no_failure_of_the_peer(run, kind):
    through = parse_proxy(f"{kind}127.0.0.1:{free_port()}")
    with pytest.raises(NetworkError) as caught:
        run(open_through(through, "127.0.0.1", "203.0.113.10", PEER, 5.0))
    assert caught.value.phase == "proxy"
    assert "refused" in caught.value.detail.lower()


HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen told
    bind 127.0.0.1:{told} accept-proxy
    server sink 127.0.0.1:{sink} send-proxy
listen onward
    bind 127.0.0.1:{onward} accept-proxy
    source 127.0.0.78
    server peer 0.0.0.0:0
"""


@contextlib.contextmanager
def program(*command: str, port: int, address: str = "127.0.0.1") -> Iterator[None]:
    """Run a proxy until it listens, and end it."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(500):
                if process.poll() is not None:
                    raise AssertionError(f"{command[0]} has ended: {process.returncode}")
                with contextlib.suppress(OSError), socket.create_connection((address, port), 1.0):
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.02)
            yield
        finally:
            process.terminate()


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


@contextlib.asynccontextmanager
async def sink(address: str = "127.0.0.1") -> AsyncIterator[tuple[int, asyncio.Queue[tuple[bytes, str]]]]:
    """Serve a greeting; yields the port, and what each client said first and from where."""
    heard: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink\r\n")
        line = await reader.readline()
        heard.put_nowait((line, writer.get_extra_info("peername")[0]))
        writer.close()

    server = await asyncio.start_server(serve, address, 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


async def check_said_from(sock: socket.socket, heard: asyncio.Queue[tuple[bytes, str]], source: str) -> None:
    """Talk to the sink over an open connection, which it must see come from `source`."""
    with sock:
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(sock, 100) == b"220 sink\r\n"
        await loop.sock_sendall(sock, b"EHLO mail1.acme.example\r\n")
        said = await asyncio.wait_for(heard.get(), 5.0)
    assert said == (b"EHLO mail1.acme.example\r\n", source)


@pytest.mark.stranger("haproxy")
@pytest.mark.parametrize("kind", ["haproxy", "haproxy-v1"])
def test_haproxy_understands_the_header(run, stranger: Callable[[str], str], tmp_path: Path, kind: str):
    """What it read of ours it tells the sink, by a header of its own making."""

    async def scenario() -> None:
        async with sink() as (sink_port, heard):
            told, onward = free_port(), free_port()
            file = tmp_path / "haproxy.cfg"
            file.write_text(HAPROXY.format(told=told, onward=onward, sink=sink_port))
            with program(stranger("haproxy"), "-f", str(file), "-db", port=told):
                through = parse_proxy(f"{kind}:127.0.0.1:{told}")
                with await open_through(through, "127.0.0.1", "203.0.113.10", PEER, 5.0) as sock:
                    loop = asyncio.get_running_loop()
                    assert await loop.sock_recv(sock, 100) == b"220 sink\r\n"
                while (line := (await asyncio.wait_for(heard.get(), 5.0))[0]) != (
                    b"PROXY TCP4 203.0.113.10 192.0.2.25 0 25\r\n"
                ):
                    assert line.startswith((b"PROXY UNKNOWN", b"PROXY TCP4 127.0.0.1")) or not line

    run(scenario())


@pytest.mark.stranger("haproxy")
def test_haproxy_connects_on_to_where_the_header_says(run, stranger: Callable[[str], str], tmp_path: Path):
    async def scenario() -> None:
        async with sink("127.0.0.79") as (port, heard):
            told, onward = free_port(), free_port()
            file = tmp_path / "haproxy.cfg"
            file.write_text(HAPROXY.format(told=told, onward=onward, sink=1))
            with program(stranger("haproxy"), "-f", str(file), "-db", port=onward):
                through = parse_proxy(f"haproxy:127.0.0.1:{onward}")
                peer = ("127.0.0.79", port)
                sock = await open_through(through, "127.0.0.1", "203.0.113.10", peer, 5.0)
                await check_said_from(sock, heard, "127.0.0.78")

    run(scenario())


# -- SOCKS5 ------------------------------------------------------------------------------------------------


def socks(
    reply: int, login: tuple[str, str] | None = None, greets: bool = True, bound: str = "0.0.0.0"
) -> Callable[..., Any]:
    """Return a SOCKS5 server that gives `reply` to CONNECT, from `bound`, and then talks as the peer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not greets:
            await reader.read()
            return
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if login else 0
        writer.write(bytes((5, wanted if wanted in methods else 255)))
        if login:
            assert await reader.readexactly(1) == b"\1"
            said = [(await reader.readexactly((await reader.readexactly(1))[0])).decode() for _ in range(2)]
            writer.write(bytes((1, 0 if tuple(said) == login else 1)))
        request = await reader.readexactly(10)
        assert request == b"\5\1\0\1" + socket.inet_aton(PEER[0]) + struct.pack("!H", PEER[1])
        writer.write(bytes((5, reply, 0, 1)) + socket.inet_aton(bound) + bytes(2) + b"220 beyond\r\n")

    return serve


def test_socks_proxy_is_asked_for_the_address_that_was_chosen(run, peer):
    """RFC 1928 sections 3, 4 and 6, RFC 1929 section 2; what the peer says at once is not lost."""

    async def scenario() -> None:
        async with peer(socks(0, ("ann", "s3:same"))) as port:
            through = parse_proxy(f"socks5://ann:s3%3Asame@127.0.0.1:{port}")
            with await open_through(through, "127.0.0.1", "203.0.113.10", PEER, 5.0) as sock:
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"220 beyond\r\n"
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(scenario())


@pytest.mark.parametrize(("bound", "outer"), [("198.51.100.9", "198.51.100.9"), ("0.0.0.0", "")])
def test_address_that_the_socks_proxy_connects_from_is_kept_where_it_says_one(run, peer, bound, outer):
    """RFC 1928 section 6: BND.ADDR."""

    async def scenario() -> None:
        async with peer(socks(0, bound=bound)) as port:
            through = parse_proxy(f"socks5://127.0.0.1:{port}")
            with await open_through(through, "127.0.0.1", "203.0.113.10", PEER, 5.0) as sock:
                assert sock.outer == outer

    run(scenario())


@pytest.mark.parametrize(
    ("reply", "phase"),
    [(1, "proxy"), (2, "proxy"), (3, "connect"), (4, "connect"), (5, "connect"), (7, "proxy")],
)
def test_socks_reply_says_whose_failure_it_is(run, peer, reply, phase):
    """RFC 1928 section 6."""

    async def scenario() -> None:
        async with peer(socks(reply)) as port:
            with pytest.raises(NetworkError) as caught:
                await open_through(
                    parse_proxy(f"socks5://127.0.0.1:{port}"), "127.0.0.1", "203.0.113.10", PEER, 5.0
                )
            assert caught.value.phase == phase
            assert PEER[0] in caught.value.detail

    run(scenario())


def test_wrong_password_is_the_proxys_failure_and_is_not_repeated(run, peer):
    async def scenario() -> None:
        async with peer(socks(0, ("ann", "right"))) as port:
            through = parse_proxy(f"socks5://ann:guessed@127.0.0.1:{port}")
            with pytest.raises(NetworkError) as caught:
                await open_through(through, "127.0.0.1", "203.0.113.10", PEER, 5.0)
            assert caught.value.phase == "proxy"
            assert "guessed" not in str(caught.value)
            assert "guessed" not in f"{through} {through!r}"

    run(scenario())


def test_socks_proxy_that_says_nothing_times_out(run, peer):
    async def scenario() -> None:
        async with peer(socks(0, greets=False)) as port:
            with pytest.raises(TimedOut) as caught:
                await open_through(
                    parse_proxy(f"socks5://127.0.0.1:{port}"), "127.0.0.1", "203.0.113.10", PEER, 0.05
                )
            assert caught.value.phase == "proxy"

    run(scenario())


@pytest.mark.stranger("microsocks")
def test_microsocks_connects_on(run, stranger: Callable[[str], str]):
    async def scenario() -> None:
        async with sink("127.0.0.79") as (port, heard):
            at = free_port()
            command = (stranger("microsocks"), "-i", "127.0.0.1", "-p", str(at), "-b", "127.0.0.78")
            with program(*command, "-u", "ann", "-P", "sesame", port=at):
                through = parse_proxy(f"socks5://ann:sesame@127.0.0.1:{at}")
                peer = ("127.0.0.79", port)
                sock = await open_through(through, "127.0.0.1", "127.0.0.78", peer, 5.0)
                await check_said_from(sock, heard, "127.0.0.78")

    run(scenario())
