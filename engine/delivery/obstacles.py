"""What stops a ready queue, in words: for operators who look, and for the senders of what expired there.

Owns: nothing.
Never: says more than is so now: a queue that one of its vmtas, or one that it has in spare, may carry from is
not stopped, and what merely has nothing to do is no reason.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.delivery.site_queue import SiteQueue
from engine.queue.decide import HELD, Decision, spent, stopped
from engine.queue.path import Path

Look = Callable[[Path, str, float], Decision | None]


def held_reason(site_queue: SiteQueue, now: float) -> str:
    """Return why all of a ready queue's paths are held or back off; "" where one is not."""
    return _first_to_end(site_queue, stopped, now).removeprefix(HELD)


def obstacle(site_queue: SiteQueue, now: float) -> str:
    """Return what keeps all of a ready queue's paths from carrying, limits included; "" where one may."""
    return _first_to_end(site_queue, spent, now)


def _first_to_end(site_queue: SiteQueue, look: Look, now: float) -> str:
    if site_queue.spare or not site_queue.paths:
        return ""
    found: list[Decision] = []
    for path in site_queue.paths:
        decision = look(path, site_queue.site.name, now)
        if decision is None:
            return ""
        found.append(decision)
    return min(found, key=lambda decision: decision.ask_at).reason
