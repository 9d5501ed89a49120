"""The sweep that ends what waited too long: ready, held, paused or on disk.

A message id tells when the message was accepted, and the queue's name whose it is and where to, so
the schedule's keys are enough to find what has expired; records are read only for those. A sweep
goes on where the last one stopped and takes at most SLICE_S of every TICK_S: 1 % of a core, which
passes a million deliveries in about two minutes and an ordinary backlog in one tick.

Owns: how far the sweep has come, and the census of what it passes.
Never: sends the bounce itself (settle does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from engine.core.envelope import Delivery, accepted_at
from engine.delivery.census import Census
from engine.delivery.readahead import ReadAhead
from engine.delivery.site_queue import SiteQueue
from engine.delivery.sites import SiteQueues
from engine.policy.model import Policy
from engine.queue.scheduled import expires_at
from engine.store.records import parse_queue, schedule_key

TICK_S = 0.5
SLICE_S = 0.005
# Between two looks for ready deliveries whose senders are to be told that they are late: 10,000 take 1 ms.
LATE_EVERY_S = 10.0
KEYS = 200  # looked at between two looks at the clock


class SweepStore(Protocol):
    """What the sweep needs of the store."""

    def schedule_slice(self, after: bytes, limit: int) -> list[tuple[bytes, int, bytes]]: ...
    def load(self, delivery_key: bytes, queue: bytes = b"", due: int = 0) -> Delivery | None: ...


class Expiry:
    """Ends deliveries past their policy's `expire_after`."""

    def __init__(
        self,
        store: SweepStore,
        sites: SiteQueues,
        readahead: ReadAhead,
        policy_for: Callable[[str, str], Policy],
        expire: Callable[[Delivery, Policy, SiteQueue | None], None],
        unix_clock: Callable[[], float],
        tell_late: Callable[[Delivery, Policy], None] | None = None,
    ) -> None:
        """Args:
        policy_for: (customer, domain): what applies to such mail, resolved or not.
        tell_late: sends the notices that are due of a ready delivery whose sender asked for any.
        """
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._sites = sites
        self._readahead = readahead
        self._policy_for = policy_for
        self._expire = expire
        self._unix = unix_clock
        self._tell_late = tell_late
        self._late_at = 0.0
        self._after = b""
        self.census = Census()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to sweep."""
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def close(self) -> None:
        """Stop sweeping."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        now = self._unix()
        late = [(each, queue) for queue in self._sites for each in queue.queue.take_expired(now)]
        for delivery, site_queue in late:
            self.expire_ready(delivery, site_queue)
        if self._loop.time() >= self._late_at:
            self._late_at = self._loop.time() + LATE_EVERY_S
            self._look_for_late()
        self.sweep(now, self._loop.time() + SLICE_S)

    def _look_for_late(self) -> None:
        """Paths that are held make no attempts, which would tell of delays by themselves."""
        if self._tell_late is None:
            return
        for site_queue in self._sites:
            for delivery in [each for each in site_queue.queue if each.envelope.terms is not None]:
                self._tell_late(delivery, site_queue.policy_of(delivery.envelope.customer))

    def expire_ready(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        """End a delivery that was taken out of its ready queue too late."""
        self._expire(delivery, site_queue.policy_of(delivery.envelope.customer), site_queue)

    def sweep(self, now: float, deadline: float) -> None:
        """Look at the schedule until `deadline` (loop time) or its end; at most one round."""
        queue = b""
        customer = ""
        expires_before = 0.0
        while True:
            rows = self._store.schedule_slice(self._after, KEYS)
            passed = 0
            for row_queue, _, key in rows:
                if row_queue != queue:
                    self.census.count(customer, passed)
                    passed = 0
                    queue = row_queue
                    customer, domain = parse_queue(queue)
                    policy = self._policy_for(customer, domain)
                    expires_before = now - policy.expire_after_s
                passed += 1
                if accepted_at(key) <= expires_before and key not in self._readahead.in_memory:
                    self._end(key, policy, now)
            self.census.count(customer, passed)
            if len(rows) < KEYS:
                self.census.end_round()
                self._after = b""
                return
            self._after = schedule_key(*rows[-1])
            if self._loop.time() >= deadline:
                return

    def _end(self, key: bytes, policy: Policy, now: float) -> None:
        delivery = self._store.load(key)
        if delivery is not None and expires_at(delivery.envelope, policy.expire_after_s) <= now:
            self._expire(delivery, policy, None)
