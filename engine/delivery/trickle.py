"""What stopped ready queues get to try with: one delivery each, a few queues at a time.

A try at a site that does not accept costs the one delivery that its ready queue keeps; another is read for
the next try. Thousands of dead sites, all tried at once, would so keep the loop from those that accept. This
spreads their next tries: they take a part of a core that does not grow with their number.

Owns: which stopped ready queues wait for something to try with.
Never: reads (readahead does), or decides when a site is tried again (queue.path).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from engine.delivery.site_queue import SiteQueue

AT_ONCE = 8
EVERY_S = 0.01  # 800 tries a second, about 0.2 ms each


class Trickle:
    """Reads for stopped ready queues in turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, refill: Callable[[SiteQueue], None]) -> None:
        """`refill(site_queue)`: reads one delivery for it."""
        self._loop = loop
        self._refill = refill
        self._waiting: dict[SiteQueue, None] = {}
        self._timer: asyncio.Handle | None = None

    def __contains__(self, site_queue: SiteQueue) -> bool:
        return site_queue in self._waiting

    def add(self, site_queue: SiteQueue) -> None:
        """Read for a ready queue when its turn comes: within EVERY_S, where no more than AT_ONCE wait."""
        self._waiting[site_queue] = None
        if self._timer is None:
            self._timer = self._loop.call_later(EVERY_S, self._go_on)

    def clear(self) -> None:
        """Forget who waits."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        for site_queue in list(islice(self._waiting, AT_ONCE)):
            del self._waiting[site_queue]
            if not site_queue.is_gone:
                self._refill(site_queue)
        self._timer = self._loop.call_later(EVERY_S, self._go_on) if self._waiting else None
