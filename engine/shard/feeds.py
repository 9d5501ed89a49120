"""The listeners of this shard, as they come and go with the configuration.

Owns: which listener serves which inherited socket.
Never: speaks a feed's protocol (inject does), opens a listening socket (the supervisor does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from engine.control.fds import ListenerInbox
from engine.inject.former import FormerKeepers
from engine.inject.idempotent import IdempotentIds
from engine.inject.listener import Listener
from engine.inject.passwords import Passwords
from engine.inject.shedding import Shedding, make_measures
from engine.inject.smtp import SMTPListener
from engine.inject.smtp_opening import open_connection
from engine.inject.smtp_session import SMTPSession
from engine.inject.socket import SocketListener
from engine.inject.socket_session import SocketSession
from engine.inject.spool import SpoolListener
from engine.settings.model import ListenerSettings, Settings
from engine.shard.build import Engine

RETIRE_S = 600.0  # for sessions of a listener that is gone: twice the time-out of RFC 5321 4.5.3.2.7


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
        self._feeds: dict[str, Feed] = {}  # by key of its socket, or by path where there is none (spool)
        self._repeats = IdempotentIds(
            engine.shard,
            engine.shards,
            engine.acceptor,
            engine.store,
            engine.exchange.peers.send,
            FormerKeepers(
                [shard for shard in range(engine.shards) if shard != engine.shard],
                engine.exchange.peers.send,
                lambda: list(engine.orphans.values()),
                lambda: engine.orphans.may_recall,
            ),
        )
        engine.exchange.repeats = self._repeats
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._retiring: dict[Listener, asyncio.Task[None]] = {}
        self._is_draining = False
        self.passwords = Passwords(engine.counters, engine.tries)
        self.shedding = Shedding(engine.counters, lambda _reason: self._pause_spools())
        self.shedding.open()

    async def use(self, settings: Settings, keys: Mapping[str, str]) -> None:
        """Serve these listeners: begin those that are new, tell those that stay, end those that are gone."""
        self._use_engine(settings)
        wanted = {keys.get(row.name) or f"spool:{row.path}": row for row in settings.listeners}
        for key in [key for key in self._feeds if key not in wanted]:
            self._end(key, settings.engine.grace_s)
        # Spools first: what was claimed when the last process died is older than what comes now.
        for key, row in sorted(wanted.items(), key=lambda item: item[1].protocol != "spool"):
            if key in self._feeds:
                self._feeds[key].use(row)
            else:
                self._feeds[key] = await self._begin(key, row)

    def _end(self, key: str, grace_s: float) -> None:
        """End a feed that is gone, or has another address; a reload drops none of its sessions."""
        feed = self._feeds.pop(key)
        loop = asyncio.get_running_loop()
        if isinstance(feed, Listener):
            task = self._retiring[feed] = loop.create_task(feed.retire(RETIRE_S, grace_s))
            task.add_done_callback(lambda _: self._retiring.pop(feed, None))
        else:
            self._ending[key] = loop.create_task(_end(feed, grace_s))

    def _use_engine(self, settings: Settings) -> None:
        engine = self._engine
        self.passwords.use(settings.customers)
        self.shedding.measures = make_measures(
            settings.engine,
            lag_s=lambda: self.shedding.lag_s,
            staged_bytes=lambda: engine.store.staged_bytes,
            window_bytes=lambda: engine.window.size_bytes,
            connections=self._count_sessions,
        )

    def _count_sessions(self) -> int:
        listeners = [feed for feed in self._feeds.values() if isinstance(feed, Listener)]
        return sum(len(listener.sessions) for listener in [*listeners, *self._retiring])

    async def _begin(self, key: str, row: ListenerSettings) -> Feed:
        engine = self._engine
        ending = self._ending.pop(key, None)
        if ending is not None:  # removed and named again: never two for one place
            await ending
        if row.protocol == "spool":
            return self._begin_spool(row)
        sock = await self._inbox.take(key)
        if row.protocol == "socket":
            listener = SocketListener(row, engine.acceptor, self._repeats, engine.counters, self.shedding)
            await listener.open(sock, SocketSession)
            return listener
        smtp = SMTPListener(row, engine.acceptor, engine.counters, self.passwords, self.shedding)
        await smtp.open(sock, SMTPSession, partial(open_connection, SMTPSession))
        return smtp

    def _begin_spool(self, row: ListenerSettings) -> SpoolListener:
        """Watch a spool."""
        engine = self._engine

        def knows_left_claim(shard: int, claim: str) -> bool:
            orphan = engine.orphans.get(shard)
            return orphan is not None and orphan.knows_claim(claim)

        spool = SpoolListener(
            row,
            engine.acceptor,
            engine.store,
            engine.counters,
            engine.shard,
            engine.shards,
            is_async=engine.store.options.durability == "async",
            knows_left_claim=knows_left_claim,
        )
        self._is_draining = engine.acceptor.is_draining
        spool.pause(self._why_spools_wait())
        spool.open()
        return spool

    def set_draining(self, is_draining: bool) -> None:
        """Spool files stay where they are while draining; other feeds are refused by the acceptor."""
        self._is_draining = is_draining
        self._pause_spools()

    def _why_spools_wait(self) -> str:
        return "draining" if self._is_draining else self.shedding.reason

    def _pause_spools(self) -> None:
        """Files wait for the same reasons for which other feeds are refused."""
        for feed in self._feeds.values():
            if isinstance(feed, SpoolListener):
                feed.pause(self._why_spools_wait())

    async def stop(self, grace_s: float) -> None:
        """End every feed: nothing new begins, what is being received may finish."""
        await asyncio.gather(*[feed.stop(grace_s) for feed in [*self._feeds.values(), *self._retiring]])

    def close(self) -> None:
        """End every feed at once."""
        self.shedding.close()
        self.passwords.close()
        for feed in [*self._feeds.values(), *self._retiring]:
            feed.close()
        for task in self._retiring.values():
            task.cancel()
        self._feeds.clear()

    @property
    def names(self) -> list[str]:
        return list(self._feeds)


async def _end(feed: Feed, grace_s: float) -> None:
    await feed.stop(grace_s)
    feed.close()
