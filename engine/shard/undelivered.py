"""What becomes of deliveries that no session carried.

Their time is over, their domain or its hosts lead nowhere, their pool has no vmta here, or they are poison.

Owns: which of these bounce, wait on, expire or go to another shard.
Never: gives a disposition itself (delivery.settle), decides when (who calls it does).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from engine.core.envelope import Delivery
from engine.core.reply import Reply
from engine.delivery.flight import Met
from engine.delivery.obstacles import obstacle
from engine.delivery.settle import Whither
from engine.delivery.site_queue import SiteQueue
from engine.net.site import with_word
from engine.policy.model import Policy
from engine.queue.path import Path
from engine.security.demand import word_of
from engine.shard.retrying import POISON
from engine.telemetry.log import Log

if TYPE_CHECKING:
    from engine.shard.build import Engine

HELD_UNTIL = 253_402_300_799.0  # the last second of the year 9999: held deliveries are never due

log = Log("shard")


class Undelivered:
    """Takes what delivery could not do for one shard."""

    def __init__(self, engine: Engine, unix_clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._unix = unix_clock

    def expired(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        """A ready delivery was looked at past its time."""
        self._engine.expiry.expire_ready(delivery, site_queue)

    def expire(self, delivery: Delivery, policy: Policy, site_queue: SiteQueue | None) -> None:
        """End a delivery whose time is over, and say what stopped it where something does.

        One that waits on disk has its ready queue nearly always: those before it are there.
        """
        engine = self._engine
        site_queue = site_queue or self._queue_of(delivery)
        reason = obstacle(site_queue, engine.loop.time()) if site_queue is not None else ""
        engine.dispositions.expire(delivery, policy, site_queue or self._whither(delivery), reason)

    def _queue_of(self, delivery: Delivery) -> SiteQueue | None:
        engine = self._engine
        site = engine.resolver.lookup(delivery.domain)
        if site is None:
            return None
        envelope = delivery.envelope
        if envelope.terms is not None or envelope.is_tls_optional:
            site = with_word(site, word_of(envelope))
        return engine.sites.known(envelope.pool, envelope.customer, delivery.domain, site)

    def _whither(self, delivery: Delivery) -> Whither:
        """Return where a delivery would go; without an answer of DNS, its domain may still have a policy."""
        engine = self._engine
        domain = delivery.domain
        site = engine.resolver.lookup(domain)
        name, hosts = (site.plain_name, () if site.is_route else site.host_names) if site else (domain, ())
        return Whither(engine.paths.policies.find_destination(domain, name, hosts), site)

    def unresolved(self, delivery: Delivery, reply: Reply, is_permanent: bool) -> None:
        """Its domain leads nowhere, or nobody can tell at present."""
        engine = self._engine
        policy = engine.policy_for(delivery.envelope.customer, delivery.domain)
        if is_permanent:
            engine.dispositions.bounce(delivery, reply, policy, None)
        else:
            engine.dispositions.defer_by(delivery, reply, policy, self._unix(), None)

    def unreachable(self, queues: list[SiteQueue], reply: Reply, path: Path, met: Met) -> None:
        """A path could not open a session: one delivery was tried by it; the rest waits."""
        engine = self._engine
        for site_queue in queues:
            site = site_queue.site.name
            if any(each.sites[site].sessions for each in site_queue.paths):
                continue  # another vmta of the pool gets through
            if reply.synthetic and reply.is_permanent:  # no host of it has an address that may be used
                for hopeless in site_queue.queue.take(lambda _: True):
                    policy = site_queue.policy_of(hopeless.envelope.customer)
                    engine.dispositions.bounce(hopeless, reply, policy, site_queue)
                continue
            delivery = site_queue.queue.pop()
            if delivery is not None:
                self._fail_one(delivery, site_queue, reply, path, met)
            engine.readahead.stopped(site_queue)

    def _fail_one(self, delivery: Delivery, queue: SiteQueue, reply: Reply, path: Path, met: Met) -> None:
        """The delivery that made a path connect bears what its peer said."""
        engine = self._engine
        rule = engine.dispatcher.hearer.fired_for(reply)
        if rule is not None and rule.does == "bounce":
            policy = queue.policy_of(delivery.envelope.customer)
            engine.dispositions.bounce(delivery, reply, policy, queue, rule)
        else:
            engine.dispositions.defer(delivery, queue, reply, path.vmta, met._replace(rule=rule))

    def offer(self, delivery: Delivery) -> bool:
        """Hand a delivery over; False where no shard can take it now.

        The shard that may have it may be no more, and its store left to this one, which knows then.
        """
        engine = self._engine
        if not engine.exchange.is_keeper_here(delivery):
            return engine.handover.offer(delivery)
        if engine.orphans.remember(delivery.key):
            engine.loop.call_soon(engine.lending.handed_over, delivery)
        else:
            delivery.held = ""
            engine.store.amend(delivery, delivery.due_at)
            engine.loop.call_soon(engine.readahead.left, delivery)
        return True

    def hold_poison(self, keys: Iterable[bytes]) -> None:
        """Hold deliveries on which shards died, until an operator says otherwise."""
        engine = self._engine
        for key in keys:
            delivery = engine.store.load(key)
            if delivery is None or delivery.held or key in engine.readahead.in_memory:
                continue
            delivery.held = POISON
            engine.store.amend(delivery, HELD_UNTIL)
            log.error("delivery held as poison", id=delivery.message_id.hex(), domain=delivery.domain)
