"""What is ready for one (pool, site), and the paths that may carry it.

Late binding lives here: a delivery joins the ready queue of its pool and site, and gets a vmta only
when one of that vmta's sessions takes it. Weights are kept by stride: a path's `passes` grows by
1/weight with each delivery it takes, and the path that is furthest behind is asked first.

Paths are made as they are needed: a site that gets a few messages, or takes none, has one or two of them and
not one for each vmta of the pool (`spare`). 2,000 sites of 20 vmtas would else be 40,000 paths.

Owns: the ready queue, the paths' shares, and which stored queues wait behind it on disk (`behind`).
Never: opens sessions, touches the store.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from engine.core.envelope import Delivery
from engine.net.site import Site
from engine.policy.model import Destination, Policy
from engine.queue.path import Path
from engine.queue.ready import ReadyQueue
from engine.queue.scheduled import expires_at

# Sessions double this often while a backlog lasts: 100 of them after 0.14 s. A peer that answers at once
# empties the queue before that: a few dozen messages don't cost a connection (400 us) each.
GROW_EVERY_S = 0.02
FEW_EACH = 4
PATIENCE_S = 0.25  # then the peer is slow, and more sessions are the only way
BEHIND_SESSIONS = (
    4  # a backlog on disk counts as so many times what all paths may open: all of them are wanted
)
PASS_SLACK = 8.0  # deliveries that a path may be ahead of an idle one, so that bursts need no hand-overs
MAX_DEBT = 32.0  # deliveries that a path which could not go for long makes up for, ahead of others
# Deliveries that all paths are ahead of a spare vmta before it gets a path, for the sake of its weight alone:
# a connection costs as much as two deliveries, so a short backlog is better off with the one it has.
SPARE_SLACK = 16.0
KEEP_WHEN_STOPPED = 1  # of each customer, where no session opens: enough to try with


def _no_path(_vmta: str) -> None:
    return None


class SiteQueue:
    """Ready queue of one (pool, destination, site, customer section)."""

    __slots__ = (
        "behind",
        "customer",
        "destination",
        "grow_at",
        "grow_left",
        "is_gone",
        "is_kick_due",
        "is_miss_due",
        "is_other_due",
        "is_refill_due",
        "is_stopped",
        "is_untried",
        "last_pressed_at",
        "least",
        "opening",
        "passes",
        "path_of",
        "paths",
        "policies",
        "pool",
        "pressed_at",
        "queue",
        "resolve_policy",
        "site",
        "spare",
        "top",
        "weight",
        "weights",
    )

    def __init__(
        self,
        pool: str,
        destination: Destination,
        site: Site,
        customer: str,
        resolve_policy: Callable[[str], Policy],
        share_of: Callable[[str], int],
    ) -> None:
        """Args:
        resolve_policy: the policy of a customer's messages to this destination.
        share_of: a customer's share of the ready queue against others.
        """
        self.pool = pool
        self.destination = destination
        self.site = site
        self.customer = customer
        self.queue = ReadyQueue(share_of)
        self.spare: deque[tuple[str, int]] = deque()  # vmtas that have no path yet, and their weights
        self.path_of: Callable[[str], Path | None] = _no_path  # of a spare vmta; None: it left this shard
        self.paths: list[Path] = []
        self.weights: dict[Path, float] = {}
        self.passes: dict[Path, float] = {}
        self.least = 0.0  # of the passes when last looked at; they only grow
        self.weight = 0.0  # of all paths
        self.opening = 0
        self.grow_at = 0.0
        self.grow_left = 1
        self.last_pressed_at = 0.0
        self.pressed_at = 0.0  # since when it has wanted more sessions for a few deliveries
        self.behind: dict[str, dict[bytes, bytes]] = {}  # customer to its queues to where reading goes on
        self.policies: dict[str, Policy] = {}
        self.resolve_policy = resolve_policy
        self.is_gone = False  # out of the table: what is put here is never found again
        self.is_kick_due = False
        self.is_miss_due = False
        self.is_other_due = False
        self.is_refill_due = False
        self.is_stopped = False  # the last try of every path failed: most of it waits on disk
        self.is_untried = True  # no session has opened for it: nobody knows whether its peer accepts
        self.top = 0.0  # the highest of the passes

    def room(self, customer: str) -> int:
        """Return how many more deliveries of that customer `push` would take."""
        return self._limit_of(self.policy_of(customer)) - self.queue.waiting(customer)

    def is_low(self, customer: str) -> bool:
        """Return whether it is time to read more for that customer, many at a time; HOT."""
        policy = self.policies.get(customer) or self.policy_of(customer)
        return self.queue.waiting(customer) * 2 <= self._limit_of(policy)

    def _limit_of(self, policy: Policy) -> int:
        return min(policy.ready_limit, KEEP_WHEN_STOPPED) if self.is_stopped else policy.ready_limit

    def wait_behind(self, customer: str, queue: bytes) -> bool:
        """Read that stored queue from its beginning once there is room.

        Returns whether it is the customer's first: where others wait already there is no room, or reading
        goes on anyhow.
        """
        queues = self.behind.get(customer)
        if queues is not None:
            queues[queue] = b""
            return False
        self.behind[customer] = {queue: b""}
        return True

    def rewind(self, customer: str, queue: bytes) -> None:
        """Something before where reading goes on is on disk again."""
        queues = self.behind.get(customer)
        if queues is not None and queue in queues:
            queues[queue] = b""

    def policy_of(self, customer: str) -> Policy:
        """Return the policy for that customer's messages; HOT on a hit."""
        policy = self.policies.get(customer)
        if policy is None:
            policy = self.policies[customer] = self.resolve_policy(customer)
        return policy

    def add_path(self, path: Path, weight: float) -> None:
        """Let a path carry from here; what it is behind the others it makes up for, within bounds."""
        if path not in self.weights:
            self.paths.append(path)
            self.passes[path] = self._least_passes(weight)
            self.least = min(self.least, self.passes[path])
        self.weights[path] = weight
        self.weight = sum(self.weights.values())

    def drop_path(self, path: Path) -> None:
        """Take a path away (its vmta moved, left the pool or the configuration)."""
        if path in self.weights:
            self.paths.remove(path)
            del self.weights[path], self.passes[path]
            self.weight = sum(self.weights.values())

    def count_taken(self, path: Path) -> None:
        """A path took one delivery; what it missed for long is not made up for in full. HOT."""
        weight = self.weights[path]
        passes = self.passes[path] + 1.0 / weight
        if passes > self.top:
            self.top = passes
        elif self.top - passes > MAX_DEBT / weight:
            passes = self.top - MAX_DEBT / weight
        self.passes[path] = passes

    def _least_passes(self, weight: float) -> float:
        return max(0.0, self.top - MAX_DEBT / weight)

    def is_spare_due(self) -> bool:
        """Return whether all paths are so far ahead of the next spare vmta that it should have one too."""
        if not self.spare or not self.paths:
            return False
        weight = self.spare[0][1]
        if self.top - self._least_passes(weight) < SPARE_SLACK / weight:
            return False  # nobody is that far ahead
        return min(self.passes.values()) - self._least_passes(weight) >= SPARE_SLACK / weight

    def is_level(self, path: Path) -> bool:
        """Return whether `path` is ahead of no other. HOT."""
        lead = PASS_SLACK / self.weights[path]
        if self.passes[path] - self.least <= lead:
            return True
        self.least = min(self.passes.values())
        return self.passes[path] - self.least <= lead

    def is_ahead(self, path: Path, other: Path) -> bool:
        """Return whether `path` has carried more than its share compared with `other`."""
        return self.passes[path] - self.passes[other] > PASS_SLACK / self.weights[path]

    def in_order(self) -> list[Path]:
        """Return the paths, the one furthest behind its share first."""
        if len(self.paths) < 2:
            return self.paths
        return sorted(self.paths, key=self.passes.__getitem__)

    def growth(self, now: float) -> int:
        """Return how many sessions may be opened now: as many again as there are, each GROW_EVERY_S.

        None at first where those that serve it, or open, have just a few deliveries each before them: under
        load it takes a while to open one, and by then the others have done it.
        """
        if now < self.grow_at:
            return self.grow_left
        demands = [path.sites[self.site.name] for path in self.paths]
        serving = sum(demand.sessions + demand.opening for demand in demands)
        if serving and len(self.queue) <= serving * FEW_EACH:
            if now - self.last_pressed_at > 4 * GROW_EVERY_S:  # it has been empty meanwhile
                self.pressed_at = now
            self.last_pressed_at = now
            if now - self.pressed_at < PATIENCE_S:
                return 0
        self.grow_at = now + GROW_EVERY_S
        self.grow_left = max(1, serving)
        return self.grow_left

    def share(self, path: Path) -> int:
        """Return how much of what waits falls to a path by weight; at least 1 where anything does."""
        waiting = len(self.queue) - self.opening
        if path.held_customers:
            waiting -= sum(map(self.queue.waiting, path.held_customers))
        if waiting <= 0 or path not in self.weights:
            return 0
        if self.behind:  # what is ready is only what the window has room for
            waiting += BEHIND_SESSIONS * sum(each.max_connections for each in self.paths)
        if len(self.paths) == 1:
            return waiting
        return math.ceil(waiting * self.weights[path] / self.weight)

    def push(self, delivery: Delivery) -> bool:
        """Queue a delivery; False when its customer has `ready_limit` here already. HOT."""
        customer = delivery.envelope.customer
        policy = self.policies.get(customer) or self.policy_of(customer)
        delivery.expires_at = expires_at(delivery.envelope, policy.expire_after_s)
        return self.queue.push(delivery, self._limit_of(policy))

    def __repr__(self) -> str:
        waiting = f"{len(self.queue)} ready, {len(self.behind)} queues behind"
        return f"<SiteQueue {self.pool}@{self.site.name} {waiting}>"
