"""The spool: a directory into which any program can put mail.

Files are noticed by inotify; a listing each second is the net under lost events. The listing leaves alone
what has changed in the last seconds: somebody may be writing into new/ itself, who is heard of at close.

Files are claimed by renaming them, a few in each turn of the loop, as far as the flight has room.

Owns: which file is claimed when.
Never: knows what becomes of a claimed file (inject.flight).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from engine.core.errors import ConfigError
from engine.inject.context import Intake
from engine.inject.flight import Flight, format_name
from engine.inject.names import NameQueue
from engine.inject.settled import ClaimStore
from engine.inject.spool_directory import SpoolDirectory
from engine.net.inotify import CLOSE_WRITE, MOVED_TO, OVERFLOW, Inotify
from engine.settings.model import ListenerSettings
from engine.telemetry.log import Log
from engine.telemetry.metrics import Cell, Counters

TURN_FILES = 32  # a file takes some 60 microseconds: 2 ms, then sessions have their turn
TURN_S = 0.004
TICK_S = 1.0  # between two listings
QUIET_S = 2.0  # a listing takes only what has not changed for so long
MAX_LISTED = 2000  # names of one listing: 6 ms
SKIPPED_TICKS = 60  # between two tries of what can't be claimed

log = Log("spool")


class SpoolListener:
    """One spool directory in one shard."""

    def __init__(  # noqa: PLR0913 (its collaborators, given once by the shard)
        self,
        settings: ListenerSettings,
        acceptor: Intake,
        store: ClaimStore,
        counters: Counters,
        shard: int,
        shards: int = 1,
        *,
        is_async: bool = False,
        knows_left_claim: Callable[[int, str], bool] = lambda _shard, _claim: False,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        is_async: the acceptor answers before a message is durable; files are unlinked when it is.
        knows_left_claim: (shard that exists no more, claim) to whether that shard's store had it.
        """
        self._directory = SpoolDirectory(Path(settings.path), shard)
        self.flight = Flight(
            settings,
            self._directory,
            acceptor,
            store,
            counters,
            clock,
            is_async=is_async,
            on_free=self._wake,
            on_reuse=self._hear_again,
        )
        self._shards = shards
        self._knows_left_claim = knows_left_claim
        self._counters = counters
        self._clock = clock
        self._unix_clock = unix_clock
        self._names = NameQueue(shard, shards)
        self._skipped: set[str] = set()  # can't be claimed
        self._inotify: Inotify | None = None
        self._ticks = 0
        self._paused_by = ""
        self._is_stopping = False
        self._pump_at = 0.0
        self._pump_handle: asyncio.Handle | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self.use(settings)

    # -- life -------------------------------------------------------------------------------------

    def use(self, settings: ListenerSettings) -> None:
        """Take new settings; the path is the same."""
        self.settings = settings
        self.flight.use(settings)
        self._unclaimed: Cell = self._counters.counter(
            "mailrail_injections_total", feed="spool", listener=settings.name, result="skipped"
        )

    def open(self) -> None:
        """Make the directories, take up what was claimed, begin.

        Raises:
            ConfigError: the directories can't be made or used.
        """
        self._loop = asyncio.get_running_loop()
        self._directory.open()
        self._watch()
        recovered = self.flight.recover(self._shards, self._knows_left_claim)
        if recovered:
            log.info("spool files recovered", path=self.settings.path, files=recovered)
        self._tick()

    async def stop(self, grace_s: float) -> None:
        """Claim no more; what is in flight may finish."""
        self._is_stopping = True
        self._unwatch()
        await self.flight.land(grace_s)
        self.close()

    def close(self) -> None:
        """End at once; what is claimed is taken up by the next start."""
        self._is_stopping = True
        self._unwatch()
        self.flight.close()
        for handle in (self._ticker, self._pump_handle):
            if handle is not None:
                handle.cancel()
        self._directory.close()

    def pause(self, reason: str) -> None:
        """While there is a reason, files stay in new/."""
        if reason == self._paused_by:
            return
        self._paused_by = reason
        log.info("spool waits" if reason else "spool goes on", path=self.settings.path, reason=reason)
        if not reason and self._pump_handle is None and self._ticker is not None:
            self._wake()

    # -- hearing of files -------------------------------------------------------------------------

    def _watch(self) -> None:
        inotify: Inotify | None = None
        try:
            inotify = Inotify()
            inotify.watch(os.fspath(self._directory.new_path), MOVED_TO | CLOSE_WRITE)
        except OSError as error:
            log.warning("no inotify, files are found by listing", path=self.settings.path, reason=str(error))
            if inotify is not None:
                inotify.close()
            return
        self._inotify = inotify
        self._loop.add_reader(inotify.fileno(), self._read_events)

    def _unwatch(self) -> None:
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def _read_events(self) -> None:
        assert self._inotify is not None
        names = []
        for mask, name in self._inotify.read():
            if mask & OVERFLOW:
                self._names.is_partial = True
            elif name and name[0] != ".":
                names.append(name)
        self._names.add(names, self._clock())
        self._wake()

    def _hear_again(self, name: str) -> None:
        self._names.add([name], self._clock())
        self._wake()

    def _tick(self) -> None:
        """Once a second: list the directory, forget settled claims."""
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        self._ticks += 1
        if self._is_stopping:
            return
        if self._directory.is_gone:
            self._reopen()
        if self._ticks % SKIPPED_TICKS == 0:
            self._skipped = {name for name in self._skipped if self._directory.is_new(name)}
            self._names.add(self._skipped, self._clock())
        self.list_new()
        self.flight.fail_again()
        self.flight.forget_settled()

    def list_new(self) -> None:
        """Take up what inotify did not tell of: files from before the start, and lost events."""
        names = self._names
        if len(names) >= MAX_LISTED:
            names.is_partial = True
            return
        names.is_partial = False
        try:
            found = self._list()
        except OSError as error:
            log.warning("spool can't be listed", path=self.settings.path, reason=str(error))
            return
        names.is_partial = len(found) >= MAX_LISTED
        names.add(found, self._clock())
        self._wake()

    def _list(self) -> list[str]:
        """Return up to MAX_LISTED names in new/ that are not known and have not changed just now."""
        found: list[str] = []
        unix_now = self._unix_clock()
        for entry in self._directory.new_files():
            if entry.name in self._names or entry.name in self._skipped:
                continue
            try:
                changed_at = entry.stat(follow_symlinks=False).st_ctime
            except FileNotFoundError:
                continue
            if not 0 <= unix_now - changed_at < QUIET_S:
                found.append(entry.name)
                if len(found) >= MAX_LISTED:
                    break
        return found

    def _reopen(self) -> None:
        """The directory was removed or replaced under us."""
        log.warning("a directory of the spool is gone, opening it anew", path=self.settings.path)
        self._unwatch()
        try:
            self._directory.open()
        except ConfigError as error:
            log.error("spool can't be opened", path=self.settings.path, reason=str(error))
            return
        self._watch()

    # -- claiming ---------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Have the pump run soon."""
        self._wake_at(0.0)

    def _wake_at(self, at: float) -> None:
        """Have the pump run at this time, or earlier if it was to."""
        if self._is_stopping:
            return
        if self._pump_handle is not None:
            if self._pump_at <= at:
                return
            self._pump_handle.cancel()
        self._pump_at = at
        delay_s = at - self._clock()
        if delay_s > 0:
            self._pump_handle = self._loop.call_later(delay_s, self._pump)
        else:
            self._pump_handle = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Take files, for one turn of the loop."""
        self._pump_handle = None
        flight = self.flight
        now = self._clock()
        until = now + TURN_S
        for _ in range(TURN_FILES):
            if self._paused_by or self._is_stopping or not flight.has_room:
                return  # whoever ends that wakes the pump
            if now < flight.resume_at:
                self._wake_at(flight.resume_at)
                return
            if not self._take_one(now):
                break
            now = self._clock()
            if now >= until:
                break
        at = now if flight.waiting else self._names.next_at(now)
        if at is not None:
            self._wake_at(at)
        elif self._names.is_partial:
            self.list_new()

    def _take_one(self, now: float) -> bool:
        """Take a file that is claimed already, or claim one; False if there is none."""
        if self.flight.waiting:
            self.flight.take(self.flight.waiting.popleft())
            return True
        name = self._names.pop(now)
        if name is None:
            return False
        if name in self.flight.held:
            self.flight.note_reuse(name)
            return True
        try:
            if self._directory.claim(name):
                self.flight.take(name)
        except OSError as error:
            self._skip(name, error)
        else:
            self._skipped.discard(name)
        return True

    def _skip(self, name: str, error: OSError) -> None:
        """A file can't be claimed, so it can't even fail: leave it, and say so once."""
        if name not in self._skipped:
            self._skipped.add(name)
            self._unclaimed[0] += 1
            log.warning("spool file can't be claimed", file=format_name(name), reason=error.strerror)
