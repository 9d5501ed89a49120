"""Listening sockets: opened once, here, and handed to every shard.

The key of a socket is what it listens on, not the name or protocol of its listener, so that a
listener that is renamed by a reload keeps its socket and no client is refused in between. Spool
listeners have no socket: shards watch the directory. The admin API has one that shards don't get.

Owns: the listening sockets of the engine.
Never: accepts.
Fails: ConfigError naming the address that can't be listened on; nothing has changed then.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from engine.net.listen import open_tcp_listener, open_unix_listener
from engine.settings.model import AdminSettings, ListenerSettings

ADMIN_MODE = 0o600  # steering mail needs no password there, so nobody else may connect


class Place(NamedTuple):
    """Where to listen: a path, or an address and a port."""

    path: str
    address: str
    port: int
    mode: int = ADMIN_MODE

    @property
    def key(self) -> str:
        """What tells this place from others, whoever listens there."""
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"tcp:{host}:{self.port}"


Opener = Callable[[Place], socket.socket]


def listener_place(listener: ListenerSettings) -> Place | None:
    """Return where a listener listens; None where it watches a directory."""
    if listener.protocol == "spool":
        return None
    return Place(listener.path, listener.address, listener.port, listener.mode)


def admin_place(admin: AdminSettings) -> Place:
    """Return where the admin API listens."""
    return Place(admin.path, admin.address, admin.port)


def open_place(place: Place) -> socket.socket:
    """Listen there."""
    if place.path:
        return open_unix_listener(place.path, place.mode)
    return open_tcp_listener(place.address, place.port)


class Listeners:
    """The sockets that are open now, by key."""

    def __init__(self, opener: Opener = open_place) -> None:
        self._opener = opener
        self._sockets: dict[str, socket.socket] = {}

    @property
    def sockets(self) -> dict[str, socket.socket]:
        return dict(self._sockets)

    def add(self, places: Iterable[Place]) -> None:
        """Listen wherever we do not yet; all or nothing."""
        opened: dict[str, socket.socket] = {}
        try:
            for place in places:
                if place.key not in self._sockets and place.key not in opened:
                    opened[place.key] = self._opener(place)
        except BaseException:
            for each in opened.values():
                _close(each)
            raise
        self._sockets.update(opened)

    def keep(self, keys: Iterable[str]) -> None:
        """Close all but these."""
        for key in self._sockets.keys() - set(keys):
            _close(self._sockets.pop(key))

    def close(self) -> None:
        """Close all: the kernel refuses clients once no shard listens either."""
        self.keep(())


def _close(listener: socket.socket) -> None:
    if listener.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            os.unlink(listener.getsockname())
    listener.close()
