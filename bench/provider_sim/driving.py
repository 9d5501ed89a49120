"""One path over a day of simulated time.

The path, its rates and slots, `decide` and what bounds it are the engine's; the loop, the peer and the
sessions are this file's: a session carries one message after another, each takes the peer's latency, and what
is deferred comes again by the retry curve, before new mail, of which there is always more.

Owns: the simulated clock. Never: more than MAX_EVENTS.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import ceil, inf
from typing import Any, NamedTuple

from bench.provider_sim.providers import DAY_S, GREYLISTED, Provider
from bench.provider_sim.strategies import Strategy
from engine.policy.model import Policy
from engine.queue.decide import decide
from engine.queue.path import Path, PathLimits, SiteDemand
from engine.queue.scheduled import retry_at

BACKLOG = 10_000
CONNECT_S = 0.1
KICK_S = 0.02
JITTER = 0.5
MINUTE_S = 60.0
START = 1000.0  # of the clock: the engine's limits were made before
MAX_EVENTS = 20_000_000


class Day(NamedTuple):
    """What came of it."""

    delivered: int
    deferred: int  # greylisting left out
    greylisted: int
    refused_connections: int
    connections: int
    per_minute: list[int]


class Drive:
    """The loop."""

    def __init__(self, provider: Provider, strategy: Strategy, policy: Policy, latency_s: float) -> None:
        self._provider = provider
        self._strategy = strategy
        self._policy = policy
        self._latency_s = latency_s
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = 0
        self._limits = PathLimits(0.0)
        self.path = Path("v1", "provider", "", policy, self._limits, ())
        self._demand = SiteDemand("mx.provider", lambda: BACKLOG)
        self.path.sites["mx.provider"] = self._demand
        self._alarm_at = inf
        self._next_message = 0
        self._retries: list[tuple[float, int, int]] = []  # (due, message, attempts)
        self._deferred = self._greylisted = self._not_let_in = self._opened = 0
        self._minutes: Counter[int] = Counter()

    def run(self, duration_s: float = DAY_S) -> Day:
        """Run the day."""
        self._strategy.begin(self.path, START)
        self._at(START, self._kick)
        self._at(START + MINUTE_S, self._tick)
        end = START + duration_s
        for _ in range(MAX_EVENTS):
            now, _, call = heapq.heappop(self._events)
            if now >= end:
                break
            call(now)
        minutes = [self._minutes[number] for number in range(ceil(duration_s / MINUTE_S))]
        connections = self._opened + self._not_let_in
        return Day(sum(minutes), self._deferred, self._greylisted, self._not_let_in, connections, minutes)

    def _at(self, at: float, call: Callable[[float], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (at, self._serial, call))

    def _tick(self, now: float) -> None:
        self._strategy.tick(self.path, now)
        self._kick(now)
        self._at(now + MINUTE_S, self._tick)

    # -- opening ------------------------------------------------------------------------------------

    def _ask_at(self, at: float) -> None:
        if at < self._alarm_at:
            self._alarm_at = at
            self._at(at, self._alarm)

    def _alarm(self, now: float) -> None:
        if now >= self._alarm_at:
            self._alarm_at = inf
            self._kick(now)

    def _kick(self, now: float) -> None:
        """As the dispatcher: wake what is idle, then open what is decided."""
        demand, path = self._demand, self.path
        while demand.idle and path.message_ready_at(now) <= now:
            demand.idle -= 1
            self._next(now, 0)
        if demand.idle:
            self._ask_at(path.message_ready_at(now))
            return
        decision = decide(path, now)
        for _ in range(decision.open):
            if not path.try_connect(now):
                self._ask_at(now + KICK_S)
                return
            demand.opening += 1
            self._at(now + CONNECT_S, self._connected)
        if not decision.open and decision.ask_at < inf:
            self._ask_at(max(decision.ask_at, now + 0.001))

    def _connected(self, now: float) -> None:
        demand, path = self._demand, self.path
        demand.opening -= 1
        reply = self._provider.let_in(now - START, demand.sessions)
        if reply is not None:
            self._not_let_in += 1
            path.limits.slots.release(now)
            self._strategy.not_let_in(path, reply, now)
            demand.fail(now, str(reply))
            self._ask_at(max(demand.retry_at, now + KICK_S))
            return
        demand.sessions += 1
        self._opened += 1
        demand.succeed()
        self._strategy.let_in(path, now)
        self._next(now, 0)

    # -- transactions -------------------------------------------------------------------------------

    def _next(self, now: float, carried: int) -> None:
        """A session looks for its next message."""
        demand, path = self._demand, self.path
        too_many = 0 < path.max_connections < path.limits.slots.in_use(now)
        if carried >= self._policy.max_messages_per_connection or too_many:
            demand.sessions -= 1
            path.limits.slots.release(now)
            self._ask_at(now + KICK_S)
            return
        ready_at = path.message_ready_at(now)
        if ready_at > now:
            demand.idle += 1
            self._ask_at(ready_at)
            return
        started = path.reserve_message(now)
        message, attempts = self._pop(now)
        permit_at = path.redeem_message(now, started)
        self._at(permit_at, partial(self._write, permit_at, carried, message, attempts))

    def _pop(self, now: float) -> tuple[int, int]:
        if self._retries and self._retries[0][0] <= now:
            _, message, attempts = heapq.heappop(self._retries)
            return message, attempts
        self._next_message += 1
        return self._next_message, 0

    def _write(self, permit_at: float, carried: int, message: int, attempts: int, now: float) -> None:
        due = self.path.confirm_message(permit_at, now)
        if due > now:
            self._at(due, partial(self._write, due, carried, message, attempts))
            return
        reply = self._provider.take(now - START, message)
        self._at(now + self._latency_s, partial(self._replied, now, carried, message, attempts, reply))

    def _replied(
        self, written_at: float, carried: int, message: int, attempts: int, reply: Any, now: float
    ) -> None:
        path = self.path
        path.observe_reply(written_at, now)
        if reply.code < 300:
            self._minutes[int((written_at - START) / MINUTE_S)] += 1
            self._strategy.taken(path, now)
        else:
            if reply is GREYLISTED:
                self._greylisted += 1
            else:
                self._deferred += 1
            due = retry_at(now, attempts + 1, JITTER, self._policy.retry_s)
            heapq.heappush(self._retries, (due, message, attempts + 1))
            self._strategy.refused(path, reply, now)
        self._next(now, carried + 1)
