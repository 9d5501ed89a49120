"""The engine of one shard, wired: every object is built here and handed to those that call it.

Owns: the order of building and closing, and what a new generation of the configuration changes.
Never: does the work of any of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from engine.core.envelope import Delivery, MessageIds
from engine.delivery.adapting import FIRST_CEILING, Adapting
from engine.delivery.bounces import Bouncer
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.expiry import Expiry
from engine.delivery.handover import Handover
from engine.delivery.judging import Judge
from engine.delivery.opening import SWEEP_EVERY_S, Opener
from engine.delivery.paths import PathTable
from engine.delivery.readahead import ReadAhead
from engine.delivery.settle import Dispositions
from engine.delivery.site_queue import SiteQueue
from engine.delivery.sites import SiteQueues
from engine.inject.accept import Acceptor
from engine.inject.signing import Signers
from engine.loading import Model
from engine.net.handshake import ClientContexts
from engine.net.own import own_hosts
from engine.policy.model import Policy
from engine.queue.path import Cap, LeasedCap
from engine.queue.path import Path as EnginePath
from engine.queue.scheduled import Window
from engine.settings.model import Settings, VirtualMTA
from engine.shard.attempts import SharedTries
from engine.shard.balance import Balance
from engine.shard.exchange import Exchange
from engine.shard.gauges import Gauges
from engine.shard.index_watch import IndexWatch
from engine.shard.leases import ConnectionLease
from engine.shard.lending import Lending
from engine.shard.orphans import LeftStores
from engine.shard.reporting import Reporting
from engine.shard.resolving import make_resolver, port_of
from engine.shard.rules import Rules
from engine.shard.salvaging import Salvages
from engine.shard.step import StepRecord
from engine.shard.store_trouble import StoreTrouble
from engine.shard.undelivered import Undelivered
from engine.shard.upkeep import QUIET_S, Upkeep, quiet_s
from engine.store.environment import StoreOptions
from engine.store.lmdb import Store
from engine.telemetry.eventlog import EventLog
from engine.telemetry.labels import DestinationLabels
from engine.telemetry.metrics import Counters


class Engine:
    """All objects of one shard."""

    def __init__(
        self, shard: int, shards: int, model: Model, incarnation: bytes, assignment: dict[str, int]
    ) -> None:
        self.shard = shard
        self.shards = shards
        self.model = model
        self.loop = asyncio.get_running_loop()
        self.counters = Counters()
        self.started_at = time.time()
        settings = model.settings
        data_dir = Path(settings.engine.data_dir)
        self.events = EventLog(
            Path(settings.engine.event_log_dir),
            shard,
            max_bytes=settings.engine.event_log_size_bytes,
            max_age_s=settings.engine.event_log_age_s,
        )
        directory = data_dir / f"shard-{shard}"
        self.store_trouble = StoreTrouble(self.loop, self.counters)
        self.store = Store(
            directory,
            loop=self.loop,
            options=StoreOptions(
                map_size_bytes=settings.engine.map_size_bytes,
                durability=settings.engine.durability,
                min_free_bytes=settings.engine.min_free_disk_bytes,
            ),
            journal=self.events,
            on_damaged=self.store_trouble.damaged,
            on_mended=self.store_trouble.mended,
            on_unhealthy=partial(self.store_trouble.failed, directory),
            observe_commit_s=self.counters.histogram("mailrail_commit_seconds").observe,
        )
        self.labels = DestinationLabels(frozenset(model.policies.providers))
        self.shelf, self.resolver = make_resolver(settings)
        self.contexts = ClientContexts()
        self.shard_cap = Cap("max_connections_per_shard", settings.engine.max_connections_per_shard)
        self.total_cap = LeasedCap("max_connections in total", settings.engine.max_connections)
        self.lease = ConnectionLease(shard, self.total_cap)
        self.paths = PathTable(model.policies, (self.shard_cap, self.total_cap), self.loop.time)
        self.resolver.port_of = port_of(self.paths)
        self.balance = Balance(self)
        self.tries = SharedTries(shard)
        handlers = self.lease.handlers() | self.balance.handlers() | self.tries.handlers()
        self.exchange = Exchange(shard, data_dir / "run", self.counters, handlers)
        self.ids = MessageIds(shard, incarnation)
        self.lending = Lending(self)
        self.judge = Judge(model.policies)
        self.undelivered = Undelivered(self)
        self._build_delivery(settings)
        self.acceptor = Acceptor(
            shard=shard,
            ids=self.ids,
            store=self.store,
            place=self.exchange.place,
            forward=self.exchange.forward,
            arrived=self.readahead.arrived,
            sign=self._sign,
            add_event=self.events.add,
            counters=self.counters,
            unix_clock=time.time,
        )
        self.exchange.acceptor = self.acceptor
        self.rules = Rules(self)
        self.lease.connect(self.exchange.peers, self.dispatcher.kick)
        self.tries.connect(self.exchange.peers)
        self.exchange.on_peer = [self.lease.peer_changed, self.tries.peer_changed]
        self.dispatcher.on_cap_spent = self.lease.wait
        self.index_watch = IndexWatch(self.store)
        self.upkeep = Upkeep(self, data_dir / f"shard-{shard}")
        self.reporting = Reporting(self)
        Gauges(self)
        self.opener.on_first_session = self.upkeep.mark
        self.quiet_s = quiet_s(data_dir, time.time())
        self.signers = Signers(settings, model.keys)
        self.step: StepRecord
        self.orphans = LeftStores(self)
        self.exchange.knows_left = self.orphans.know
        self.salvages = Salvages(self, data_dir)
        self.assignment: dict[str, int] = {}
        self._use(model, assignment)

    def _build_delivery(self, settings: Settings) -> None:
        self.opener = Opener(
            self.resolver,
            self.paths,
            self.contexts,
            self.counters,
            self.labels.peek,
            self.undelivered.unreachable,
        )
        self.dispatcher = Dispatcher(
            self.loop,
            self.opener.open_soon,
            self.undelivered.expired,
            lambda queue: self.readahead.refill(queue),
            time.time,
        )
        self.sites = SiteQueues(self.paths, self.dispatcher, settings.pools, self.share_of)
        self.window = Window(settings.engine.window_messages, settings.engine.window_size_bytes)
        self.handover = Handover(
            self.exchange.send,
            self.exchange.keeper_of,
            self.lending.handed_over,
            self.lending.not_handed_over,
        )
        self.readahead = ReadAhead(
            self.store,
            self.resolver,
            self.sites,
            self.dispatcher,
            self.window,
            time.time,
            pool_of=self.pool_of,
            on_unresolved=self.undelivered.unresolved,
            on_foreign=self.undelivered.offer,
        )
        self.bouncer = Bouncer(
            self.store,
            self.ids,
            self.readahead.arrived,
            self.events.add,
            self.counters,
            self.shard,
            time.time,
        )
        self.dispositions = Dispositions(
            self.store,
            self.events.add,
            self.counters,
            self.labels,
            self,
            self.bouncer.bounce,
            judge=self.judge,
            shard=self.shard,
            unix_clock=time.time,
            jitter=random.random,
        )
        self.opener.dispatcher = self.dispatcher
        self.opener.settler = self.dispositions
        self.paths.first_ceiling = FIRST_CEILING
        self.opener.adapting = Adapting(
            self.loop, self.judge.category, self.dispatcher.kick, self.counters, self.labels.peek
        )
        self.dispositions.heed = self.opener.adapting.settled
        self.dispositions.on_settled = self.opener.turned_away.note
        self.expiry = Expiry(
            self.store,
            self.sites,
            self.readahead,
            self.policy_for,
            self.undelivered.expire,
            time.time,
            self.dispositions.tell_late,
        )

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open store and event log, own the vmtas, begin to deliver."""
        self.events.open()
        directory = Path(self.model.settings.engine.data_dir) / f"shard-{self.shard}"
        self.store_trouble.open(directory, self.store.open)
        await self.salvages.open()
        self.step = StepRecord(directory / "step")
        self.dispatcher.step = self.step
        self.upkeep.open()
        self.rules.open()
        self.balance.open()
        self.reporting.open()
        await self.exchange.open()
        await self.resolver.open()
        self.readahead.start()
        self.expiry.start()
        self.index_watch.start()
        self.salvages.begin()
        self._sweep_timer = self.loop.call_later(SWEEP_EVERY_S, self._sweep)

    def close(self) -> None:
        """Stop delivering and close the store; what is in flight is tried again by the next shard."""
        self._sweep_timer.cancel()
        self.readahead.close()
        self.expiry.close()
        self.index_watch.close()
        self.opener.close()
        self.lease.close()
        self.tries.close()
        self.upkeep.close()
        self.rules.close()
        self.balance.close()
        self.reporting.close()
        self.exchange.close()
        self.salvages.close()
        for orphan in self.orphans.values():
            orphan.close()
        self.resolver.close()
        if self.shelf is not None:
            self.shelf.close()
        self.store.close()
        self.events.close()

    def _sweep(self) -> None:
        self.opener.sweep()
        self._sweep_timer = self.loop.call_later(SWEEP_EVERY_S, self._sweep)

    # -- configuration ----------------------------------------------------------------------------

    def reconfigure(
        self, model: Model, assignment: dict[str, int], released: frozenset[str] = frozenset()
    ) -> None:
        """Go over to another generation of the configuration; sessions stay.

        `released`: vmtas whose last owner has said that their sessions have ended.
        """
        self.readahead.put_all_back()
        self._use(model, assignment, released)
        self.sites.clear(model.settings.pools, self.share_of)
        settings = model.settings
        self.resolver.use(settings.routes, settings.engine.prohibited_networks, own_hosts(settings))

    def _use(self, model: Model, assignment: dict[str, int], released: frozenset[str] = frozenset()) -> None:
        settings = model.settings
        before, self.assignment = self.assignment, assignment
        self.model = model
        ours = [vmta for name, vmta in settings.vmtas.items() if assignment.get(name) == self.shard]
        known = dict(self.paths.vmtas)
        both = [(known[vmta.name], vmta) for vmta in ours if vmta.name in known]
        kept = {now.name for was, now in both if was.addresses == now.addresses}
        if known.keys() - kept:
            self.disown(known.keys() - kept)
        changed = {now.name for was, now in both if (was.hostname, was.proxy) != (now.hostname, now.proxy)}
        self.quit_sessions(changed & kept)  # the next ones say the new name, go the new way
        self.paths.own(ours, self.loop.time() + self._quiet_s(ours, before, released))
        self.paths.replace_policies(model.policies)
        self.judge.use(model.policies)
        self.rules.use(model.policies)
        self.shard_cap.limit = settings.engine.max_connections_per_shard
        self.lease.use(settings.engine.max_connections, self.shards, is_quiet=self.quiet_s > 0)
        self.opener.trim()
        self.exchange.use(settings, assignment, self.shards)
        self.acceptor.use(settings.engine.hostname, settings.customers, settings.pools)
        self.window.max_count = settings.engine.window_messages
        self.window.max_bytes = settings.engine.window_size_bytes
        self.signers = Signers(settings, model.keys)
        self.contexts.use(settings.engine.tls_ca_file, model.pems)
        self.bouncer.use(settings)
        self.reporting.use(settings)
        self.labels.name_providers(frozenset(model.policies.providers))

    def _quiet_s(
        self, ours: Iterable[VirtualMTA], before: Mapping[str, int], released: Collection[str]
    ) -> float:
        """Return how long what is new here must not connect: after a start, or its last owner's death."""
        if not before:
            return self.quiet_s
        moved = [vmta for vmta in ours if before.get(vmta.name, self.shard) != self.shard]
        return 0.0 if all(vmta.name in released for vmta in moved) else QUIET_S

    def disown(self, names: set[str]) -> list[EnginePath]:
        """Let go of vmtas; their sessions are told to quit."""
        paths = self.paths.disown(names)
        for path in paths:
            self.dispatcher.forget_path(path)
        gone = set(paths)
        for session in [session for session in self.opener.sessions if session.path in gone]:
            session.quit()
        return paths

    def quit_sessions(self, names: set[str] | None = None) -> None:
        """Have the sessions of these vmtas (None: all) say QUIT as soon as nothing is in flight."""
        for session in list(self.opener.sessions):
            if names is None or session.path.vmta in names:
                session.quit()

    def abort_sessions(self) -> None:
        """Cut every session off."""
        for session in list(self.opener.sessions):
            session.abort()

    def stop_sending(self) -> None:
        """Begin no transaction any more; those in flight may finish."""
        self.dispatcher.is_paused = True
        self.readahead.is_paused = True
        self.opener.close()
        self.quit_sessions()

    def snapshot(self) -> dict[str, Any]:
        """Return every number of this shard, for the supervisor."""
        return self.counters.snapshot()

    def policy_for(self, customer: str, domain: str) -> Policy:
        """Return what applies to a customer's mail to a domain, resolved or not."""
        policies = self.paths.policies
        site = self.resolver.lookup(domain)
        name, hosts = (site.plain_name, () if site.is_route else site.host_names) if site else ("", ())
        return policies.effective(policies.destination(domain, name, hosts), customer, "")

    def pool_of(self, customer: str) -> str:
        found = self.model.settings.customers.get(customer)
        return found.pool if found is not None else ""

    def share_of(self, customer: str) -> int:
        found = self.model.settings.customers.get(customer)
        return found.share if found is not None else 1

    def _sign(self, customer: str, domain: str, message: bytes, unix_now: float) -> bytes:
        return self.signers.sign(customer, domain, message, unix_now)

    # -- what becomes of deliveries (Settlement) -----------------------------------------------------

    def deferred(self, delivery: Delivery) -> None:
        self.readahead.left(delivery)

    def ended(self, delivery: Delivery) -> None:
        self.readahead.left(delivery)

    def ready_again(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        self.readahead.ready_again(delivery, site_queue)
