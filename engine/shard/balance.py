"""A backlog for one destination, evened out between the shards whose vmtas may carry it.

From time to time a shard tells the others what waits here for longer than its own paths take to carry it, and
what they may carry. One whose paths for the same ready queue run out of work asks for its fair part, and gets
it by the hand-over that there is. What came from another shard stays, so nothing goes to and fro.

Owns: when that happens, and how much of it in one round.
Never: is part of the way of a message; says how much is fair (queue.balance).
"""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from engine.control.peers import PeerHandler
from engine.core.errors import ResolveError
from engine.delivery.site_queue import SiteQueue
from engine.queue.balance import allowance_per_s, surplus, wanted

if TYPE_CHECKING:
    from engine.shard.build import Engine

EVERY_S = 0.5
MAX_LOOKED_AT = 200  # ready queues in a round, 10 us each; the next round goes on behind them
MAX_TOLD = 50  # of them told to others
MAX_GIVEN = 100  # deliveries in a round: 200 a second are 4 % of a core, here and there
MAX_COUNTED = 4000  # deliveries of a backlog; what carries so many in 2 s has no use for a hundred
MAX_QUEUES = 50  # of the queues behind a ready queue
MAX_LOOKUPS = 20  # domains of others that are being resolved

TELL, ASK = "waits", "wanted"


class Backlog(NamedTuple):
    """What waits for one ready queue, named by any of its mail; `deliveries` there, or asked for."""

    pool: str
    customer: str
    domain: str
    deliveries: int
    per_s: float


class Balance:
    """Gives to other shards, and asks of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._first = 0  # of the ready queues to be looked at in the next round
        self._given = 0
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def handlers(self) -> dict[str, PeerHandler]:
        """Return what other shards may tell and ask."""
        return {TELL: self._hear, ASK: self._give}

    def open(self) -> None:
        """Begin."""
        self._timer = self._engine.loop.call_later(EVERY_S, self._tick)

    def close(self) -> None:
        """Give and ask no more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._lookups.values()):
            task.cancel()

    def _tick(self) -> None:
        engine = self._engine
        self._timer = engine.loop.call_later(EVERY_S, self._tick)
        self._given = 0
        others = engine.exchange.peers.up
        if not others or engine.dispatcher.is_paused:
            return
        backlogs = self._find_backlogs()
        if backlogs:
            for shard in others:
                engine.exchange.peers.notify(shard, TELL, backlogs)

    # -- the shard that has too much --------------------------------------------------------------

    def _find_backlogs(self) -> list[Backlog]:
        engine = self._engine
        queues = list(engine.sites)
        self._first = 0 if self._first >= len(queues) else self._first
        chosen = queues[self._first : self._first + MAX_LOOKED_AT]
        self._first += MAX_LOOKED_AT
        is_shared: dict[str, bool] = {}
        found: list[Backlog] = []
        for site_queue in chosen:
            pool = site_queue.pool
            if len(site_queue.queue) < 2:
                continue
            if pool not in is_shared:
                is_shared[pool] = engine.exchange.owner_of(pool) is not None
            if is_shared[pool] and len(found) < MAX_TOLD:
                per_s = self._allowance(site_queue)
                waiting = self._waiting(site_queue)
                if surplus(waiting, per_s):
                    first = next(iter(site_queue.queue))
                    found.append(Backlog(pool, first.envelope.customer, first.domain, waiting, per_s))
        return found

    def _give(self, shard: int, rows: object) -> None:
        """Hand over what another shard asked for, out of what is not needed here."""
        engine = self._engine
        for asked in msgspec.convert(rows, list[Backlog]):
            site_queue = self._find(asked)
            if site_queue is None or engine.dispatcher.is_paused:
                continue
            spare = surplus(self._waiting(site_queue), self._allowance(site_queue))
            count = min(asked.deliveries, spare, MAX_GIVEN - self._given)
            own = (each for each in site_queue.queue if not each.is_remembered)
            chosen = {delivery.key for delivery in islice(own, max(0, count))}
            if not chosen:
                continue
            self._given += len(chosen)
            for delivery in site_queue.queue.take(lambda delivery, chosen=chosen: delivery.key in chosen):  # type: ignore[misc]
                if not engine.lending.give(delivery, shard):
                    site_queue.queue.push_front(delivery)
            engine.readahead.refill_soon(site_queue)

    # -- the shard that has too little ------------------------------------------------------------

    def _hear(self, shard: int, rows: object) -> None:
        """Ask for the fair part of what waits on another shard, where the paths here may carry more."""
        engine = self._engine
        if engine.dispatcher.is_paused:
            return
        asked = []
        for told in msgspec.convert(rows, list[Backlog]):
            site_queue = self._find(told)
            if site_queue is None:
                continue
            per_s = self._allowance(site_queue)
            count = wanted(self._waiting(site_queue), per_s, told.deliveries, told.per_s)
            if count:
                asked.append(told._replace(deliveries=count, per_s=per_s))
        if asked:
            engine.exchange.peers.notify(shard, ASK, asked)

    def _find(self, told: Backlog) -> SiteQueue | None:
        """Return our ready queue for such mail; None: no vmta of its pool is here, its way not known yet."""
        engine = self._engine
        if not engine.sites.is_carried_here(told.pool):
            return None
        site = engine.resolver.lookup(told.domain)
        if site is None:
            self._look_up(told.domain)
            return None
        return engine.sites.find(told.pool, told.customer, told.domain, site)

    def _look_up(self, domain: str) -> None:
        """Learn a domain's site by the next round."""
        if domain in self._lookups or len(self._lookups) >= MAX_LOOKUPS:
            return
        task = self._lookups[domain] = self._engine.loop.create_task(self._resolve(domain))
        task.add_done_callback(lambda _: self._lookups.pop(domain))

    async def _resolve(self, domain: str) -> None:
        try:
            await self._engine.resolver.resolve(domain)
        except ResolveError:
            return  # the other shard has the mail, and says what comes of it

    # -- both -------------------------------------------------------------------------------------

    def _allowance(self, site_queue: SiteQueue) -> float:
        """Return what our paths may carry from a ready queue each second; vmtas in spare count like them."""
        paths = site_queue.paths
        if not paths:
            return 0.0
        now = self._engine.loop.time()
        per_s = sum(allowance_per_s(path, site_queue.site.name, now) for path in paths)
        return per_s * (len(paths) + len(site_queue.spare)) / len(paths)

    def _waiting(self, site_queue: SiteQueue) -> int:
        """Return how many deliveries are ready or due behind, as far as it matters."""
        ready, behind = len(site_queue.queue), 0
        now_ms = int(time.time() * 1000)
        queues = (queue for by_customer in site_queue.behind.values() for queue in by_customer)
        for queue in islice(queues, MAX_QUEUES):
            if behind >= MAX_COUNTED:
                break
            behind += len(self._engine.store.due_keys(queue, b"", now_ms, MAX_COUNTED - behind))
        return max(ready, behind)  # what is ready of a queue that waits behind is on disk too
