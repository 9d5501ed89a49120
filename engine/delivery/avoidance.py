"""Deliveries whose next attempt should be made by another vmta of the pool than the last one.

A session of the vmta that is to be avoided passes them over, for a while: where no other vmta of the pool on
this shard gets through within AVOID_S of their time, the same one may try again.

Owns: who passes over what, and that another vmta is asked for.
Never: opens sessions itself (the dispatcher does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.core.envelope import Delivery
from engine.delivery.idle import IdleSessions
from engine.delivery.site_queue import SiteQueue
from engine.delivery.widening import Widening
from engine.queue.path import Path

AVOID_S = 30.0  # after it is due: enough for a session to open, and short against any retry
MAX_PASSED = 32  # deliveries looked at for one that may go: a queue of others is not walked through


class Avoidance:
    """Passes deliveries over for the sake of other vmtas."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        idle: IdleSessions,
        widening: Widening,
        kick: Callable[[Path], None],
        kick_later: Callable[[SiteQueue], None],
    ) -> None:
        self._loop = loop
        self._idle = idle
        self._widening = widening
        self._kick = kick
        self._kick_later = kick_later

    def pass_over(
        self, first: Delivery, site_queue: SiteQueue, vmta: str, unix_now: float
    ) -> Delivery | None:
        """Return the first delivery, from `first` on, that the vmta may take; the others stay ready."""
        passed: list[Delivery] = []
        delivery: Delivery | None = first
        while (
            delivery is not None
            and delivery.avoid == vmta
            and unix_now < delivery.due_at + AVOID_S
            and len(passed) < MAX_PASSED
            and (site_queue.spare or len(site_queue.paths) > 1)
        ):
            passed.append(delivery)
            delivery = site_queue.queue.pop()
        for each in reversed(passed):
            site_queue.queue.push_front(each)
        if passed and delivery is None and not site_queue.is_other_due:
            site_queue.is_other_due = True
            self._loop.call_soon(self._ask_others, site_queue, vmta)
        return delivery

    def _ask_others(self, site_queue: SiteQueue, vmta: str) -> None:
        """Have another vmta carry what this one passes over: by an idle session, or by a new one."""
        site_queue.is_other_due = False
        site = site_queue.site.name
        others = [path for path in site_queue.paths if path.vmta != vmta]
        if not others and (path := self._widening.widen(site_queue)) is not None:
            others = [path]
        for path in others:
            demand = path.sites[site]
            if demand.sessions or demand.opening:
                self._idle.wake(demand)
            else:
                self._kick(path)
        if site_queue.queue:
            self._kick_later(site_queue)
