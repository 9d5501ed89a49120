"""A path: one vmta towards one destination, where connection and rate limits live.

What a path counts is its own (`sites`); what the peer counts is shared by all vmtas with the same
source address (`limits`), each asking with its own thresholds.

Owns: how many sessions are open, opening and idle for each site; holds; back-off after failures to connect.
Never: opens a session, reads a clock, logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import ceil, inf
from typing import NamedTuple, Protocol

from engine.core.units import Rate
from engine.queue.adaptive import Adaptive
from engine.queue.ceilings import Ceiling, least
from engine.queue.limits import RateLimit, RateState
from engine.queue.slots import ConnectionSlots

# Back-off of a site whose every address failed: doubles from the first to the last value. Operators'
# practice (Postfix: minimal back-off 300 s for a whole destination; ours is per path and site, and
# costs one connection per step, so it may start lower). 2026-11.
BACKOFF_FIRST_S = 1.0
BACKOFF_LAST_S = 300.0
BURST_S = 2.0


class PathPolicy(Protocol):
    """What a path reads of its policy (engine.policy.model.Policy has all of it)."""

    @property
    def max_connections(self) -> int: ...
    @property
    def max_messages_per_connection(self) -> int: ...
    @property
    def max_message_rate(self) -> Rate | None: ...
    @property
    def max_connection_rate(self) -> Rate | None: ...
    @property
    def message_interval_s(self) -> float: ...
    @property
    def burst(self) -> int: ...
    @property
    def adaptive(self) -> bool: ...


class Hold(NamedTuple):
    """Why a path, a vmta or one message is stopped, and until when (monotonic; inf: until resumed)."""

    reason: str
    until: float


class Cap:
    """A bound on connections over many paths: per vmta, per shard, total. 0 is no bound."""

    __slots__ = ("in_use", "is_of_vmta", "limit", "name")

    def __init__(self, name: str, limit: int, *, is_of_vmta: bool = False) -> None:
        """`is_of_vmta`: other vmtas have another."""
        self.name = name
        self.limit = limit
        self.is_of_vmta = is_of_vmta
        self.in_use = 0

    @property
    def room(self) -> float:
        """How many more connections it allows."""
        return self.limit - self.in_use if self.limit else inf


class LeasedCap(Cap):
    """A bound that spans shards: this shard may use what it has borrowed of it."""

    __slots__ = ("borrowed",)

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, limit)
        self.borrowed = 0

    @property
    def room(self) -> float:
        return self.borrowed - self.in_use if self.limit else inf


class PathLimits:
    """What a peer counts of one source address towards one destination, and what was learned of the peer."""

    __slots__ = (
        "_interval",
        "_since",
        "ceiling",
        "connects",
        "learned",
        "longest_window_s",
        "messages",
        "paces_per_s",
        "paths",
        "slots",
    )

    def __init__(self, now: float, quiet_until: float = 0.0) -> None:
        self.paths: list[Path] = []  # that share it
        self.learned: Adaptive | None = None
        self.ceiling: Ceiling | None = None  # of what was learned
        self.slots = ConnectionSlots(quiet_until)
        self.messages = RateLimit(now)
        self._since = now
        self._interval: RateLimit | None = None
        self.connects = RateLimit(now)
        self.longest_window_s = 0.0
        self.paces_per_s = (0.0, 0.0, 0.0)

    @property
    def interval(self) -> RateLimit:
        """Of `message_interval`; made when asked for, since few policies have one."""
        if self._interval is None:
            self._interval = RateLimit(self._since)
        return self._interval

    def note_rates(self, rates: tuple[Rate | None, Rate | None, Rate | None]) -> None:
        """Learn what is asked of the three rates (messages, interval, connects), to be exported rightly."""
        self.longest_window_s = max(self.longest_window_s, *[rate.window_s for rate in rates if rate], 0.0)
        paces = [rate.count / rate.window_s if rate else 0.0 for rate in rates]
        known = self.paces_per_s
        self.paces_per_s = (max(known[0], paces[0]), max(known[1], paces[1]), max(known[2], paces[2]))

    def export(self, now: float, unix_now: float, over_s: float, ahead_s: float) -> list[RateState]:
        """Return what was spent of each rate; what `ahead_s` seconds may still spend counts as spent."""
        return [
            limit.export(now, unix_now, over_s=over_s, ahead=ceil(pace * ahead_s))
            for limit, pace in zip(self.rates, self.paces_per_s, strict=True)
        ]

    def restore(self, states: Iterable[RateState], now: float, unix_now: float) -> None:
        """Take over what `export` gave, in the same order."""
        for limit, state in zip(self.rates, states, strict=True):
            limit.restore(state, now, unix_now)

    def is_unspent(self, now: float) -> bool:
        """Return whether a fresh set of limits would allow no more than this one."""
        if self.learned is not None and not self.learned.is_forgotten(now):
            return False
        made = [limit for limit in (self.messages, self._interval, self.connects) if limit is not None]
        return not self.slots.in_use(now) and all(limit.is_unspent(now) for limit in made)

    def bound(self, ceiling: Ceiling | None) -> None:
        """Bound all paths that share this, where their policy lets them adapt; None: by nothing."""
        self.ceiling = ceiling
        for path in self.paths:
            path.set_policy(path.policy)

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return sum(demand.sessions for path in self.paths for demand in path.sites.values())

    @property
    def rates(self) -> tuple[RateLimit, RateLimit, RateLimit]:
        """All that is counted by time, in the order in which it is exported."""
        return self.messages, self.interval, self.connects


class SiteDemand:
    """One site of a path: what waits for it and which sessions serve it."""

    __slots__ = (
        "attempt_s",
        "failures",
        "idle",
        "is_starved",
        "last_failure",
        "opening",
        "queues",
        "retry_at",
        "served_at",
        "sessions",
        "site",
        "waiting",
    )

    def __init__(self, site: str, waiting: Callable[[], int]) -> None:
        self.site = site
        self.waiting = waiting
        self.sessions = 0
        self.opening = 0
        self.idle = 0
        self.failures = 0
        self.retry_at = 0.0
        self.last_failure = ""
        self.queues = 0  # ready queues that the path carries from
        self.is_starved = False  # other sites of the path have had all its slots: it comes next
        self.served_at = 0.0  # when a session last opened
        self.attempt_s = -1.0  # how long a transaction takes of late, to the last reply; below 0: not known

    def fail(self, now: float, detail: str) -> bool:
        """Every address of the site failed: back off, twice as long as the last time.

        Of tries that were made at once only the first to fail counts, the site was not asked since: False.
        """
        self.last_failure = detail
        if now < self.retry_at:
            return False
        self.failures += 1
        self.retry_at = now + min(BACKOFF_FIRST_S * 2.0 ** min(self.failures - 1, 16), BACKOFF_LAST_S)
        return True

    def succeed(self) -> None:
        """A session opened: forget the failures."""
        self.failures = 0
        self.retry_at = 0.0


class Path:
    """One vmta towards one destination (and one customer, where a customer's section applies)."""

    __slots__ = (
        "_burst",
        "_ceilings",
        "_connect_burst",
        "_connect_rate",
        "_interval",
        "_rate",
        "caps",
        "connections_why",
        "customer",
        "destination",
        "heeds_successes",
        "held_customers",
        "holds",
        "limits",
        "max_connections",
        "policy",
        "rate_why",
        "sites",
        "vmta",
    )

    policy: PathPolicy
    max_connections: int  # in force: the policy's, or the least ceiling
    connections_why: str  # who says so; "" where the policy does
    rate_why: str

    def __init__(
        self,
        vmta: str,
        destination: str,
        customer: str,
        policy: PathPolicy,
        limits: PathLimits,
        caps: tuple[Cap, ...],
    ) -> None:
        self.vmta = vmta
        self.destination = destination
        self.customer = customer
        self.limits = limits
        self.caps = caps
        self._ceilings: dict[str, Ceiling] | None = None  # few paths have any
        self.set_policy(policy)
        limits.paths.append(self)
        self.sites: dict[str, SiteDemand] = {}
        self.holds: dict[str, Hold] = {}
        self.held_customers: dict[str, Hold] | None = None  # whose mail alone is stopped; mostly nobody's
        self.heeds_successes = False  # something that slows it ends by them

    def leave(self) -> None:
        """Share the limits no more: the path is forgotten."""
        self.limits.paths.remove(self)

    @property
    def sessions(self) -> int:
        return sum(demand.sessions + demand.opening for demand in self.sites.values())

    def is_idle(self, now: float) -> bool:
        """Return whether nothing waits, nothing is open and nothing is remembered against a site."""
        return not (self.holds or self.held_customers) and all(
            not demand.queues and not demand.sessions and not demand.opening and demand.retry_at <= now
            for demand in self.sites.values()
        )

    def hold(self, key: str, reason: str, until: float) -> None:
        """Stop the path for a named reason; the same key replaces what it said before."""
        self.holds[key] = Hold(reason, until)

    def release(self, key: str) -> None:
        """Take a hold back; unknown keys are fine."""
        self.holds.pop(key, None)

    def hold_in_force(self, now: float) -> Hold | None:
        """Return the hold that lasts longest, forgetting those that have ended."""
        if not self.holds:
            return None
        for key in [key for key, hold in self.holds.items() if hold.until <= now]:
            del self.holds[key]
        return max(self.holds.values(), key=lambda hold: hold.until, default=None)

    def hold_customer(self, customer: str, reason: str, until: float) -> None:
        """Stop one customer's mail on this path."""
        self.held_customers = {**(self.held_customers or {}), customer: Hold(reason, until)}

    def release_customer(self, customer: str) -> None:
        """Take that back; unknown customers are fine."""
        held = {name: hold for name, hold in (self.held_customers or {}).items() if name != customer}
        self.held_customers = held or None

    def customers_held(self, now: float) -> Mapping[str, Hold]:
        """Return whose mail alone is stopped, forgetting what has ended."""
        if self.held_customers and any(hold.until <= now for hold in self.held_customers.values()):
            held = {name: hold for name, hold in self.held_customers.items() if hold.until > now}
            self.held_customers = held or None
        return self.held_customers or {}

    def is_stopped(self, customer: str, now: float) -> bool:
        """Return whether nothing of that customer's may be written on this path now. HOT: once a message."""
        return (bool(self.holds) and self.hold_in_force(now) is not None) or (
            self.held_customers is not None and customer in self.customers_held(now)
        )

    def set_policy(self, policy: PathPolicy) -> None:
        """Use these limits from now on; what was spent stays spent."""
        self.policy = policy
        bounds = least(policy, self.ceilings)
        self.max_connections, self.connections_why = bounds.connections, bounds.connections_why
        self._rate, self.rate_why, self._burst = bounds.rate, bounds.rate_why, bounds.burst
        self._interval = Rate(1, policy.message_interval_s) if policy.message_interval_s > 0.0 else None
        self._connect_rate = policy.max_connection_rate
        self._connect_burst = 1
        if self._connect_rate is not None:
            self._connect_burst = connect_burst(self.max_connections, self._connect_rate)
        self.limits.note_rates((self._rate, self._interval, self._connect_rate))

    @property
    def max_message_rate(self) -> Rate | None:
        """The rate in force: the policy's, or the least ceiling."""
        return self._rate

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """What bounds the path beside its policy."""
        own = tuple(self._ceilings.values()) if self._ceilings else ()
        learned = self.limits.ceiling
        return (*own, learned) if learned is not None and self.policy.adaptive else own

    def set_ceiling(self, ceiling: Ceiling) -> None:
        """Bound the path; the same key replaces what it said before.

        Sessions above a lower bound are not ended by this (delivery.opening.trim does).
        """
        if self._ceilings is None:
            self._ceilings = {}
        self._ceilings[ceiling.key] = ceiling
        self.set_policy(self.policy)

    def clear_ceiling(self, key: str) -> None:
        """Take a bound back; unknown keys are fine."""
        if self._ceilings and self._ceilings.pop(key, None) is not None:
            self.set_policy(self.policy)

    def message_ready_at(self, now: float) -> float:
        """Return when the rates let one more transaction start; <= now means at once. HOT."""
        limits = self.limits
        at = limits.messages.ready_at(self._rate, self._burst, now)
        if self._interval is not None:
            at = max(at, limits.interval.ready_at(self._interval, 1, now))
        return at

    def reserve_message(self, now: float) -> float:
        """Count a transaction that starts; returns what `redeem_message` or `cancel_message` needs."""
        if self._rate is not None:
            self.limits.messages.reserve(now)
        if self._interval is not None:
            self.limits.interval.reserve(now)
        return now

    def redeem_message(self, now: float, started: float) -> float:
        """Return when the end-of-message may be written (>= now); it counts from then."""
        messages, rate = self.limits.messages, self._rate
        if self._interval is None:
            return now if rate is None else messages.redeem(rate, self._burst, now, started)
        interval = self.limits.interval
        interval_at = at = interval.redeem(self._interval, 1, now, started)
        if rate is not None:
            messages.cancel(started)  # its lead was learned by the other
            at = messages.spend(rate, self._burst, interval_at)
            if at > interval_at:
                interval.postpone(interval_at, at)
        return at

    def confirm_message(self, permit_at: float, now: float) -> float:
        """The time of a permit has come: return `now` (write, it is named by that) or when to ask again."""
        messages = self.limits.messages
        if self._interval is None:
            return now if self._rate is None else messages.confirm(self._rate, permit_at, now)
        interval = self.limits.interval
        due = interval_due = interval.confirm(self._interval, permit_at, now)
        if self._rate is not None:
            messages_due = messages.confirm(self._rate, permit_at, now)
            due = max(due, messages_due)
            if messages_due < due:
                messages.postpone(messages_due, due)
        if interval_due < due:
            interval.postpone(interval_due, due)
        return due

    def cancel_message(self, started: float) -> None:
        """The transaction never came to its end: its reservation goes back."""
        if self._rate is not None:
            self.limits.messages.cancel(started)
        if self._interval is not None:
            self.limits.interval.cancel(started)

    def observe_reply(self, permit_at: float, replied_at: float) -> None:
        """The reply to the message of that permit came (or its session was lost)."""
        if self._rate is not None:
            self.limits.messages.observe(permit_at, replied_at)
        if self._interval is not None:
            self.limits.interval.observe(permit_at, replied_at)

    def connect_ready_at(self, now: float) -> float:
        """Return when the connection rate lets one more connection open."""
        return self.limits.connects.ready_at(self._connect_rate, self._connect_burst, now)

    def try_connect(self, now: float) -> bool:
        """Take a slot and a place in the connection rate; False: not now, nothing was taken."""
        limits = self.limits
        if self.connect_ready_at(now) > now or not limits.slots.acquire(self.max_connections, now):
            return False
        limits.connects.spend(self._connect_rate, self._connect_burst, now)
        return True

    def __repr__(self) -> str:
        name = f"{self.vmta}->{self.destination}" + (f" for {self.customer}" if self.customer else "")
        return f"<Path {name} {self.sessions}/{self.max_connections} sessions>"


def connect_burst(max_connections: int, rate: Rate) -> int:
    """Return how many connections may open at once: a whole set, but at most what the rate gives in 2 s.

    After a start nobody knows what was opened just before, so the first connection waits as long as such a
    burst takes at the rate's pace: no longer than a restarted shard is quiet anyhow.
    """
    return max(1, min(max_connections, int(BURST_S * rate.count / rate.window_s / 1.03)))
