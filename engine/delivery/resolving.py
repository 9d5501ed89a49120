"""Deliveries that wait for the look-up of their domain.

Domains that nobody answers for delay no others: a look-up that takes its time makes room for the next one
after a moment, customers have turns, and none can take the places of all. As in the window, a customer may
have as many as are left free.

Owns: which look-ups are under way and who waits for each; which domains have just failed.
Never: asks DNS itself (net.resolver), decides what a failure means for a delivery (`on_done` is told).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from engine.core.envelope import Delivery
from engine.core.errors import ResolvePermanent, ResolveTemporary
from engine.core.reply import Reply, make_reply
from engine.net.site import Site

MAX_RESOLVING = 2048  # domains; with half of them, 8 s each, a customer gets through 128 dead ones a second
MAX_YOUNG = 128  # look-ups just begun: as many questions as net.dns asks in one burst
YOUNG_S = 0.25  # then the next may begin; as in net.lanes
MAX_WAITING = 64  # deliveries for one domain; the rest waits on disk
CROWD = 64  # domains, beyond which not so many wait for each: the window is for what can leave
CROWDED_WAITING = 4
MAX_FAILED = 400_000  # domains remembered as failed: about 120 bytes each
UNRESOLVED_RETRY_S = 60.0  # until a domain that failed is asked for again, unless a delivery is due

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
        self._turns: dict[str, deque[str]] = {}  # domains not asked for yet, by customer; the next one first
        self._to_ask: set[str] = set()
        self._young: dict[str, asyncio.TimerHandle] = {}
        self._places: dict[str, int] = {}  # domains that wait at all, by the customer who came first
        self._failed_until: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def has_failed(self, domain: str) -> bool:
        """Return whether the domain failed so lately that it is not asked for now."""
        return self._failed_until.get(domain, 0.0) > self._loop.time()

    def __iter__(self) -> Iterator[Delivery]:
        """Every delivery that waits."""
        for waiting in self._waiting.values():
            yield from waiting

    def may_join(self, domain: str, customer: str) -> bool:
        """Return whether one more delivery of that customer may wait for that domain."""
        waiting = self._waiting.get(domain)
        if waiting is not None:
            return len(waiting) < (MAX_WAITING if len(self._waiting) <= CROWD else CROWDED_WAITING)
        free = MAX_RESOLVING - len(self._waiting)
        return self._places.get(customer, 0) < free and not self.has_failed(domain)

    def join(self, delivery: Delivery) -> None:
        """Wait for the delivery's domain; the look-up begins when it is the customer's turn."""
        domain = delivery.domain
        customer = delivery.envelope.customer
        waiting = self._waiting.get(domain)
        if waiting is None:
            waiting = self._waiting[domain] = []
            self._places[customer] = self._places.get(customer, 0) + 1
            self._to_ask.add(domain)
            self._turns.setdefault(customer, deque()).append(domain)
        elif domain in self._to_ask and waiting[0].envelope.customer != customer:
            self._turns.setdefault(customer, deque()).append(domain)  # whoever's turn comes first
        waiting.append(delivery)
        self._begin()

    def _begin(self) -> None:
        """Begin look-ups, one for each customer in turn, while few have just begun."""
        while self._turns and len(self._young) < MAX_YOUNG:
            customer = next(iter(self._turns))
            domains = self._turns.pop(customer)
            domain = domains.popleft()
            if domains:
                self._turns[customer] = domains
            if domain not in self._to_ask:
                continue
            self._to_ask.remove(domain)
            self._young[domain] = self._loop.call_later(YOUNG_S, self._grow_old, domain)
            task = self._loop.create_task(self._resolve(domain))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _grow_old(self, domain: str) -> None:
        del self._young[domain]
        self._begin()

    def _end(self, domain: str) -> list[Delivery]:
        """Return who waited for a look-up that is over; its place is free."""
        timer = self._young.pop(domain, None)
        if timer is not None:
            timer.cancel()
        waiting = self._waiting.pop(domain)
        customer = waiting[0].envelope.customer
        self._places[customer] -= 1
        if not self._places[customer]:
            del self._places[customer]
        self._begin()
        return waiting

    def ask_again_within(self, domain: str, seconds: float) -> None:
        """A delivery for a domain that has failed is due then: have it asked for by that time."""
        until = self._failed_until.get(domain)
        if until is not None:
            self._failed_until[domain] = min(until, self._loop.time() + seconds)

    def forget_failure(self, domain: str) -> None:
        """Ask again for one domain (an operator says so)."""
        self._failed_until.pop(domain, None)

    def forget_failures(self) -> None:
        """Ask again for domains that failed (reload: a route may name them now)."""
        self._failed_until.clear()

    def close(self) -> None:
        """Give the look-ups up."""
        self._turns.clear()
        for timer in self._young.values():
            timer.cancel()
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
        self._on_done(self._end(domain), reply, is_permanent)


def is_full(waiting: list[Delivery]) -> bool:
    """Return whether so many waited for a look-up that others may have been turned away."""
    return len(waiting) >= MAX_WAITING or len(waiting) == CROWDED_WAITING
