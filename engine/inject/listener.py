"""The life of a listener: what all feeds that accept connections have in common.

A listener serves one listening socket that all shards share. What is one listener's is here: who is
connected, the second's tick, the end with its grace, room for large messages, what is counted. What is one
connection's is in the session that the feed makes for each; what a feed wants to know of its settings, and
whom it lets in, is in its own listener.

Owns: sessions of one listening socket in one shard, and their number.
Never: speaks a feed's protocol, decides who may connect (the feed's listener does).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self

from engine.inject.room import Reservation, Room
from engine.net.accepting import Accepting, Serve
from engine.settings.model import ListenerSettings
from engine.telemetry.metrics import Cell, Counters

SWEEP_S = 1.0
ROOM_BYTES = 256 << 20  # for all large messages that a listener is receiving


class FeedSession(asyncio.Protocol, ABC):
    """One connection of an injector, and what a listener asks of it.

    It joins `listener.sessions` itself, once it is let in; `transport` is None when the connection is lost.
    """

    __slots__ = ("listener", "reservation", "transport")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.transport: asyncio.Transport | None = None
        self.reservation: Reservation | None = None  # of the listener's room, for a large message

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the reason changes nothing
        """What waits for its commit goes on; nobody is left to be told."""
        self.transport = None
        self.give_room_back()
        self.listener.forget(self)

    @abstractmethod
    def tick(self) -> None:
        """One second has passed."""

    @abstractmethod
    def shut(self) -> None:
        """End when what has begun is done; nothing new begins."""

    def abort(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def waits_for_room(self) -> bool:
        return self.reservation is not None and self.reservation.is_waiting

    def give_room_back(self) -> None:
        """What needed room has ended, or the connection has."""
        reservation, self.reservation = self.reservation, None
        if reservation is not None:
            reservation.release()


class Listener(ABC):
    """The sessions of one listening socket in one shard."""

    now: Callable[[], float]  # the loop's clock, once open

    def __init__(self, settings: ListenerSettings, counters: Counters, feed: str) -> None:
        """Args: feed: its name in metrics."""
        self.sessions: set[FeedSession] = set()
        self.is_stopping = False
        self.room = Room(ROOM_BYTES)
        self.accept_seconds = counters.histogram("mailrail_accept_seconds", feed=feed)
        self._feed = feed
        self._counters = counters
        self._refusals: dict[int, Cell] = {}
        self._accepting: Accepting | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        counters.watch("mailrail_inbound_sessions", self._count_sessions)
        self.use(settings)

    @abstractmethod
    def use(self, settings: ListenerSettings) -> None:
        """Take new settings; sessions that are open keep what they have taken of the old ones."""
        self.settings = settings

    async def open(
        self,
        sock: socket.socket,
        make_session: Callable[[Self], FeedSession],
        serve: Callable[[Self, socket.socket], Awaitable[None]] | None = None,
    ) -> None:
        """Accept connections from a socket that listens already, with a session for each.

        Args: serve: makes the session of a connection, where something may have to come before.
        """
        loop = asyncio.get_running_loop()
        self.now = loop.time
        prepare: Serve | None = partial(serve, self) if serve is not None else None
        self._accepting = Accepting(sock, lambda: make_session(self), prepare)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep_again)

    async def retire(self, bound_s: float, grace_s: float) -> None:
        """Accept no more; sessions go on as if nothing were, until they end or for `bound_s`, then `stop`."""
        self._stop_accepting()
        await self._wait_empty(bound_s)
        await self.stop(grace_s)

    async def stop(self, grace_s: float) -> None:
        """Accept no more; let sessions end what has begun, for `grace_s`."""
        self.is_stopping = True
        self._stop_accepting()
        for session in [*self.sessions]:
            session.shut()
        await self._wait_empty(grace_s)
        self.close()

    async def _wait_empty(self, bound_s: float) -> None:
        if self.sessions:
            emptied = self._emptied = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(emptied, bound_s)

    def close(self) -> None:
        """End everything at once."""
        self.is_stopping = True
        self._stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for session in [*self.sessions]:
            session.abort()
        self.sessions.clear()

    def sweep(self) -> None:
        """One second has passed: let the sessions end that stand still for too long."""
        for session in [*self.sessions]:
            session.tick()

    def forget(self, session: FeedSession) -> None:
        """Its connection is gone."""
        self.sessions.discard(session)
        if self._emptied is not None and not self.sessions and not self._emptied.done():
            self._emptied.set_result(None)

    def count_refusal(self, code: int) -> None:
        """A reply above 399 was said."""
        cell = self._refusals.get(code)
        if cell is None:
            cell = self._counters.counter("mailrail_refusals_total", feed=self._feed, code=str(code))
            self._refusals[code] = cell
        cell[0] += 1

    @property
    def is_full(self) -> bool:
        return len(self.sessions) >= self.settings.max_connections

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None

    def _sweep_again(self) -> None:
        self.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_again)

    def _count_sessions(self) -> dict[tuple[str, ...], float]:
        return {(self.settings.name,): len(self.sessions)} if self.sessions else {}
