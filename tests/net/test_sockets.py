"""Sockets to peers on loopback, under uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket

import pytest

from engine.core.errors import NetworkError, SourceUnavailable, TimedOut
from engine.net import sockets
from engine.net.sockets import open_socket, open_unix_socket


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def test_socket_leaves_from_its_source_address(run, peer):
    async def scenario() -> None:
        async with peer(silent) as port:
            sock = await open_socket("127.0.0.77", "127.0.0.1", port, 5.0)
            assert sock.getsockname()[0] == "127.0.0.77"
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == sockets.USER_TIMEOUT_MS
            assert sock.getsockopt(socket.IPPROTO_IP, sockets.IP_BIND_ADDRESS_NO_PORT)
            sock.close()

    run(scenario())


def test_socket_leaves_from_an_ipv6_source_address(run, peer):
    async def scenario() -> None:
        async with peer(silent, host="::1") as port:
            sock = await open_socket("::1", "::1", port, 5.0)
            assert sock.getsockname()[0] == "::1"
            assert sock.getsockopt(socket.IPPROTO_IP, sockets.IP_BIND_ADDRESS_NO_PORT)
            sock.close()

    run(scenario())


@pytest.mark.parametrize(
    ("source", "address"), [("192.0.2.7", "127.0.0.1"), ("2001:db8::7", "::1"), ("127.0.0.1", "::1")]
)
def test_source_that_is_not_on_the_host_is_named(run, source, address):
    with pytest.raises(SourceUnavailable, match=source):
        run(open_socket(source, address, 25, 5.0))


def test_refused_connection_is_a_network_error(run):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and never listens
        with pytest.raises(NetworkError, match="refused") as caught:
            run(open_socket(None, "127.0.0.1", bound.getsockname()[1], 5.0))
    assert caught.value.phase == "connect"


def test_connection_that_is_never_answered_times_out(run):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(4):  # past the backlog the kernel drops a SYN
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(address)
            with pytest.raises(TimedOut) as caught:
                run(open_socket(None, address[0], address[1], 0.05))
    assert caught.value.phase == "connect"


def test_lack_of_descriptors_is_our_own_fault(run):
    async def scenario() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            with pytest.raises(NetworkError, match="Too many open files") as caught:
                await open_socket(None, "127.0.0.1", 25, 5.0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.phase == "local"

    run(scenario())


def test_unix_socket_that_nobody_serves_is_a_network_error(run, tmp_path):
    for path in (tmp_path / "none", tmp_path / "left"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "left"))
        with pytest.raises(NetworkError, match=str(path)) as caught:
            run(open_unix_socket(str(path), 5.0))
        assert caught.value.phase == "connect"
        (tmp_path / "left").unlink()


def test_unix_socket_whose_queue_is_full_is_a_network_error(run, tmp_path):
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(tmp_path / "busy"))
        busy.listen(0)
        first.connect(str(tmp_path / "busy"))
        with pytest.raises(NetworkError, match="unavailable"):
            run(open_unix_socket(str(tmp_path / "busy"), 5.0))
