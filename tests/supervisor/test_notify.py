"""What systemd is sent, octet by octet."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.supervisor.notify import (
    MAX_STATUS,
    notify_ready,
    notify_reloading,
    notify_status,
    notify_stopping,
)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that NOTIFY_SOCKET names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_ready_comes_with_the_status_and_the_process_that_signals_are_for(systemd: socket.socket) -> None:
    notify_ready("2 of 2 shards up")
    assert systemd.recv(4096).decode() == f"READY=1\nSTATUS=2 of 2 shards up\nMAINPID={os.getpid()}"


def test_a_reload_names_its_instant_in_monotonic_microseconds(systemd: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify_reloading()
    first, _, instant = systemd.recv(4096).decode().partition("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert before <= int(instant) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_the_end_is_told(systemd: socket.socket) -> None:
    notify_stopping()
    assert systemd.recv(4096) == b"STOPPING=1"


def test_a_status_is_one_line_of_bounded_length_whatever_the_reason_holds(systemd: socket.socket) -> None:
    notify_status("no disk\nREADY=1\r\nMAINPID=1 " + "x" * 2 * MAX_STATUS)
    told = systemd.recv(4096).decode()
    assert told.startswith("STATUS=no disk READY=1 MAINPID=1 xx")
    assert "\n" not in told
    assert len(told) == len("STATUS=") + MAX_STATUS


def test_a_name_in_the_abstract_namespace_begins_with_an_at(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"mailrail-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify_stopping()
        assert sock.recv(4096) == b"STOPPING=1"


def test_who_did_not_ask_is_told_nothing_and_who_is_gone_stops_nobody(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify_ready("x")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify_ready("x")
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)
