"""The links of one shard to all others.

To each peer there are two links, one for small bodies and one for bulk, so that a message of 50 MB
never stands in the way of a small one. Each shard connects to each other: requests go out on links
that we opened, requests come in on links that the peer opened.

The supervisor says who is up (`set_peer`); nothing here guesses. A peer that is down fails requests
at once.

Owns: our listening socket for peers, outgoing and incoming links.
Never: knows what a request means, retries one.
Fails: NetworkError for requests to a peer that is down or dies before it answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from engine.control.bus import Done, Handler, Link, connect_link, serve_links
from engine.core.errors import NetworkError, RemoteProtocolError

BULK_BYTES = 256 * 1024  # design section 6 draws the same line for transactions
CONNECT_RETRY_S = 0.05  # the peer listens before it is said to be up; only a full backlog needs this

PeerHandler = Callable[[int, Any], Any]  # (shard that asks, body)

_HELLO = "hello"


class _Peer:
    """What we hold of one peer that is up."""

    __slots__ = ("bulk", "connecting", "incarnation", "small")

    def __init__(self, incarnation: bytes) -> None:
        self.incarnation = incarnation
        self.small: Link | None = None
        self.bulk: Link | None = None
        self.connecting: asyncio.Task[None] | None = None

    def close(self) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
        for link in (self.small, self.bulk):
            if link is not None:
                link.close()


class PeerLinks:
    """Requests from one shard to others, and theirs to us.

    `handlers` are called with the asking shard's number and the body, and answer as a Link's do.
    """

    def __init__(self, shard: int, run_dir: Path, handlers: Mapping[str, PeerHandler]) -> None:
        self._shard = shard
        self._run_dir = run_dir
        self._handlers = dict(handlers)
        self._peers: dict[int, _Peer] = {}
        self._incoming: set[Link] = set()
        self._server: asyncio.AbstractServer | None = None

    def add_handlers(self, handlers: Mapping[str, PeerHandler]) -> None:
        """Let peers ask for more, before `open`."""
        self._handlers.update(handlers)

    async def open(self) -> None:
        """Listen for peers at `run_dir/shard-N.sock`."""
        self._server = await serve_links(str(peer_path(self._run_dir, self._shard)), self._make_incoming)

    def close(self) -> None:
        """Close every link and stop listening."""
        if self._server is not None:
            self._server.close()
            peer_path(self._run_dir, self._shard).unlink(missing_ok=True)
        for shard in list(self._peers):
            self._peers.pop(shard).close()
        for link in list(self._incoming):
            link.close()

    # -- who is there ----------------------------------------------------------------------

    def set_peer(self, shard: int, incarnation: bytes | None) -> None:
        """Learn that a peer is up as `incarnation`, or down (None)."""
        peer = self._peers.get(shard)
        if peer is not None and peer.incarnation == incarnation:
            return
        if peer is not None:
            del self._peers[shard]
            peer.close()
        if incarnation is not None and shard != self._shard:
            peer = self._peers[shard] = _Peer(incarnation)
            peer.connecting = asyncio.ensure_future(self._connect(shard, peer))

    def is_up(self, shard: int) -> bool:
        """Return whether requests to that shard can be sent now."""
        peer = self._peers.get(shard)
        return peer is not None and peer.small is not None and peer.small.is_open

    def is_congested(self, shard: int) -> bool:
        """Return whether the peer takes less than we send: prefer another."""
        peer = self._peers.get(shard)
        return peer is not None and peer.small is not None and peer.small.is_congested

    @property
    def up(self) -> list[int]:
        """Shards, without our own, that can be asked now."""
        return [shard for shard in self._peers if self.is_up(shard)]

    # -- asking ----------------------------------------------------------------------------

    def send(self, shard: int, kind: str, body: Any, done: Done, size_bytes: int = 0) -> None:
        """Ask a peer; `done(result, error)` is called exactly once, maybe at once. HOT.

        `size_bytes`, roughly that of the body, chooses the link.
        """
        peer = self._peers.get(shard)
        link = None if peer is None else peer.bulk if size_bytes > BULK_BYTES else peer.small
        if link is None:
            done(None, NetworkError("link", f"shard {shard} is down"))
        else:
            link.send(kind, body, done)

    async def request(
        self, shard: int, kind: str, body: Any = None, timeout_s: float | None = None, size_bytes: int = 0
    ) -> Any:
        """Ask a peer and wait for the result.

        Raises:
            NetworkError: it is down, died, refused or took too long.
        """
        peer = self._peers.get(shard)
        link = None if peer is None else peer.bulk if size_bytes > BULK_BYTES else peer.small
        if link is None:
            raise NetworkError("link", f"shard {shard} is down")
        return await link.request(kind, body, timeout_s)

    def notify(self, shard: int, kind: str, body: Any = None) -> None:
        """Tell a peer, without an answer; nothing happens where it is down."""
        peer = self._peers.get(shard)
        if peer is not None and peer.small is not None:
            peer.small.notify(kind, body)

    # -- links -----------------------------------------------------------------------------

    async def _connect(self, shard: int, peer: _Peer) -> None:
        """Open both links, the small one last: `is_up` means that both are."""
        if peer.bulk is None or not peer.bulk.is_open:
            peer.bulk = await self._connect_one(shard, peer, "bulk")
        if peer.small is None or not peer.small.is_open:
            peer.small = await self._connect_one(shard, peer, "small")

    def _reconnect(self, shard: int, peer: _Peer, _link: Link) -> None:
        """A link went down: try again until the supervisor says that the peer did."""
        is_current = self._peers.get(shard) is peer
        if is_current and (peer.connecting is None or peer.connecting.done()):
            peer.connecting = asyncio.ensure_future(self._connect(shard, peer))

    async def _connect_one(self, shard: int, peer: _Peer, lane: str) -> Link:
        path = str(peer_path(self._run_dir, shard))
        on_lost = partial(self._reconnect, shard, peer)
        while True:
            link = Link({}, name=f"to shard {shard} ({lane})", on_lost=on_lost)
            try:
                await connect_link(path, link)
            except NetworkError:
                await asyncio.sleep(CONNECT_RETRY_S)
                continue
            link.notify(_HELLO, self._shard)
            return link

    def _make_incoming(self) -> Link:
        link = Link({}, name="from a shard", on_lost=self._incoming.discard)
        self._incoming.add(link)

        def hello(shard: int) -> None:
            if not isinstance(shard, int):
                raise RemoteProtocolError(f"a peer calls itself {shard!r}")
            link.name = f"from shard {shard}"
            link.handlers = self._bind(shard)

        link.handlers = {_HELLO: hello}
        return link

    def _bind(self, shard: int) -> dict[str, Handler]:
        return {kind: partial(handler, shard) for kind, handler in self._handlers.items()}


def peer_path(run_dir: Path, shard: int) -> Path:
    """Return where the peers of a shard find it."""
    return run_dir / f"shard-{shard}.sock"


def make_run_dir(run_dir: Path) -> None:
    """Create the directory of the peer sockets, closed to others."""
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(run_dir, 0o700)
