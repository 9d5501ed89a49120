"""Deliveries that wait for the look-up of their domain.

Owns: which look-ups are under way and who waits for each; which domains have just failed.
Never: asks DNS itself (net.resolver), decides what a failure means for a delivery (`on_done` is told).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from engine.core.envelope import Delivery
from engine.core.errors import ResolvePermanent, ResolveTemporary
from engine.core.reply import Reply, make_reply
from engine.net.site import Site

MAX_RESOLVING = 256  # domains at a time; the resolver sends half as many questions at once
MAX_WAITING = 64  # deliveries for one domain; the rest waits on disk
MAX_FAILED = 400_000  # domains remembered as failed: about 120 bytes each
UNRESOLVED_RETRY_S = 60.0  # a domain whose look-up failed for now is asked again after so long

Done = Callable[[list[Delivery], Reply | None, bool], None]


class Lookup(Protocol):
    """What reading ahead needs of the resolver."""

    def lookup(self, domain: str) -> Site | None: ...
    async def resolve(self, domain: str) -> Site: ...


class Resolving:
    """The look-ups that deliveries of this shard wait for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, resolver: Lookup, on_done: Done) -> None:
        """`on_done(waiting, reply, is_permanent)`: a look-up ended; `reply` is None where it found a site."""
        self._loop = loop
        self._resolver = resolver
        self._on_done = on_done
        self._waiting: dict[str, list[Delivery]] = {}
        self._failed_until: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def has_failed(self, domain: str) -> bool:
        """Return whether the domain failed so lately that it is not asked for now."""
        return self._failed_until.get(domain, 0.0) > self._loop.time()

    def __iter__(self) -> Iterator[Delivery]:
        """Every delivery that waits."""
        for waiting in self._waiting.values():
            yield from waiting

    def may_join(self, domain: str) -> bool:
        """Return whether one more delivery may wait for that domain."""
        waiting = self._waiting.get(domain)
        if waiting is not None:
            return len(waiting) < MAX_WAITING
        return len(self._waiting) < MAX_RESOLVING and not self.has_failed(domain)

    def join(self, delivery: Delivery) -> None:
        """Wait for the delivery's domain; the first to do so starts the look-up."""
        domain = delivery.domain
        waiting = self._waiting.get(domain)
        if waiting is None:
            waiting = self._waiting[domain] = []
            task = self._loop.create_task(self._resolve(domain))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiting.append(delivery)

    def forget_failures(self) -> None:
        """Ask again for domains that failed (reload: a route may name them now)."""
        self._failed_until.clear()

    def close(self) -> None:
        """Give the look-ups up."""
        for task in list(self._tasks):
            task.cancel()

    async def _resolve(self, domain: str) -> None:
        reply: Reply | None = None
        is_permanent = False
        try:
            await self._resolver.resolve(domain)
        except ResolvePermanent as error:
            reply, is_permanent = error.reply, True
        except ResolveTemporary as error:
            reply = make_reply(451, "4.4.3", str(error))
            self._failed_until[domain] = self._loop.time() + UNRESOLVED_RETRY_S
            if len(self._failed_until) > MAX_FAILED:
                self._failed_until.clear()
        self._on_done(self._waiting.pop(domain), reply, is_permanent)
