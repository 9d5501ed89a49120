"""How a backlog for one destination is shared between shards whose vmtas carry it.

Placement deals messages by weight within a slack, and for a pool, not for each of its destinations: of 60
messages at once for a destination that takes 5 a second of each vmta, 55 may wait on one shard while the
other's vmtas have nothing to do. What is here says how much of such a backlog moves.

Owns: nothing.
Never: moves anything; shards do (shard.balance).
"""

from __future__ import annotations

from math import ceil

from engine.queue.decide import stopped
from engine.queue.path import Path

# What its own paths carry within so long a shard keeps; it is not worth its way to another.
KEEP_S = 2.0
# A shard asks for so much work ahead: a few rounds (shard.balance.EVERY_S), so that none is missed.
AHEAD_S = 3.0


def allowance_per_s(path: Path, site: str, now: float) -> float:
    """Return how many messages a path may carry to a site each second; 0 while it is held or backs off."""
    if stopped(path, site, now) is not None:
        return 0.0
    policy = path.policy
    demand = path.sites.get(site)
    bounds = [path.max_connections / max(demand.attempt_s, 0.001) if demand is not None else 0.0]
    if path.max_message_rate is not None:
        bounds.append(path.max_message_rate.per_s)
    if policy.message_interval_s > 0.0:
        bounds.append(1.0 / policy.message_interval_s)
    return min(bounds)


def surplus(waiting: int, per_s: float) -> int:
    """Return how much of what waits a shard may give away; nothing where it may carry nothing itself.

    What waits under a hold is handed over after a while, all of it (shard.upkeep).
    """
    return max(0, waiting - ceil(per_s * KEEP_S)) if per_s > 0.0 else 0


def wanted(mine: int, per_s: float, theirs: int, their_per_s: float) -> int:
    """Return how much of another shard's backlog this one may have: its fair part, and no more than it needs.

    Args:
        mine, theirs: deliveries that wait.
        per_s, their_per_s: what the paths of each may carry.
    """
    if per_s <= 0.0:
        return 0
    fair = int((mine + theirs) * per_s / (per_s + their_per_s))
    return max(0, min(fair, ceil(per_s * AHEAD_S)) - mine)
