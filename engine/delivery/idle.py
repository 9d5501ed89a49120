"""The sessions that have nothing to do, by the site of the path that they serve.

Owns: which sessions are idle; each site's count of them.
Never: decides who is woken for what (dispatcher), or who must leave (scarcity).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from engine.delivery.site_queue import SiteQueue
from engine.queue.path import Path, SiteDemand

QUICK_S = 0.005  # from MAIL to the last reply: so a message waits for at most FEW times that
FEW = 4


class Carrier(Protocol):
    """What handing out deliveries needs of a session."""

    path: Path
    demand: SiteDemand
    site_queues: list[SiteQueue]
    opened_at: float
    messages: int
    reserved_at: float  # of the delivery taken last
    taken_from: SiteQueue  # where that was taken from

    def wake(self) -> None:
        """Take a delivery, if there is one and the rates allow."""

    def quit(self) -> None:
        """Say QUIT as soon as nothing is in flight."""


class IdleSessions:
    """Finds a session that can take a delivery, or make room, at once."""

    def __init__(self) -> None:
        self._idle: dict[SiteDemand, dict[Carrier, None]] = {}

    def add(self, session: Carrier) -> None:
        """A session has nothing to do."""
        idle = self._idle.setdefault(session.demand, {})
        if session not in idle:
            idle[session] = None
            session.demand.idle += 1

    def remove(self, session: Carrier) -> None:
        """A session has something to do, or is gone; whether it was idle or not."""
        idle = self._idle.get(session.demand)
        if idle is not None and session in idle:
            del idle[session]
            session.demand.idle -= 1
            if not idle:
                del self._idle[session.demand]

    def wake(self, demand: SiteDemand) -> None:
        """Wake as many as there is work for, one at least; HOT.

        A peer that answers at once gets a few messages in each: the next envelope goes out behind the dot of
        the message before, one write and one read for a message instead of two.
        """
        idle = self._idle.get(demand)
        if idle:
            count = demand.waiting() or 1
            if 0.0 <= demand.attempt_s < QUICK_S:
                count = (count + FEW - 1) // FEW
            for session in list(islice(idle, count)):
                session.wake()

    def wake_all(self, demand: SiteDemand) -> None:
        """Wake all of a site, so that each looks at what is asked of it."""
        for session in list(self._idle.get(demand, ())):
            session.wake()

    def first_of(self, sites: int) -> Iterator[Carrier]:
        """Yield the idle sessions of so many sites."""
        for sessions in islice(self._idle.values(), sites):
            yield from sessions
