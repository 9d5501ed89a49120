"""Tells systemd what state the engine is in (sd_notify), where it asked to be told.

After: sd_notify(3); the protocol is a datagram of NAME=value lines to the socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import os
import socket
import time

MAX_STATUS = 1000  # characters; a person reads it on a line


def notify_ready(status: str) -> None:
    """Say that the engine serves, or serves again after a reload."""
    _send(f"READY=1\nSTATUS={_one_line(status)}\nMAINPID={os.getpid()}")


def notify_status(status: str) -> None:
    """Say how it goes, in words that `systemctl status` shows."""
    _send(f"STATUS={_one_line(status)}")


def notify_reloading() -> None:
    """Say that a reload has begun; systemd wants the instant (Type=notify-reload)."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def notify_stopping() -> None:
    """Say that the engine is on its way down."""
    _send("STOPPING=1")


def _one_line(status: str) -> str:
    """Return what can't end its line: reasons come from shards, and an assignment behind one would count."""
    return " ".join(status.split())[:MAX_STATUS]


def _send(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(address)
            sock.sendall(state.encode())
        except OSError:
            return  # whoever asked is gone; mail goes on
