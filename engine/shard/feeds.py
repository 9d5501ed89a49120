"""The listeners of this shard, as they come and go with the configuration.

Owns: which listener serves which inherited socket.
Never: speaks a feed's protocol (inject does), opens a listening socket (the supervisor does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from engine.control.fds import ListenerInbox
from engine.inject.smtp import SMTPListener
from engine.settings.model import ListenerSettings, Settings
from engine.shard.build import Engine


class Feed(Protocol):
    """A listener, whatever its protocol."""

    def use(self, settings: ListenerSettings) -> None: ...
    async def stop(self, grace_s: float) -> None: ...
    def close(self) -> None: ...


class Feeds:
    """Every listener of one shard."""

    def __init__(self, engine: Engine, inbox: ListenerInbox) -> None:
        self._engine = engine
        self._inbox = inbox
        self._feeds: dict[str, Feed] = {}  # by socket key, or by name where there is none (spool)

    async def use(self, settings: Settings, keys: Mapping[str, str]) -> None:
        """Serve these listeners: begin those that are new, tell those that stay, end those that are gone."""
        wanted = {keys.get(row.name, row.name): row for row in settings.listeners}
        for key in [key for key in self._feeds if key not in wanted]:
            feed = self._feeds.pop(key)
            asyncio.get_running_loop().create_task(_end(feed, settings.engine.grace_s))
        for key, row in wanted.items():
            if key in self._feeds:
                self._feeds[key].use(row)
            else:
                self._feeds[key] = await self._begin(key, row)

    async def _begin(self, key: str, row: ListenerSettings) -> Feed:
        engine = self._engine
        if row.protocol == "spool":
            spool = SpoolListener(row, engine.acceptor, engine.store, engine.shard)
            spool.open()
            return spool
        sock = await self._inbox.take(key)
        if row.protocol == "socket":
            listener: Any = SocketListener(row, engine.acceptor, engine.store)
        else:
            listener = SMTPListener(row, engine.acceptor, engine.counters)
        await listener.open(sock)
        return listener  # type: ignore[no-any-return]

    def set_draining(self, is_draining: bool) -> None:
        """Spool files stay where they are while draining; other feeds are refused by the acceptor."""
        for feed in self._feeds.values():
            if hasattr(feed, "is_paused"):
                feed.is_paused = is_draining

    async def stop(self, grace_s: float) -> None:
        """End every feed: nothing new begins, what is being received may finish."""
        await asyncio.gather(*[feed.stop(grace_s) for feed in self._feeds.values()])

    def close(self) -> None:
        """End every feed at once."""
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()

    @property
    def names(self) -> list[str]:
        return list(self._feeds)


async def _end(feed: Feed, grace_s: float) -> None:
    await feed.stop(grace_s)
    feed.close()


def spool_directories(settings: Settings) -> list[Path]:
    """Return the directories that spool listeners watch."""
    return [Path(row.path) for row in settings.listeners if row.protocol == "spool"]
