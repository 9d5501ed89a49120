"""Listening sockets handed from the supervisor to a shard, over a SOCK_SEQPACKET pair.

One packet carries one listener's key and its descriptor (SCM_RIGHTS), so that keys and descriptors
can't get out of step. The supervisor never waits for a busy shard: what does not fit the socket's
buffer is kept and sent when it does.

Owns: the channel's two ends.
Never: opens a listener, knows what a key means.
Fails: nothing is raised for a dead shard; its control link says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque

MAX_KEY_BYTES = 512  # "protocol:address"; paths of unix sockets end at 107


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's end and the shard's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class ListenerSender:
    """The supervisor's end: gives listeners to one shard.

    A listener that was closed here after `send` still reaches the shard, because its descriptor is
    duplicated until it has been sent.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._waiting: deque[tuple[bytes, socket.socket]] = deque()
        self._is_watching = False

    def send(self, key: str, listener: socket.socket) -> None:
        """Give `listener` to the shard under `key`."""
        octets = key.encode()
        assert 0 < len(octets) <= MAX_KEY_BYTES
        self._waiting.append((octets, listener.dup()))
        self._flush()

    def close(self) -> None:
        """Forget what was not sent and close the channel."""
        self._watch(False)
        while self._waiting:
            self._waiting.popleft()[1].close()
        self._channel.close()

    def _flush(self) -> None:
        while self._waiting:
            key, listener = self._waiting[0]
            try:
                socket.send_fds(self._channel, [key], [listener.fileno()])
            except BlockingIOError:
                self._watch(True)
                return
            except OSError:
                # The shard is gone (EPIPE, ECONNRESET): its successor has a channel of its own.
                pass
            self._waiting.popleft()
            listener.close()
        self._watch(False)

    def _watch(self, is_on: bool) -> None:
        if is_on != self._is_watching:
            self._is_watching = is_on
            loop = asyncio.get_running_loop()
            if is_on:
                loop.add_writer(self._channel.fileno(), self._flush)
            else:
                loop.remove_writer(self._channel.fileno())


class ListenerInbox:
    """The shard's end: keeps listeners by key until they are taken.

    A second listener under a key that nobody took replaces the first.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._arrived: dict[str, socket.socket] = {}
        self._awaited: dict[str, asyncio.Future[socket.socket]] = {}
        channel.setblocking(False)
        asyncio.get_running_loop().add_reader(channel.fileno(), self._read)

    async def take(self, key: str) -> socket.socket:
        """Return the listener sent under `key`, waiting for it where it has not arrived."""
        if key in self._arrived:
            return self._arrived.pop(key)
        future = self._awaited.get(key)
        if future is None:
            future = self._awaited[key] = asyncio.get_running_loop().create_future()
        return await future

    def close(self) -> None:
        """Close the channel and what nobody took."""
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()
        for listener in self._arrived.values():
            listener.close()
        self._arrived.clear()
        for future in self._awaited.values():
            future.cancel()
        self._awaited.clear()

    def _read(self) -> None:
        while True:
            try:
                key, descriptors, _flags, _address = socket.recv_fds(self._channel, MAX_KEY_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                key, descriptors = b"", []
            if not key:
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
                return
            for descriptor in descriptors:
                self._keep(key.decode(), _adopt(descriptor))

    def _keep(self, key: str, listener: socket.socket) -> None:
        future = self._awaited.pop(key, None)
        if future is not None and not future.done():
            future.set_result(listener)
            return
        stale = self._arrived.pop(key, None)
        if stale is not None:
            stale.close()
        self._arrived[key] = listener


def _adopt(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener
