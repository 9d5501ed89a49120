"""Listening sockets and local addresses."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from engine.core.errors import ConfigError
from engine.net.listen import (
    check_unix_path,
    is_local_source,
    is_on_this_host,
    open_tcp_listener,
    open_unix_listener,
)
from tests.lacking import lack


def free_port(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.3", "::1"])
def test_tcp_listener_takes_connections(address):
    port = free_port(address)
    with open_tcp_listener(address, port) as listener:
        assert not listener.getblocking()
        with socket.create_connection((address, port)):
            connection, _ = listener.accept()
            connection.close()


def test_both_wildcards_may_stand_beside_each_other():
    port = free_port("0.0.0.0")
    with open_tcp_listener("0.0.0.0", port), open_tcp_listener("::", port):
        pass


def test_taken_address_is_named():
    with open_tcp_listener("127.0.0.3", free_port("127.0.0.3")) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"127\.0\.0\.3:{port}: can't listen there: Address already in use"
        ):
            open_tcp_listener("127.0.0.3", port)


def test_foreign_address_is_named():
    with pytest.raises(ConfigError, match=r"\[2001:db8::7\]:25: can't listen there: Cannot assign"):
        open_tcp_listener("2001:db8::7", 25)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_unix_listener_has_its_mode_whatever_the_umask(tmp_path, mode):
    path = tmp_path / "inject.sock"
    previous = os.umask(0o077)
    try:
        with open_unix_listener(str(path), mode):
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(previous)


def test_unix_listener_never_has_wider_permissions_than_its_mode(tmp_path, monkeypatch):
    path = tmp_path / "inject.sock"
    monkeypatch.setattr(os, "chmod", lambda *_: None)  # as seen between bind and chmod
    previous = os.umask(0)
    try:
        with open_unix_listener(str(path), 0o600):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(previous)


def test_socket_of_a_dead_process_is_replaced(tmp_path):
    path = str(tmp_path / "inject.sock")
    open_unix_listener(path, 0o600).close()
    with open_unix_listener(path, 0o600), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_socket_of_a_live_process_is_left_alone(tmp_path):
    path = str(tmp_path / "inject.sock")
    with open_unix_listener(path, 0o600):
        with pytest.raises(ConfigError, match="another process listens there"):
            open_unix_listener(path, 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "inject.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        open_unix_listener(str(path), 0o600)
    assert path.read_text() == "mine"


def test_missing_directory_is_named(tmp_path):
    path = str(tmp_path / "none" / "inject.sock")
    with pytest.raises(ConfigError, match="No such file"):
        open_unix_listener(path, 0o600)


def test_path_longer_than_the_kernel_takes_is_named():
    check_unix_path("/" + "x" * 106)
    for path in ("/" + "x" * 107, "/" + "ü" * 54):
        with pytest.raises(ConfigError, match=r"at most 107"):
            check_unix_path(path)


@pytest.mark.parametrize(
    ("address", "is_local"),
    [("127.0.0.9", True), ("::1", True), ("192.0.2.7", False), ("2001:db8::7", False), ("nonsense", False)],
)
def test_source_is_local_where_it_can_be_bound(address, is_local):
    assert is_local_source(address) is is_local


def test_what_is_on_this_host_is_asked_of_the_kernel() -> None:
    assert is_on_this_host("127.0.0.1")
    assert is_on_this_host("127.8.9.10")  # 127/8 is the host, whatever lo has
    for address in ("192.0.2.77", "0.0.0.0", "255.255.255.255", "224.0.0.1", "2001:db8::77"):
        assert not is_on_this_host(address)


def test_own_ipv6_address_is_on_this_host() -> None:
    if not is_local_source("::1"):
        lack("no IPv6 here")
    assert is_on_this_host("::1")
