"""Which shard owns which vmta.

Vmtas that share a source address form a group, which has one owner. Groups are dealt evenly within
each pool, and stay where they are: a new vmta moves no other, a shard that is gone gives up only its
own, and a new shard takes over as few as make the pools even again.

Owns: the dealing. Never: keeps it on disk, moves anything (supervisor does both).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

Group = tuple[str, ...]


def group_by_source(sources: Mapping[str, Iterable[str]]) -> list[Group]:
    """Return groups of vmtas that share an address, also by way of others; names in order.

    Args: sources: vmta to its addresses.
    """
    group_of: dict[str, list[str]] = {}
    by_address: dict[str, str] = {}
    for vmta in sorted(sources):
        group_of[vmta] = [vmta]
        for address in sources[vmta]:
            other = group_of[by_address.setdefault(address, vmta)]
            own = group_of[vmta]
            if other is not own:
                other += own
                for member in own:
                    group_of[member] = other
    unique = {id(group): tuple(sorted(group)) for group in group_of.values()}
    return sorted(unique.values())


def counted_addresses(sources: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    """Return the addresses in which each vmta counts: its group's, in order; its name where it has none."""
    counted = {vmta: addresses or [f"vmta:{vmta}"] for vmta, addresses in sources.items()}
    return {
        vmta: addresses
        for group in group_by_source(counted)
        for addresses in [tuple(sorted({each for member in group for each in counted[member]}))]
        for vmta in group
    }


def assign(
    groups: Sequence[Group],
    pools: Mapping[str, Collection[str]],
    shards: int,
    previous: Mapping[str, int],
    previous_shards: int = 0,
) -> dict[str, int]:
    """Return the owner of each vmta.

    Args:
        groups: from `group_by_source`.
        pools: pool to its vmtas.
        shards: how many there are, at least 1.
        previous: owner of each vmta before; owners that no longer exist are ignored.
        previous_shards: how many there were before; 0 where unknown: then no vmta moves to a new shard.
    """
    assert shards >= 1
    deal = _Deal(pools, shards)
    homeless = []
    for group in groups:
        shard = _previous_owner(group, shards, previous)
        if shard is None:
            homeless.append(group)
        else:
            deal.give(group, shard)
    for group in homeless:
        deal.give(group, min(range(shards), key=lambda shard: deal.cost(group, shard)))
    if 0 < previous_shards < shards:
        deal.level(range(previous_shards, shards))
    return {vmta: shard for group, shard in sorted(deal.owner.items()) for vmta in group}


def _previous_owner(group: Group, shards: int, previous: Mapping[str, int]) -> int | None:
    """Return the shard that owned most of a group; None where none did that still exists."""
    owners = [previous[vmta] for vmta in group if previous.get(vmta, shards) < shards]
    return min(set(owners), key=lambda shard: (-owners.count(shard), shard), default=None)


class _Deal:
    """An assignment in the making."""

    def __init__(self, pools: Mapping[str, Collection[str]], shards: int) -> None:
        self.owner: dict[Group, int] = {}
        self._pools_of: dict[str, list[str]] = {}
        for pool, vmtas in pools.items():
            for vmta in vmtas:
                self._pools_of.setdefault(vmta, []).append(pool)
        self._load = {pool: [0] * shards for pool in pools}
        self._total = [0] * shards

    def give(self, group: Group, shard: int) -> None:
        self.owner[group] = shard
        self._count(group, shard, 1)

    def cost(self, group: Group, shard: int) -> tuple[int, int, int]:
        """Return how little a shard wants a group: its load in the group's pools, its load, its number."""
        load = sum(self._load[pool][shard] for vmta in group for pool in self._pools_of.get(vmta, ()))
        return load, self._total[shard], shard

    def level(self, takers: range) -> None:
        """Move groups to `takers` while that makes the pools more even, from the fullest shard first.

        One look at each group is enough: with each move, what another would gain only shrinks.
        """
        givers: dict[int, deque[Group]] = {}
        for group, shard in sorted(self.owner.items()):
            if shard not in takers:
                givers.setdefault(shard, deque()).append(group)
        while givers:
            giver = max(givers, key=self._total.__getitem__)
            group = givers[giver].popleft()
            if not givers[giver]:
                del givers[giver]
            self._count(group, giver, -1)
            there = min(takers, key=lambda taker: self.cost(group, taker))
            self.give(group, there if self._gain(group, giver, there) > 0 else giver)

    def _gain(self, group: Group, shard: int, there: int) -> int:
        """Return how much less loaded `there` is, once the group is out of `shard` and in `there`."""
        here_load, here_total, _ = self.cost(group, shard)
        there_load, there_total, _ = self.cost(group, there)
        if here_load != there_load:
            return here_load - there_load
        return here_total - there_total

    def _count(self, group: Group, shard: int, sign: int) -> None:
        self._total[shard] += sign * len(group)
        for vmta in group:
            for pool in self._pools_of.get(vmta, ()):
                self._load[pool][shard] += sign
