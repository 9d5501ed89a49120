"""Bounces what waits: all mail of a customer for a destination, as a rule for replies says.

What is ready goes first, then what is on disk, a slice at a time; what becomes due, or is accepted, while the
rule is in force goes when it is about to become ready. What is in flight ends as its peer says.

Owns: that work, one job for each reaction.
Never: bounces what is held for itself (poison, or kept for another shard); decides how long it is in force.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from engine.core.envelope import Delivery
from engine.core.reply import Reply, make_reply
from engine.delivery.applying import Applying
from engine.delivery.paths import PathTable
from engine.delivery.readahead import ReadAhead
from engine.delivery.resolving import Lookup
from engine.delivery.settle import Dispositions
from engine.delivery.site_queue import SiteQueue
from engine.delivery.sites import SiteQueues
from engine.policy.model import Policy
from engine.policy.on_reply import ReplyRule
from engine.queue.reactions import Reaction
from engine.store.records import parse_queue, position, queue_name

SLICE = 50  # deliveries, about 10 ms with their events and bounce messages
QUEUES = 400  # of a customer, looked at in one step
PAUSE_S = 0.02
EVER_MS = (1 << 62) - 1


class WaitingStore(Protocol):
    """What is needed of the store."""

    def queues(self, limit: int, after: bytes = b"") -> list[tuple[bytes, int]]: ...
    def due_keys(self, queue: bytes, after: bytes, now_ms: int, limit: int) -> list[tuple[int, bytes]]: ...
    def load(self, delivery_key: bytes, queue: bytes = b"", due: int = 0) -> Delivery | None: ...


class BounceWaiting:
    """Does it for one shard."""

    def __init__(  # noqa: PLR0913, PLR0917 (its collaborators, given once by the shard)
        self,
        store: WaitingStore,
        sites: SiteQueues,
        readahead: ReadAhead,
        dispositions: Dispositions,
        resolver: Lookup,
        paths: PathTable,
        applying: Applying,
        policy_for: Callable[[str, str], Policy],
        rule_of: Callable[[str], ReplyRule | None],
    ) -> None:
        """Args: policy_for: (customer, domain). rule_of: by name."""
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._sites = sites
        self._readahead = readahead
        self._dispositions = dispositions
        self._resolver = resolver
        self._paths = paths
        self._applying = applying
        self._policy_for = policy_for
        self._rule_of = rule_of
        self._jobs: dict[str, Iterator[None]] = {}
        self._ready: dict[str, deque[tuple[Delivery, SiteQueue]]] = {}  # what jobs have in hand
        self._timer: asyncio.TimerHandle | None = None
        applying.on_waiting = self.changed

    def changed(self, reaction: Reaction) -> None:
        """A rule has what waits bounce, or no more."""
        self._readahead.refuse = self.refuse if self._applying.has_bounces else None
        reach = reaction.reach
        if self._applying.bounces(reach.destination, reach.customer) is not reaction:
            self._jobs.pop(reaction.key, None)
            for delivery, site_queue in self._ready.pop(reaction.key, ()):
                self._readahead.ready_again(delivery, site_queue)
        elif reaction.key not in self._jobs:
            ready = self._ready[reaction.key] = self._take_ready(reaction)
            self._jobs[reaction.key] = self._work(reaction, ready)
            self._go_on(0.0)

    def close(self) -> None:
        """Stop; what is left waits for the next process, which finds the rule in force."""
        self._jobs.clear()
        if self._timer is not None:
            self._timer.cancel()

    def refuse(self, delivery: Delivery, site_queue: SiteQueue) -> bool:
        """Bounce a delivery that is about to become ready, where its mail is to; HOT while any is."""
        reaction = self._applying.bounces(site_queue.destination.name, delivery.envelope.customer)
        if reaction is None:
            return False
        self._bounce(delivery, reaction, site_queue)
        return True

    def _go_on(self, after_s: float) -> None:
        if self._timer is None and self._jobs:
            self._timer = self._loop.call_later(after_s, self._step)

    def _step(self) -> None:
        """Do one slice of the job whose turn it is."""
        self._timer = None
        key = next(iter(self._jobs), None)
        if key is None:
            return
        job = self._jobs.pop(key)
        if next(job, key) is None:
            self._jobs[key] = job  # there is more of it, when the others have had their turn
        else:
            self._ready.pop(key, None)
        self._go_on(PAUSE_S)

    def _take_ready(self, reaction: Reaction) -> deque[tuple[Delivery, SiteQueue]]:
        """Take what is ready out of the reach of sessions, at once; it bounces by and by."""
        reach = reaction.reach
        return deque(
            (delivery, site_queue)
            for site_queue in self._sites
            if site_queue.destination.name == reach.destination and site_queue.queue.waiting(reach.customer)
            for delivery in site_queue.queue.take(lambda each: each.envelope.customer == reach.customer)
        )

    def _work(self, reaction: Reaction, ready: deque[tuple[Delivery, SiteQueue]]) -> Iterator[None]:
        """Bounce a slice between each two yields."""
        while ready:
            for _ in range(min(SLICE, len(ready))):
                delivery, site_queue = ready.popleft()
                self._bounce(delivery, reaction, site_queue)
            yield
        yield from self._work_on_disk(reaction)

    def _work_on_disk(self, reaction: Reaction) -> Iterator[None]:
        customer = reaction.reach.customer
        after = queue_name(customer, "")
        while queues := self._store.queues(QUEUES, after):
            for queue, _ in queues:
                owner, domain = parse_queue(queue)
                if owner != customer:
                    return
                if self._is_meant(domain, reaction):
                    yield from self._empty(queue, reaction)
            after = queues[-1][0]
            yield

    def _is_meant(self, domain: str, reaction: Reaction) -> bool:
        """Return whether a domain's mail goes there; what was never resolved is found when it is due."""
        site = self._resolver.lookup(domain)
        name, hosts = (site.plain_name, () if site.is_route else site.host_names) if site else ("", ())
        return self._paths.policies.destination(domain, name, hosts).name == reaction.reach.destination

    def _empty(self, queue: bytes, reaction: Reaction) -> Iterator[None]:
        after = b""
        while keys := self._store.due_keys(queue, after, EVER_MS, SLICE):
            for due, key in keys:
                after = position(due, key)
                if key in self._readahead.in_memory:
                    continue
                delivery = self._store.load(key, queue, due)
                if delivery is not None and not delivery.held:
                    self._bounce(delivery, reaction, None)
            yield

    def _bounce(self, delivery: Delivery, reaction: Reaction, site_queue: SiteQueue | None) -> None:
        policy = self._policy_for(delivery.envelope.customer, delivery.domain)
        rule = self._rule_of(reaction.rule)
        self._dispositions.bounce(delivery, bounced_by(reaction), policy, site_queue, rule)


def bounced_by(reaction: Reaction) -> Reply:
    """Return what senders are told: which rule, and what the peer had said to whoever was tried."""
    return make_reply(550, "5.7.1", f"bounced by rule {reaction.rule} after: {reaction.reply}")
