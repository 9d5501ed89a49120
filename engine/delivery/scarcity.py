"""Who makes room for whom, where connections are scarce.

Two things can leave mail without a session for as long as others have work: the slots of a path are all
taken by sessions to other sites, which it may not use (a *starved* site); or a cap over many paths is spent
by others (a *capped* path). Sessions yield to a starved site one at a time, after a fair piece of work.
Capped paths are asked first come, first served, whenever a connection ends, and idle sessions of others
end for them one at a time.

Owns: which sites starve, which paths wait for a cap, which session is making room.
Never: opens sessions (the dispatcher does, as `decide` says).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from engine.delivery.idle import Carrier, IdleSessions
from engine.queue.path import Path, SiteDemand

# A session gives its slot to a site of the same path that has none, after so many messages or seconds.
YIELD_AFTER_MESSAGES = 20
YIELD_AFTER_S = 5.0
YIELD_AGAIN_S = 6.0  # the slot of a session that yielded is free by then, even if we had to close it
CAPPED_SLICE = 64  # paths looked at when a connection ends
EVICT_LOOKS = 32  # sites whose idle sessions are looked at for one that can make room


class Scarcity:
    """Sees to it that no site and no path waits for ever for others to end."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle: IdleSessions, kick: Callable[[Path], None]
    ) -> None:
        """`kick(path)` asks a path whether it opens sessions now."""
        self._loop = loop
        self._idle = idle
        self._kick = kick
        self._starved: dict[Path, SiteDemand] = {}
        self._yield_again_at: dict[Path, float] = {}
        self._capped: dict[Path, None] = {}  # who waits longest first
        self._leaving: Carrier | None = None  # an idle session that makes room for one of those

    def forget(self, path: Path) -> None:
        """A path is no longer used."""
        self.end_starving(path)
        self._capped.pop(path, None)

    # -- sites of one path ------------------------------------------------------------------------

    def should_yield(self, session: Carrier, now: float) -> bool:
        """Return whether a session must end for a starved site of its path. HOT."""
        if not self._starved:
            return False
        path = session.path
        starved = self._starved.get(path)
        if starved is None or starved is session.demand:
            return False
        if starved.sessions or starved.opening or starved.retry_at > now or starved.waiting() <= 0:
            self.end_starving(path)
            return False
        if now < self._yield_again_at.get(path, 0.0):
            return False  # another session has made room already
        has_served = session.messages >= YIELD_AFTER_MESSAGES or now - session.opened_at >= YIELD_AFTER_S
        if not has_served and any(queue.queue for queue in session.site_queues):
            return False
        self._yield_again_at[path] = now + YIELD_AGAIN_S
        return True

    def find_starved(self, path: Path, now: float) -> None:
        """All slots are taken: of sites that have none, the one not served for longest comes next."""
        if len(path.sites) < 2 or path in self._starved:
            return
        starved = None
        for demand in path.sites.values():
            if demand.sessions or demand.opening or demand.retry_at > now or demand.waiting() <= 0:
                continue
            if starved is None or demand.served_at < starved.served_at:
                starved = demand
        if starved is None:
            return
        self._starved[path] = starved
        starved.is_starved = True
        for other in list(path.sites.values()):
            self._idle.wake_all(other)

    def end_starving(self, path: Path) -> None:
        """The starved site of a path, if there is one, is served or needs nothing any more."""
        starved = self._starved.pop(path, None)
        if starved is not None:
            starved.is_starved = False
        self._yield_again_at.pop(path, None)

    def became_idle(self, session: Carrier) -> None:
        """A session has nothing to do: somebody may need its slot."""
        path = session.path
        starved = self._starved.get(path)
        if starved is None and len(path.sites) > 1:
            self._loop.call_soon(self._kick, path)  # another site may wait for the slot
        elif starved is not None and starved is not session.demand:
            self._loop.call_soon(session.wake)
        if self._capped and self._leaving is None and self._is_in_the_way(session):
            self._leaving = session
            self._loop.call_soon(session.quit)

    # -- caps over many paths ---------------------------------------------------------------------

    def wait_for_cap(self, path: Path) -> None:
        """A path was refused by a cap: it is asked again when a connection ends."""
        self._capped[path] = None
        self._evict_for(path)

    def closed(self, session: Carrier) -> None:
        """A session is gone."""
        if session is self._leaving:
            self._leaving = None

    def slot_is_free(self, path: Path) -> None:
        """A connection of `path` ended: first those are asked that a cap refused, then that path."""
        if self._capped:
            self._loop.call_soon(self._kick_capped)
        self._loop.call_soon(self._kick, path)

    def _kick_capped(self) -> None:
        for path in list(islice(self._capped, CAPPED_SLICE)):
            if all(cap.room > 0 for cap in path.caps):
                self._capped.pop(path, None)  # a path that wants still more comes last
                self._kick(path)
        if self._capped:
            self._evict_for(next(iter(self._capped)))

    def _evict_for(self, path: Path) -> None:
        """End a session that is idle, if it counts in a cap that this path waits for."""
        spent = [cap for cap in path.caps if cap.room <= 0]
        if not spent or self._leaving is not None:
            return
        for session in self._idle.first_of(EVICT_LOOKS):
            if any(cap in session.path.caps for cap in spent):
                self._leaving = session
                session.quit()
                return

    def _is_in_the_way(self, session: Carrier) -> bool:
        """Return whether a path waits for a cap that this session counts in."""
        spent = [cap for cap in session.path.caps if cap.room <= 0]
        waiting = islice(self._capped, CAPPED_SLICE)
        return bool(spent) and any(cap in path.caps for path in waiting for cap in spent)
