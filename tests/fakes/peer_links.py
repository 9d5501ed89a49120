"""Links between shards in memory: every call and every answer takes `latency_s` of the loop's own clock.

Between two shards calls stay in their order, and answers in theirs, as on a socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.control.peers import PeerHandler
from engine.core.errors import MailrailError, NetworkError

Done = Callable[[Any, NetworkError | None], None]


class FakeNetwork:
    """All shards of one test; those that were made are up until `kill`."""

    def __init__(self, latency_s: float = 0.001) -> None:
        self.latency_s = latency_s
        self.links: dict[int, FakePeerLinks] = {}
        self.pending: dict[FakePeerLinks, dict[int, Done]] = {}
        self.sent: list[tuple[int, int, str, Any]] = []  # from, to, kind, body
        self._requests = 0
        self._under_way: deque[Callable[[], None]] = deque()

    def make_links(
        self, shard: int, _run_dir: Path | None = None, handlers: Mapping[str, PeerHandler] | None = None
    ) -> FakePeerLinks:
        """Has the signature of PeerLinks."""
        links = self.links[shard] = FakePeerLinks(self, shard, dict(handlers or {}))
        self.pending[links] = {}
        return links

    def kill(self, shard: int) -> None:
        """The shard dies: it hears and says nothing more, and what it was asked fails."""
        links = self.links.pop(shard)
        pending, self.pending[links] = self.pending[links], {}
        for done in pending.values():
            done(None, NetworkError("link", f"shard {shard} died"))

    def bodies(self, kind: str) -> list[Any]:
        return [body for _, _, sent, body in self.sent if sent == kind]

    def carry(self, source: FakePeerLinks, target: int, kind: str, body: Any, done: Done | None) -> None:
        """Bring a request over, and its answer back."""
        self.sent.append((source.shard, target, kind, body))
        links = self.links.get(target)
        if links is None:
            if done is not None:
                done(None, NetworkError("link", f"shard {target} is down"))
            return
        self._requests += 1
        request = self._requests
        if done is not None:
            self.pending[links][request] = done
        self._later(lambda: self._arrive(source, links, request, kind, body))

    def _later(self, arrive: Callable[[], None]) -> None:
        """All take as long, so what left first arrives first; timers of one instant have no order."""
        self._under_way.append(arrive)
        asyncio.get_running_loop().call_later(self.latency_s, lambda: self._under_way.popleft()())

    def _arrive(
        self, source: FakePeerLinks, links: FakePeerLinks, request: int, kind: str, body: Any
    ) -> None:
        if self.links.get(links.shard) is not links:
            return
        try:
            result = links.handlers[kind](source.shard, body)
        except MailrailError as error:
            self._answer(links, request, None, NetworkError("request", str(error)))
            return
        if isinstance(result, asyncio.Future):
            result.add_done_callback(lambda future: self._finish(links, request, future))
        else:
            self._answer(links, request, result, None)

    def _finish(self, links: FakePeerLinks, request: int, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if error is None:
            self._answer(links, request, future.result(), None)
        else:
            self._answer(links, request, None, NetworkError("request", str(error)))

    def _answer(self, links: FakePeerLinks, request: int, result: Any, error: NetworkError | None) -> None:
        def answered() -> None:
            done = self.pending[links].pop(request, None)
            if done is not None:
                done(result, error)

        self._later(answered)


class FakePeerLinks:
    """The calls of PeerLinks for one shard."""

    def __init__(self, network: FakeNetwork, shard: int, handlers: dict[str, PeerHandler]) -> None:
        self.shard = shard
        self.handlers = handlers
        self.told: list[tuple[int, bytes | None]] = []  # by set_peer
        self._network = network

    async def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def set_peer(self, shard: int, incarnation: bytes | None) -> None:
        self.told.append((shard, incarnation))

    def is_up(self, shard: int) -> bool:
        return shard != self.shard and shard in self._network.links

    @property
    def up(self) -> list[int]:
        return [shard for shard in self._network.links if shard != self.shard]

    def send(self, shard: int, kind: str, body: Any, done: Done, size_bytes: int = 0) -> None:
        self._network.carry(self, shard, kind, body, done)

    def notify(self, shard: int, kind: str, body: Any = None) -> None:
        self._network.carry(self, shard, kind, body, None)
