"""What a shard does from time to time: keep long windows on disk, forget idle paths, hand over what is stuck.

Owns: when these happen.
Never: does more than a slice of work at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.delivery.site_queue import SiteQueue
from engine.shard.known_peers import KnownPeers
from engine.shard.long_windows import LongWindows
from engine.telemetry.log import Log

if TYPE_CHECKING:
    from engine.shard.build import Engine

EVERY_S = 2.0
LONG_WINDOW_S = 60.0  # design section 5: windows over a minute are persisted
QUIET_S = 2.0  # design section 5: a restarted shard waits before it connects
MARKER = "sessions"
AHEAD_S = 2 * EVERY_S  # what may be spent before the next write counts as spent already
FORGET_EVERY_S = 60.0
STUCK_S = 30.0  # so long all vmtas of a pool must have been held before its messages are handed over
STUCK_SLICE = 50

log = Log("upkeep")


def quiet_s(data_dir: Path, unix_now: float) -> float:
    """Return how long a shard that starts must not connect: peers may still see an earlier one's sessions.

    Each shard keeps the date of a marker fresh while it has sessions; where all are old, or none is there,
    nobody can see any.
    """
    for marker in data_dir.glob(f"shard-*/{MARKER}"):
        try:
            age_s = unix_now - marker.stat().st_mtime
        except FileNotFoundError:
            continue
        if age_s < EVERY_S + QUIET_S:  # a clock that was set back counts as fresh
            return QUIET_S
    return 0.0


class Upkeep:
    """Runs with the engine."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._windows = LongWindows(directory.parent, int(directory.name.rpartition("-")[2]))
        self._peers = KnownPeers(engine.opener.memory, directory / "peers", engine.loop.time)
        self._marker = directory / MARKER
        self._forget_at = 0.0
        self._stuck_since: dict[SiteQueue, float] = {}

    def open(self) -> None:
        """Take over what was kept, and begin."""
        self._windows.open()
        self._peers.open()
        self.take_over()
        self._timer = self._engine.loop.call_later(EVERY_S, self._tick)
        self._forget_at = self._engine.loop.time() + FORGET_EVERY_S

    def take_over(self) -> None:
        """Take over what is on disk of vmtas that are here from now on, where nobody has told it."""
        engine = self._engine
        engine.paths.restore_limits(self._windows.read(), engine.loop.time(), time.time())

    def let_go(self, names: Iterable[str]) -> None:
        """Write what these vmtas have spent for the last time: another shard goes on from there."""
        paths, now, unix_now = self._engine.paths, self._engine.loop.time(), time.time()
        self._windows.write(paths.export_limits(names, now, unix_now, LONG_WINDOW_S), unix_now)

    def close(self) -> None:
        """Keep everything that was spent: whoever comes next need not wait."""
        self._timer.cancel()
        self._keep(over_s=0.0, ahead_s=0.0)
        self._peers.keep()
        engine = self._engine
        now = engine.loop.time()
        # A connection that we cut off may be counted by its peer for a while yet.
        if not engine.opener.sessions and not any(
            path.limits.slots.in_use(now) for path in engine.paths.paths.values()
        ):
            self._marker.unlink(missing_ok=True)

    def _tick(self) -> None:
        engine = self._engine
        self._timer = engine.loop.call_later(EVERY_S, self._tick)
        now = engine.loop.time()
        if engine.opener.sessions:
            self.mark()
        self._keep(LONG_WINDOW_S, AHEAD_S)
        self._peers.keep()
        self._relieve(now)
        if now >= self._forget_at:
            self._forget_at = now + FORGET_EVERY_S
            engine.sites.drop_idle(lambda path: not path.sessions)
            engine.paths.forget_idle(now, engine.dispatcher.forget_path)

    def mark(self) -> None:
        """Put on record that there are sessions now."""
        try:
            self._marker.touch(0o600)
        except OSError as error:
            log.error("marker not kept", file=str(self._marker), error=str(error))

    def _keep(self, over_s: float, ahead_s: float) -> None:
        """Write what was spent of long windows."""
        paths, now, unix_now = self._engine.paths, self._engine.loop.time(), time.time()
        rows = paths.export_limits(list(paths.vmtas), now, unix_now, over_s, ahead_s)
        self._windows.write(rows, unix_now)

    def _relieve(self, now: float) -> None:
        """Hand over what waits for a pool whose vmtas here are all held for that destination."""
        engine = self._engine
        stuck = [queue for queue in engine.sites if queue.paths and self._is_stuck(queue, now)]
        self._stuck_since = {queue: self._stuck_since.get(queue, now) for queue in stuck}
        for queue, since in self._stuck_since.items():
            if now - since >= STUCK_S and engine.exchange.owner_of(queue.pool) is not None:
                self._hand_over(queue)

    def _is_stuck(self, queue: SiteQueue, now: float) -> bool:
        if queue.spare:
            return False
        holds = [path.hold_in_force(now) for path in queue.paths]
        return all(hold is not None and hold.until - now > STUCK_S for hold in holds)

    def _hand_over(self, queue: SiteQueue) -> None:
        """What came from another shard stays: there it was held as well, or is by now."""
        engine = self._engine
        chosen = [delivery.key for delivery in queue.queue if not delivery.is_remembered][:STUCK_SLICE]
        for delivery in queue.queue.take(lambda delivery: delivery.key in chosen):
            if not engine.lending.give(delivery):
                queue.queue.push_front(delivery)
        engine.readahead.refill_soon(queue)
