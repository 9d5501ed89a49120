"""Which ready queue gets another vmta of its pool, and when.

A ready queue begins with one path. It gets another where those that it has may not do all that there is to
do (their rates, connections or holds), or where they have carried so much that the next one's weight asks
for its share (`SiteQueue.is_spare_due`). So a site that gets a few messages, or takes none, costs one path or
two, and few connections (docs/benchmarks.md has the figures of all paths from the start).

Owns: nothing; what is spare is the queue's.
Never: opens sessions (the dispatcher does, as `decide` says).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.delivery.site_queue import SiteQueue
from engine.queue.decide import Decision
from engine.queue.path import Path


class Widening:
    """Brings spare vmtas into ready queues."""

    def __init__(
        self, decisions: Mapping[Path, Decision], attach: Callable[[SiteQueue, Path, float], None]
    ) -> None:
        """`decisions`: what each path was told last."""
        self._decisions = decisions
        self._attach = attach

    def widen(self, site_queue: SiteQueue) -> Path | None:
        """Let one more vmta of the pool carry from a ready queue; None: there is no other."""
        while site_queue.spare:
            vmta, weight = site_queue.spare.popleft()
            path = site_queue.path_of(vmta)
            if path is not None:
                self._attach(site_queue, path, weight)
                return path
        return None

    def is_wanted(self, site_queue: SiteQueue) -> bool:
        """Return whether every path of a ready queue has more to do than it may.

        Where none of them gets through the peer is down, most likely, and not the source address refused: the
        second is tried at once, each further one when one has failed once more.
        """
        if not site_queue.spare:
            return False
        if not site_queue.paths:
            return True
        decisions = [self._decisions.get(path) for path in site_queue.paths]
        if not all(decision is not None and decision.is_spent for decision in decisions):
            return False
        failures = [path.sites[site_queue.site.name].failures for path in site_queue.paths]
        return not all(failures) or len(failures) <= max(failures)
