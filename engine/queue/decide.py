"""Decide how many sessions a path opens now, and for which site; or why none, and when to ask again.

Pure: everything it looks at is in the path, the clock is an argument, nothing is changed but what
has run out (ended holds). The reasons are what operators read, verbatim.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from engine.queue.path import BURST_S, Hold, Path, SiteDemand

# The first sessions of a path open at once; later ones follow the backlog along 1 - e^(-q/limit):
# a few messages don't open a connection each, a backlog of twice the limit uses 86 % of it and a
# long one all of it.
_NEVER = math.inf
HELD = "held: "


class Decision(NamedTuple):
    """`open` sessions for `site`; else `reason` says why not, `ask_at` when to ask (inf: on an event).

    `is_spent`: there is more to do than this path may; another vmta might.
    """

    open: int
    site: str
    reason: str
    ask_at: float
    is_spent: bool = False


def _no(reason: str, ask_at: float = _NEVER) -> Decision:
    return Decision(0, "", reason, ask_at)


def _spent(reason: str, ask_at: float = _NEVER) -> Decision:
    return Decision(0, "", reason, ask_at, is_spent=True)


_IDLE = _no("an idle session will take it")


def _until(at: float, now: float) -> str:
    return f"for {max(0.0, at - now):.1f} s"


def wanted_sessions(waiting: int, limit: int) -> int:
    """Return how many sessions a backlog deserves: 1 for 1, all of `limit` for a long one."""
    if waiting <= 0:
        return 0
    return min(waiting, limit, math.ceil(limit * (1.0 - math.exp(-waiting / limit)) + 0.02 * limit))


def decide(path: Path, now: float) -> Decision:
    """Say how many sessions to open for which site of the path, or why not.

    Asked in this order, so that the reason shown is the one an operator must act on first: hold,
    nothing to do, back-off, rates, connection limits, caps, connection rate.
    """
    hold = path.hold_in_force(now)
    if hold is not None:
        return held(hold)
    demand, refusal = _neediest(path, now)
    if demand is None and refusal is not _IDLE:
        return _held_for_customers(path, now) or refusal
    ready_at = path.message_ready_at(now)
    if ready_at > now:
        return rate_spent(ready_at, now, path.rate_why)
    return refusal if demand is None else _connections(path, demand, now)


def _held_for_customers(path: Path, now: float) -> Decision | None:
    """Return what is said of a path that has nothing for those whose mail it may carry."""
    held_customers = path.customers_held(now)
    if not held_customers:
        return None
    customer, hold = min(held_customers.items(), key=lambda each: each[1].until)
    return _spent(f"{HELD}customer {customer}: {hold.reason}", hold.until)


def held(hold: Hold) -> Decision:
    """Return what is said of a path that is held."""
    return _spent(f"{HELD}{hold.reason}", hold.until)


def stopped(path: Path, site: str, now: float) -> Decision | None:
    """Return what is said of a path that is held, or backs off from that site; None: it is not stopped."""
    hold = path.hold_in_force(now)
    if hold is not None:
        return held(hold)
    demand = path.sites.get(site)
    return _backing_off(demand, now) if demand is not None and demand.retry_at > now else None


def spent(path: Path, site: str, now: float) -> Decision | None:
    """Return why a path may not carry one more message to that site, however much waits; None: it may."""
    decision = stopped(path, site, now)
    if decision is not None:
        return decision
    ready_at = path.message_ready_at(now)
    if ready_at > now:
        return rate_spent(ready_at, now, path.rate_why)
    return _connection_limits(path, now)[1]


def rate_spent(ready_at: float, now: float, why: str = "") -> Decision:
    """Return what is said of a path whose next message must wait until `ready_at`; why: of which ceiling."""
    return _spent(f"message rate{_of(why)} spent {_until(ready_at, now)}", ready_at)


def _of(why: str) -> str:
    return f" of {why}" if why else ""


def _neediest(path: Path, now: float) -> tuple[SiteDemand | None, Decision]:
    """Return the site with the most waiting per session, leaving out idle ones and those in back-off."""
    best: SiteDemand | None = None
    best_need = 0.0
    refusal = _no("nothing waits")
    for demand in path.sites.values():
        waiting = demand.waiting()
        if waiting <= 0:
            continue
        if demand.idle > 0:
            refusal = refusal if refusal.ask_at < _NEVER else _IDLE
            continue
        if demand.retry_at > now:
            if demand.retry_at < refusal.ask_at:
                refusal = _backing_off(demand, now)
            continue
        need = math.inf if demand.is_starved else waiting / (1 + demand.sessions + demand.opening)
        if need > best_need:
            best, best_need = demand, need
    return best, refusal


def _backing_off(demand: SiteDemand, now: float) -> Decision:
    ends = _until(demand.retry_at, now)
    return _spent(f"back-off after {demand.failures} failures {ends}: {demand.last_failure}", demand.retry_at)


def _connection_limits(path: Path, now: float) -> tuple[int, Decision | None]:
    """Return how many more connections the limits allow; where none, why."""
    limit = path.max_connections
    free_at = path.limits.slots.next_free_at(limit, now)
    room = limit - path.limits.slots.in_use(now)
    if room <= 0:
        return 0, _spent(f"max_connections {limit}{_of(path.connections_why)} reached", free_at)
    if free_at > now:
        return 0, _no(f"quiet after a start {_until(free_at, now)}", free_at)
    for cap in path.caps:
        if cap.room <= 0:
            return 0, _no(f"{cap.name} {cap.limit} reached")._replace(is_spent=cap.is_of_vmta)
        room = int(min(room, cap.room))
    return room, None


def _connections(path: Path, demand: SiteDemand, now: float) -> Decision:
    limit = path.max_connections
    serving = demand.sessions + demand.opening
    room, refusal = _connection_limits(path, now)
    if refusal is not None:
        return refusal
    want = wanted_sessions(demand.waiting() + demand.sessions, limit) - serving
    if demand.failures:
        want = 1 - demand.opening  # one probe at a time until the site has answered
    if want <= 0:
        return _no("enough sessions for what waits")
    at = path.connect_ready_at(now)
    if at > now:
        # A fresh path waits for its first connection for as long as a burst takes (queue.path): others of the
        # pool would wait as well, and be no help: 2,000 dead sites had 13 paths each after a restart, not 2.
        is_spent = serving > 0 or at - now > BURST_S
        return _no(f"connection rate spent {_until(at, now)}", at)._replace(is_spent=is_spent)
    return Decision(min(room, want), demand.site, "", now)
