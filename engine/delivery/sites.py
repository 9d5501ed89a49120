"""The ready queues of this shard: one for each (pool, destination, site, customer section).

Owns: the table; which paths carry from which queue, as vmtas and policies come and go.
Never: fills a queue (readahead) or empties it (dispatcher).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from engine.delivery.dispatcher import Dispatcher
from engine.delivery.paths import PathTable
from engine.delivery.site_queue import SiteQueue
from engine.net.site import Site
from engine.policy.model import Destination, Policy
from engine.queue.path import Path
from engine.settings.model import Pool

Key = tuple[str, Destination, str, str]


class SiteQueues:
    """Finds, makes and forgets ready queues."""

    def __init__(
        self,
        paths: PathTable,
        dispatcher: Dispatcher,
        pools: Mapping[str, Pool],
        share_of: Callable[[str], int],
    ) -> None:
        """`share_of(customer)`: its share of a ready queue against other customers."""
        self._paths = paths
        self._dispatcher = dispatcher
        self._pools = pools
        self._share_of = share_of
        self._queues: dict[Key, SiteQueue] = {}
        self._firsts: dict[
            str, dict[str, float]
        ] = {}  # pool to vmta: how often it was first, over its weight
        self._found: dict[tuple[str, str, str, str], SiteQueue] = {}

    def __iter__(self) -> Iterator[SiteQueue]:
        return iter(self._queues.values())

    def __len__(self) -> int:
        return len(self._queues)

    def find(
        self, pool: str, customer: str, domain: str, site: Site, *, is_kept: bool = True
    ) -> SiteQueue | None:
        """Return the ready queue for such mail; None: no vmta of the pool is owned here. HOT on a hit.

        `is_kept` False: one domain of very many, each asked for once; it takes no place from others.
        """
        found = self._found.get((pool, customer, domain, site.name))
        if found is not None:
            return found
        key = self._key(pool, customer, domain, site, is_kept=is_kept)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._make(key, site)
            if queue is None:
                return None
        if not is_kept:
            return queue
        if len(self._found) > 50_000:  # domains are chosen by whoever writes to us
            self._found.clear()
        self._found[pool, customer, domain, site.name] = queue
        return queue

    def known(self, pool: str, customer: str, domain: str, site: Site) -> SiteQueue | None:
        """Return the ready queue for such mail where there is one; none is made."""
        return self._queues.get(self._key(pool, customer, domain, site, is_kept=False))

    def _key(self, pool: str, customer: str, domain: str, site: Site, *, is_kept: bool) -> Key:
        policies = self._paths.policies
        hosts = () if site.is_route else site.host_names
        ask = policies.destination if is_kept else policies.find_destination
        destination = ask(domain, site.plain_name, hosts)
        section = customer if policies.sections_for(customer, destination) else ""
        return pool, destination, site.name, section

    def _make(self, key: Key, site: Site) -> SiteQueue | None:
        pool, destination, _, section = key
        members = [(name, weight) for name, weight in self._members(pool) if name in self._paths.vmtas]
        if not members:
            return None

        def resolve_policy(customer: str) -> Policy:
            return self._paths.policies.effective(destination, customer, "")

        queue = self._queues[key] = SiteQueue(
            pool, destination, site, section, resolve_policy, self._share_of
        )
        paths = self._paths

        def path_of(vmta: str) -> Path | None:
            return paths.path(vmta, destination, section) if vmta in paths.vmtas else None

        queue.path_of = path_of
        queue.spare.extend(self._rotated(pool, members))
        self._dispatcher.widening.widen(queue)
        return queue

    def _rotated(self, pool: str, members: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Return the members so that the first of each new queue is another, by weight.

        A site that gets a few messages uses the first of its vmtas alone; over many sites that must not be
        the same one.
        """
        passes = self._firsts.setdefault(pool, {})
        first = min(members, key=lambda member: passes.get(member[0], 0.0))
        passes[first[0]] = passes.get(first[0], 0.0) + 1.0 / first[1]
        at = members.index(first)
        return members[at:] + members[:at]

    def _members(self, pool: str) -> list[tuple[str, int]]:
        found = self._pools.get(pool)
        return (
            [] if found is None else [(name, weight) for name, weight in found.members.items() if weight > 0]
        )

    def is_carried_here(self, pool: str) -> bool:
        """Return whether this shard owns a vmta of the pool."""
        return any(name in self._paths.vmtas for name, _ in self._members(pool))

    def clear(self, pools: Mapping[str, Pool], share_of: Callable[[str], int]) -> None:
        """Forget every queue (they are empty: readahead put all back); later ones follow the new pools."""
        self._pools = pools
        self._share_of = share_of
        self._found.clear()
        self._firsts.clear()
        for queue in self._queues.values():
            queue.is_gone = True
            for path in list(queue.paths):
                self._dispatcher.detach(queue, path)
        self._queues.clear()

    def drop_idle(self, is_idle: Callable[[Path], bool]) -> int:
        """Forget queues where nothing waits and no session serves; return how many."""
        gone = [
            key
            for key, queue in self._queues.items()
            if not queue.queue
            and not queue.behind
            and not queue.opening
            and all(is_idle(path) for path in queue.paths)
        ]
        for key in gone:
            queue = self._queues.pop(key)
            queue.is_gone = True
            for path in list(queue.paths):
                self._dispatcher.detach(queue, path)
        if gone:
            self._found.clear()
        return len(gone)
