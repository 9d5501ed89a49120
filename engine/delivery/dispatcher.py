"""Hands ready deliveries to sessions, and opens sessions where `decide` says so.

A push wakes an idle session of the path that is furthest behind its share. Where none is idle the
path is asked to decide: at once when nothing serves the site yet, else at most every KICK_EVERY_S, so
that a busy site costs no decision per message.

Owns: which paths carry from which ready queues, when a path is asked again.
Never: decides (queue.decide), connects (opening), speaks SMTP (session), says who makes room (scarcity) or
which further vmtas are brought in (widening).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

from engine.core.envelope import Delivery
from engine.delivery.avoidance import Avoidance
from engine.delivery.hearing import Deaf, Hearer
from engine.delivery.idle import Carrier, IdleSessions
from engine.delivery.scarcity import Scarcity
from engine.delivery.site_queue import SiteQueue
from engine.delivery.widening import Widening
from engine.queue.decide import Decision, decide, held, rate_spent
from engine.queue.path import Path, SiteDemand

KICK_EVERY_S = 0.02  # a decision costs about 10 us; 50 a second and path are 0.05 % of a core
CAP_RECHECK_S = 5.0  # a path that a cap refused is asked when a connection ends, and no later than this


class Step(Protocol):
    """On record while a delivery is worked on: what a shard that dies has died of (shard.step)."""

    def begin(self, delivery_key: bytes) -> None: ...
    def end(self) -> None: ...


class _NoStep:
    def begin(self, delivery_key: bytes) -> None:
        pass

    def end(self) -> None:
        pass


class Dispatcher:
    """Brings ready deliveries and sessions of this shard together."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        open_session: Callable[[Path, SiteDemand, list[SiteQueue]], None],
        on_expired: Callable[[Delivery, SiteQueue], None],
        on_room: Callable[[SiteQueue], None],
        unix_clock: Callable[[], float],
    ) -> None:
        """Args:
        open_session: starts opening; reports back by `opened` or `failed_to_open`.
        on_expired: ends a delivery that waited too long.
        on_room: the ready queue runs low while more waits on disk.
        """
        self._loop = loop
        self._now = loop.time
        self.unix_clock = unix_clock
        self._open_session = open_session
        self._on_expired = on_expired
        self._on_room = on_room
        self._queues: dict[tuple[Path, str], list[SiteQueue]] = {}
        self._idle = IdleSessions()
        self._scarcity = Scarcity(loop, self._idle, self.kick)
        self._timers: dict[Path, tuple[float, asyncio.Handle]] = {}  # uvloop's handles don't know when
        self.decisions: dict[Path, Decision] = {}
        self.widening = Widening(self.decisions, self.attach)
        self._avoidance = Avoidance(
            loop, self._idle, self.widening, partial(self.kick, is_missed=True), self._kick_later
        )
        self.refusals: dict[str, int] = {}
        self.is_paused = False
        self.step: Step = _NoStep()
        self.hearer: Hearer = Deaf()
        self.on_cap_spent: Callable[[Path, str], None] | None = None

    # -- ready queues and paths -------------------------------------------------------------------

    def attach(self, site_queue: SiteQueue, path: Path, weight: float) -> None:
        """Let a path carry from a ready queue."""
        site_queue.add_path(path, weight)
        site = site_queue.site.name
        queues = self._queues.setdefault((path, site), [])
        demand = path.sites.get(site)
        if demand is None:
            demand = SiteDemand(site, lambda: sum(queue.share(path) for queue in queues))
            path.sites[site] = demand
        if site_queue not in queues:
            queues.append(site_queue)
            demand.queues += 1
            site_queue.opening += demand.opening

    def detach(self, site_queue: SiteQueue, path: Path) -> None:
        """Take a path from a ready queue."""
        site_queue.drop_path(path)
        site = site_queue.site.name
        queues = self._queues.get((path, site), [])
        if site_queue in queues:
            queues.remove(site_queue)
            demand = path.sites[site]
            demand.queues -= 1
            site_queue.opening -= demand.opening
            self._forget_demand(path, demand)
            if site_queue.queue and not site_queue.paths:
                self._kick_later(site_queue)

    def forget_path(self, path: Path) -> None:
        """Drop a path that another shard takes over; its sessions are told to quit by their owner."""
        for site in list(path.sites):
            for site_queue in list(self._queues.get((path, site), ())):
                self.detach(site_queue, path)
        self._forget_unused(path)

    def _forget_demand(self, path: Path, demand: SiteDemand) -> None:
        """Drop a site of a path that nothing waits for and no session serves, once its back-off is over."""
        if demand.queues or demand.sessions or demand.opening:
            return
        if demand.retry_at <= self._now():
            path.sites.pop(demand.site, None)
            self._queues.pop((path, demand.site), None)
            self._forget_unused(path)

    def _forget_unused(self, path: Path) -> None:
        """Drop what is kept for a path without sites."""
        if any(demand.queues for demand in path.sites.values()):
            return
        timer = self._timers.pop(path, None)
        if timer is not None:
            timer[1].cancel()
        self.decisions.pop(path, None)
        self._scarcity.forget(path)

    # -- deliveries -------------------------------------------------------------------------------

    def pushed(self, site_queue: SiteQueue) -> None:
        """Something joined a ready queue. HOT: once per message."""
        if site_queue.is_kick_due:
            return
        site_queue.is_kick_due = True
        if any(path.sites[site_queue.site.name].idle for path in site_queue.paths) or not self._is_served(
            site_queue
        ):
            self._loop.call_soon(self._kick_queue, site_queue)
        else:
            self._loop.call_later(KICK_EVERY_S, self._kick_queue, site_queue)

    def _is_served(self, site_queue: SiteQueue) -> bool:
        site = site_queue.site.name
        return any(path.sites[site].sessions or path.sites[site].opening for path in site_queue.paths)

    def _kick_queue(self, site_queue: SiteQueue) -> None:
        site_queue.is_kick_due = False
        site = site_queue.site.name
        if not site_queue.queue:
            return
        if site_queue.is_spare_due():
            self.widening.widen(site_queue)
        in_order = site_queue.in_order()
        if len(in_order) > 1 and self._is_missed(site_queue, in_order[0]):
            self.kick(in_order[0], is_missed=True)
        for path in in_order:
            if not site_queue.queue:
                return
            self._idle.wake(path.sites[site])
        now = self._now()
        for path in in_order:
            if len(site_queue.queue) <= site_queue.opening:
                return
            if site_queue.growth(now) <= 0:
                self._kick_later(site_queue)  # one kick for all paths, not a timer of each
                return
            self.kick(path)
        self._kick_spare(site_queue, now)

    def _kick_spare(self, site_queue: SiteQueue, now: float) -> None:
        """Bring in further vmtas for what is left, if the paths that there are may not do more."""
        while (
            not self.is_paused
            and len(site_queue.queue) > site_queue.opening
            and self.widening.is_wanted(site_queue)
        ):
            if site_queue.growth(now) <= 0:
                self._kick_later(site_queue)
                return
            path = self.widening.widen(site_queue)
            if path is None:
                return
            self.kick(path)

    def _kick_later(self, site_queue: SiteQueue) -> None:
        if not site_queue.is_kick_due:
            site_queue.is_kick_due = True
            self._loop.call_later(KICK_EVERY_S, self._kick_queue, site_queue)

    def _open_missed(self, site_queue: SiteQueue) -> None:
        """Open a session of the path that is furthest behind its share, if it has none."""
        site_queue.is_miss_due = False
        if site_queue.paths and site_queue.queue:
            path = (site_queue.is_spare_due() and self.widening.widen(site_queue)) or site_queue.in_order()[0]
            if self._is_missed(site_queue, path):
                self.kick(path, is_missed=True)

    def _is_missed(self, site_queue: SiteQueue, path: Path) -> bool:
        """Return whether a path without sessions is so far behind its share that it should have one.

        Sessions of others that are idle would else carry all of a thin stream, whatever the weights.
        """
        demand = path.sites[site_queue.site.name]
        if demand.sessions or demand.opening:
            return False
        site = site_queue.site.name
        served = [each for each in site_queue.paths if each.sites[site].sessions or each.sites[site].opening]
        return bool(served) and all(site_queue.is_ahead(each, path) for each in served)

    def take(self, session: Carrier) -> Delivery | None:
        """Return the session's next delivery, reserved at the path's rates; None: not now. HOT."""
        path = session.path
        now = self._now()
        if self.is_paused:
            return None
        if path.holds and (hold := path.hold_in_force(now)) is not None:
            self._note_spent(session, held(hold))
            return None
        if self._scarcity.should_yield(session, now):
            session.quit()
            return None
        queues = session.site_queues
        for site_queue in queues:
            if not site_queue.queue:
                continue
            if site_queue.spare and not site_queue.is_miss_due and site_queue.is_spare_due():
                site_queue.is_miss_due = True
                self._loop.call_soon(self._open_missed, site_queue)
            if len(site_queue.paths) > 1 and not site_queue.is_level(path):
                self._wake_those_behind(site_queue, path, now)
            ready_at = path.message_ready_at(now)
            if ready_at > now:
                self._ask_at(path, ready_at)
                if site_queue.spare:
                    self._note_spent(session, rate_spent(ready_at, now, session.path.rate_why))
                return None
            delivery = self._pop(site_queue, path, now)
            if delivery is not None:
                session.reserved_at = path.reserve_message(now)
                session.taken_from = site_queue
                site_queue.count_taken(path)
                if len(queues) > 1:
                    queues.append(queues.pop(0))
                return delivery
        return None

    def _pop(self, site_queue: SiteQueue, path: Path, now: float) -> Delivery | None:
        queue = site_queue.queue
        unix_now = self.unix_clock()
        held = path.customers_held(now) if path.held_customers else None
        while True:
            delivery = queue.pop_other(held) if held else queue.pop()
            if delivery is not None and delivery.avoid == path.vmta:
                delivery = self._avoidance.pass_over(delivery, site_queue, path.vmta, unix_now)
            if delivery is None:
                return None
            if (
                site_queue.behind
                and not site_queue.is_refill_due
                and site_queue.is_low(delivery.envelope.customer)
            ):
                self._ask_for_more(site_queue)
            if delivery.expires_at > unix_now:
                return delivery
            self._on_expired(delivery, site_queue)

    def _ask_for_more(self, site_queue: SiteQueue) -> None:
        site_queue.is_refill_due = True
        self._loop.call_soon(self._on_room, site_queue)

    def _note_spent(self, session: Carrier, decision: Decision) -> None:
        """A session may not go on, although there is work: another vmta may."""
        self.decisions[session.path] = decision
        for site_queue in session.site_queues:
            if site_queue.queue and self.widening.is_wanted(site_queue):
                self._kick_later(site_queue)

    def _wake_those_behind(self, site_queue: SiteQueue, path: Path, now: float) -> None:
        """Let idle sessions of paths that are behind their share take first, before the one that asks."""
        site = site_queue.site.name
        for other in site_queue.paths:
            if other is path or not site_queue.is_ahead(path, other):
                continue
            demand = other.sites[site]
            if not demand.idle:
                if not demand.sessions and not demand.opening and not site_queue.is_miss_due:
                    site_queue.is_miss_due = True
                    self._loop.call_soon(self._open_missed, site_queue)
                continue
            if other.message_ready_at(now) > now or other.hold_in_force(now) is not None:
                site_queue.passes[other] = site_queue.passes[path]  # it can't: no debt is kept for later
            else:
                self._idle.wake(other.sites[site])

    # -- sessions ---------------------------------------------------------------------------------

    def opened(self, session: Carrier) -> None:
        """A session is open and will take deliveries."""
        demand = session.demand
        demand.opening -= 1
        demand.sessions += 1
        demand.succeed()
        demand.served_at = self._now()
        if demand.is_starved:
            self._scarcity.end_starving(session.path)
        for site_queue in session.site_queues:
            site_queue.opening -= 1
            if site_queue.is_stopped or site_queue.is_untried:
                site_queue.is_stopped = site_queue.is_untried = False
                if site_queue.behind and not site_queue.is_refill_due:
                    self._ask_for_more(site_queue)

    def failed_to_open(
        self, path: Path, demand: SiteDemand, queues: list[SiteQueue], detail: str | None
    ) -> bool:
        """No address of the site took a session; `detail` None: it was not even tried.

        Returns whether that says something new: one of several tries made at once does.
        """
        demand.opening -= 1
        for site_queue in queues:
            site_queue.opening -= 1
        is_new = detail is not None and demand.fail(self._now(), detail)
        self._forget_demand(path, demand)
        self._scarcity.slot_is_free(path)
        return is_new

    def closed(self, session: Carrier) -> None:
        """A session is gone; its slot comes back by itself."""
        session.demand.sessions -= 1
        self._scarcity.closed(session)
        self.busy(session)
        self._forget_demand(session.path, session.demand)
        self._scarcity.slot_is_free(session.path)

    def idle(self, session: Carrier) -> None:
        """A session has nothing to do."""
        self._idle.add(session)
        self._scarcity.became_idle(session)

    def busy(self, session: Carrier) -> None:
        """A session left idleness."""
        self._idle.remove(session)

    # -- decisions --------------------------------------------------------------------------------

    def kick(self, path: Path, *, is_missed: bool = False) -> None:
        """Wake idle sessions that may go, then open what `decide` says; else remember why not.

        `is_missed`: one session opens however fast its ready queues may grow (`_is_missed`).
        """
        if self.is_paused or not path.sites:
            return
        now = self._now()
        for demand in list(path.sites.values()):
            if demand.idle and demand.waiting() > 0:
                self._idle.wake(demand)
        decision = self._open_decided(path, now, is_missed=is_missed)
        self.decisions[path] = decision
        if decision.reason:
            self._note_refusal(path, decision, now)
        if decision.is_spent:
            for site in path.sites:
                for queue in self._queues[path, site]:
                    if queue.spare and queue.queue and self.widening.is_wanted(queue):
                        self._kick_later(queue)

    def _open_decided(self, path: Path, now: float, *, is_missed: bool) -> Decision:
        """Open what `decide` says and the ready queues' growth allows; return the last decision."""
        for _ in range(64):
            decision = decide(path, now)
            if not decision.open:
                break
            queues = self._queues[path, decision.site]
            growth = 1 if is_missed else min([queue.growth(now) for queue in queues], default=1)
            is_missed = False
            if growth <= 0:
                for queue in queues:
                    self._kick_later(queue)
                decision = Decision(0, "", "more sessions open soon", math.inf)
                break
            count = min(decision.open, growth)
            if not all(self._open(path, path.sites[decision.site], now) for _ in range(count)):
                self._ask_at(path, now + KICK_EVERY_S)
                break
        return decision

    def _open(self, path: Path, demand: SiteDemand, now: float) -> bool:
        if not path.try_connect(now):
            return False
        for cap in path.caps:
            cap.in_use += 1
        demand.opening += 1
        queues = self._queues[path, demand.site]
        for site_queue in queues:
            site_queue.opening += 1
            site_queue.grow_left -= 1
        self._open_session(path, demand, queues)
        return True

    def _note_refusal(self, path: Path, decision: Decision, now: float) -> None:
        reason = decision.reason.partition(" for ")[0].partition(" after ")[0]
        if " of " in reason:  # of a ceiling, whose figures change: they would be labels without end
            reason = " ".join(word for word in reason.split() if not word.isdigit())
        self.refusals[reason] = self.refusals.get(reason, 0) + 1
        if decision.reason.startswith("max_connections"):
            self._scarcity.find_starved(path, now)
            if self.on_cap_spent is not None:
                self.on_cap_spent(path, decision.reason)
            for cap in path.caps:
                if decision.reason.startswith(cap.name):
                    self._ask_at(path, now + CAP_RECHECK_S)
                    self._scarcity.wait_for_cap(path)
        if decision.ask_at != math.inf:
            self._ask_at(path, decision.ask_at)

    def _ask_at(self, path: Path, at: float) -> None:
        """Kick the path at `at`; an earlier date that is already set stays."""
        known = self._timers.get(path)
        if known is not None:
            if known[0] <= at:
                return
            known[1].cancel()
        self._timers[path] = (at, self._loop.call_at(at, self._alarm, path))

    def _alarm(self, path: Path) -> None:
        self._timers.pop(path, None)
        self.kick(path)
