"""The spool: a directory into which any program can put mail.

A file is claimed by a rename, read, and given to the acceptor with its claim, which the store keeps in the
message's own transaction. It is unlinked after the commit. So whenever the process dies, the file is in
new/ or claimed/ with its message not stored (it is taken again), or in claimed/ with its claim known (it
is unlinked): sent once.

Refused for good (5xx, not a message): failed/, with the reason. Refused for now (4xx): it stays claimed,
nothing more is claimed for a while, then it is offered again.

Files are noticed by inotify; a listing each second is the net under lost events. The listing leaves alone
what has changed in the last seconds: somebody may be writing into new/ itself, who is heard of at close.

Bounds: files and octets in flight, names known, files taken in one turn of the loop.

Owns: when a file is taken, and what becomes of it.
Never: does a rename itself (inject.spool_directory), reads a message (message.pickup).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from engine.core.errors import StoreError
from engine.core.reply import Reply
from engine.inject.context import FeedContext
from engine.inject.names import NameQueue
from engine.inject.settled import ClaimStore, SettledClaims
from engine.inject.spool_directory import OpenFile, SpoolDirectory, Unreadable, read_file
from engine.message.pickup import PickupError, parse_pickup
from engine.net.inotify import CLOSE_WRITE, MOVED_TO, OVERFLOW, Inotify
from engine.settings.model import ListenerSettings
from engine.telemetry.log import Log
from engine.telemetry.metrics import Cell, Counters

MAX_IN_FLIGHT = 1000  # 2,000 files a second through commits 200 ms apart ("async"), and as much again
MAX_IN_FLIGHT_BYTES = 64 << 20
TURN_FILES = 32  # a file takes some 60 microseconds: 2 ms, then sessions have their turn
TURN_S = 0.004
THREAD_BYTES = 1 << 20  # larger files are read in a thread: a cold one would hold the loop for long
ENVELOPE_BYTES = 64 << 10  # of fields in front of the message, beside those of recipients
RECIPIENT_BYTES = 270  # X-Receiver: and 254 octets (RFC 5321 4.5.3.1.3)

TICK_S = 1.0  # between two listings
QUIET_S = 2.0  # a listing takes only what has not changed for so long
MAX_LISTED = 2000  # names of one listing: 6 ms
SKIPPED_TICKS = 60  # between two tries of what can't be claimed
FIRST_BACK_OFF_S = 1.0
MAX_BACK_OFF_S = 10.0

log = Log("spool")


class Intake(Protocol):
    """What a listener needs of the acceptor."""

    def accept(
        self,
        sender: str,
        recipients: list[str],
        message: bytes,
        is_8bit: bool,
        context: FeedContext,
        done: Callable[[Reply, list[str]], None],
    ) -> None: ...


class _Claimed:
    """A file in flight."""

    __slots__ = ("began", "claim", "name", "size_bytes")

    def __init__(self, name: str, claim: str, size_bytes: int, began: float) -> None:
        self.name = name
        self.claim = claim
        self.size_bytes = size_bytes
        self.began = began


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
        self.in_flight = 0
        self.in_flight_bytes = 0
        self._acceptor = acceptor
        self._store = store
        self._is_async = is_async
        self._knows_left_claim = knows_left_claim
        self._clock = clock
        self._unix_clock = unix_clock
        self._shards = shards
        path = Path(settings.path)
        self._prefix = blake2b(os.fsencode(path), digest_size=4).hexdigest()
        self._directory = SpoolDirectory(path, shard)
        self._settled = SettledClaims(store, self._directory.sync)
        self._names = NameQueue(shard, shards)
        self._held: set[str] = set()  # every name in claimed/<shard>
        self._again: set[str] = set()  # names that came to new/ while they are held
        self._waiting: deque[str] = deque()  # claimed, to be offered (again)
        self._skipped: set[str] = set()  # can't be claimed
        self._inotify: Inotify | None = None
        self._resume_at = 0.0
        self._back_off_s = FIRST_BACK_OFF_S
        self._ticks = 0
        self._is_paused = False
        self._is_stopping = False
        self._is_closed = False
        self._pump_handle: asyncio.Handle | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._seconds = counters.histogram("mailrail_accept_seconds", feed="spool")
        self._counters = counters
        self.use(settings)

    # -- life -------------------------------------------------------------------------------------

    def use(self, settings: ListenerSettings) -> None:
        """Take new settings; the path is the same."""
        self.settings = settings
        labels = {"feed": "spool", "listener": settings.name}
        name = "mailrail_injections_total"
        self._refused: Cell = self._counters.counter(name, result="refused", **labels)
        self._unclaimed: Cell = self._counters.counter(name, result="skipped", **labels)
        envelope_bytes = ENVELOPE_BYTES + RECIPIENT_BYTES * settings.max_recipients
        self._max_file_bytes = settings.max_message_size_bytes + envelope_bytes

    def open(self) -> None:
        """Make the directories, take up what was claimed, begin.

        Raises:
            ConfigError: the directories can't be made or used.
        """
        self._loop = asyncio.get_running_loop()
        self._directory.open()
        self._watch()
        self._recover()
        self._ticker = self._loop.call_soon(self._tick)  # type: ignore[assignment]

    async def stop(self, grace_s: float) -> None:
        """Claim no more; what is in flight may finish."""
        self._is_stopping = True
        self._unwatch()
        for name in self._waiting:
            with contextlib.suppress(OSError):
                self._directory.put_back(name)
        self._waiting.clear()
        if self.in_flight:
            self._emptied = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied, grace_s)
        await self._settled.forget()
        self.close()

    def close(self) -> None:
        """End at once; what is claimed is taken up by the next start."""
        if self._is_closed:
            return
        self._is_stopping = self._is_closed = True
        self._unwatch()
        self._settled.close()
        for handle in (self._ticker, self._pump_handle):
            if handle is not None:
                handle.cancel()
        self._directory.close()

    @property
    def is_paused(self) -> bool:
        """While it is, files stay in new/."""
        return self._is_paused

    @is_paused.setter
    def is_paused(self, value: bool) -> None:
        self._is_paused = value
        if not value:
            self._wake()

    # -- hearing of files -------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            inotify = Inotify()
        except OSError as error:
            log.warning("no inotify, files are found by listing", path=self.settings.path, reason=str(error))
            return
        try:
            inotify.watch(os.fspath(self._directory.new_path), MOVED_TO | CLOSE_WRITE)
        except OSError as error:
            log.warning("no inotify, files are found by listing", path=self.settings.path, reason=str(error))
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
        self._start(self._settled.forget())

    def list_new(self) -> None:
        """Take up what inotify did not tell of: files from before the start, and lost events."""
        names = self._names
        if len(names) >= MAX_LISTED:
            names.is_partial = True
            return
        names.is_partial = False
        unix_now = self._unix_clock()
        found: list[str] = []
        try:
            for entry in self._directory.new_files():
                if entry.name in names or entry.name in self._skipped:
                    continue
                if 0 <= unix_now - entry.stat(follow_symlinks=False).st_ctime < QUIET_S:
                    continue
                found.append(entry.name)
                if len(found) >= MAX_LISTED:
                    names.is_partial = True
                    break
        except OSError as error:
            log.warning("spool can't be listed", path=self.settings.path, reason=str(error))
        names.add(found, self._clock())
        self._wake()

    def _reopen(self) -> None:
        """The directory was removed or replaced under us."""
        log.warning("spool directory is gone, opening it anew", path=self.settings.path)
        self._unwatch()
        try:
            self._directory.open()
        except Exception as error:  # noqa: BLE001
            log.error("spool can't be opened", path=self.settings.path, reason=str(error))
            return
        self._watch()

    # -- what a crash left ------------------------------------------------------------------------

    def _recover(self) -> None:
        """Take up what this shard had claimed, and what shards that exist no more had."""
        self._waiting.extend(self._directory.claimed_files())
        for number, names in self._directory.left_claims(self._shards):
            for name in names:
                try:
                    self._directory.inherit(number, name)
                except OSError as error:
                    log.error("left claim can't be taken", file=_printable(name), reason=str(error))
                    continue
                if not self._was_sent_by(number, name):
                    self._waiting.append(name)
        self._held.update(self._waiting)
        if self._waiting:
            log.info("spool files recovered", path=self.settings.path, files=len(self._waiting))

    def _was_sent_by(self, shard: int, name: str) -> bool:
        """Unlink a file if the store of a shard that exists no more knows its claim."""
        try:
            file = self._directory.open_claimed(name, self._max_file_bytes)
        except (Unreadable, OSError):
            return False
        os.close(file.descriptor)
        if not self._knows_left_claim(shard, self._claim(name, file)):
            return False
        self._directory.unlink(name)
        return True

    # -- taking -----------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Have the pump run soon."""
        if self._pump_handle is None and not self._is_stopping:
            self._pump_handle = self._loop.call_soon(self._pump)

    def _wake_at(self, at: float) -> None:
        if self._pump_handle is None and not self._is_stopping:
            self._pump_handle = self._loop.call_later(max(0.0, at - self._clock()), self._pump)

    def _may_take(self) -> bool:
        return (
            self.in_flight < MAX_IN_FLIGHT
            and self.in_flight_bytes < MAX_IN_FLIGHT_BYTES
            and not self._is_paused
            and not self._is_stopping
        )

    def _pump(self) -> None:
        """Take files, for one turn of the loop."""
        self._pump_handle = None
        now = self._clock()
        if now < self._resume_at:
            self._wake_at(self._resume_at)
            return
        until = now + TURN_S
        for _ in range(TURN_FILES):
            if not self._may_take() or now < self._resume_at:
                return
            if self._waiting:
                self._take(self._waiting.popleft())
            elif (name := self._names.pop(now)) is not None:
                self._claim_and_take(name)
            else:
                break
            now = self._clock()
            if now >= until:
                break
        at = now if self._waiting else self._names.next_at(now)
        if at is not None:
            self._wake_at(at)
        elif self._names.is_partial:
            self.list_new()

    def _claim_and_take(self, name: str) -> None:
        if name in self._held:
            self._again.add(name)
            return
        try:
            is_ours = self._directory.claim(name)
        except OSError as error:
            self._skip(name, error)
            return
        self._skipped.discard(name)
        if is_ours:
            self._held.add(name)
            self._take(name)

    def _skip(self, name: str, error: OSError) -> None:
        """A file can't be claimed, so it can't even fail: leave it, and say so once."""
        if name not in self._skipped:
            self._skipped.add(name)
            self._unclaimed[0] += 1
            log.warning("spool file can't be claimed", file=_printable(name), reason=error.strerror)

    def _take(self, name: str) -> None:
        """Read a claimed file and offer it."""
        try:
            file = self._directory.open_claimed(name, self._max_file_bytes)
        except Unreadable as error:
            self._fail(name, str(error))
            return
        except FileNotFoundError:
            self._let_go(name)
            return
        except OSError as error:  # no descriptors, no memory: not the file's fault
            self._defer(name, str(error))
            return
        claimed = _Claimed(name, self._claim(name, file), file.size_bytes, self._clock())
        try:
            is_known = self._store.claim_of(claimed.claim) is not None
        except StoreError as error:
            os.close(file.descriptor)
            self._defer(name, str(error))
            return
        if is_known:
            os.close(file.descriptor)
            self._finish_known(claimed)
            return
        self.in_flight += 1
        self.in_flight_bytes += file.size_bytes
        if file.size_bytes > THREAD_BYTES:
            self._start(self._read_in_thread(claimed, file))
        else:
            self._read(claimed, partial(read_file, file))

    def _claim(self, name: str, file: OpenFile) -> str:
        return f"{self._prefix}/{file.identity}/{name}"

    def _finish_known(self, claimed: _Claimed) -> None:
        """The message is stored: the process died, or power went, before the file was unlinked.

        But where we have unlinked the file of this claim ourselves, this is another one that looks the
        same to the second's fraction; it waits in new/ until the claim is forgotten.
        """
        if claimed.claim not in self._settled:
            self._finish(claimed)
            return
        try:
            self._directory.put_back(claimed.name)
        except OSError:
            self._waiting.append(claimed.name)
            self._resume_at = self._clock() + FIRST_BACK_OFF_S
        else:
            self._let_go(claimed.name)

    async def _read_in_thread(self, claimed: _Claimed, file: OpenFile) -> None:
        future = self._loop.run_in_executor(None, read_file, file)
        await asyncio.wait([future])
        if not self._is_closed:
            self._read(claimed, future.result)

    def _read(self, claimed: _Claimed, get: Callable[[], bytes]) -> None:
        try:
            octets = get()
        except Unreadable as error:
            self._leave_flight(claimed)
            self._fail(claimed.name, str(error))
        except BlockingIOError:
            self._leave_flight(claimed)
            self._defer(claimed.name, "the file is being written")
        else:
            self._offer(claimed, octets)

    def _offer(self, claimed: _Claimed, octets: bytes) -> None:
        settings = self.settings
        try:
            pickup = parse_pickup(octets)
        except PickupError as error:
            self._leave_flight(claimed)
            self._fail(claimed.name, error.detail)
            return
        fault = ""
        if len(pickup.recipients) > settings.max_recipients:
            fault = f"{len(pickup.recipients)} recipients, at most {settings.max_recipients} are taken"
        elif len(pickup.message) > settings.max_message_size_bytes:
            fault = f"larger than {settings.max_message_size_bytes} octets"
        if fault:
            self._leave_flight(claimed)
            self._fail(claimed.name, fault)
            return
        context = FeedContext(
            "spool",
            settings.name,
            customer=settings.customer,
            is_trusted=settings.trusted,
            peer=_printable(claimed.name),
            claim=claimed.claim,
        )
        self._acceptor.accept(
            pickup.sender,
            pickup.recipients,
            pickup.message,
            pickup.is_8bit,
            context,
            partial(self._answered, claimed),
        )

    # -- what becomes of a file -------------------------------------------------------------------

    def _answered(self, claimed: _Claimed, reply: Reply, _message_ids: list[str]) -> None:
        """The acceptor's word. HOT."""
        if self._is_closed:
            return
        if reply.is_positive:
            self._back_off_s = FIRST_BACK_OFF_S
            if self._is_async:
                self._store.when_durable(partial(self._durable, claimed))
            else:
                self._durable(claimed, None)
            return
        self._leave_flight(claimed)
        if reply.is_temporary:
            self._defer(claimed.name, str(reply))
        else:
            self._refused[0] -= 1  # the acceptor has counted it
            self._fail(claimed.name, str(reply))

    def _durable(self, claimed: _Claimed, error: StoreError | None) -> None:
        if self._is_closed:
            return
        self._leave_flight(claimed)
        if error is not None:
            self._defer(claimed.name, str(error))
            return
        self._seconds.observe(self._clock() - claimed.began)
        self._finish(claimed)

    def _finish(self, claimed: _Claimed) -> None:
        """The message is stored: the file goes, then the claim."""
        try:
            self._directory.unlink(claimed.name)
        except OSError as error:  # it stays held, and its claim known: never sent again
            log.error("spool file can't be unlinked", file=_printable(claimed.name), reason=error.strerror)
            return
        self._settled.add(claimed.claim)
        self._let_go(claimed.name)

    def _fail(self, name: str, reason: str) -> None:
        """It can't be sent: failed/, with the reason."""
        self._refused[0] += 1
        log.info("spool file failed", file=_printable(name), reason=reason)
        try:
            self._directory.fail(name, reason)
        except OSError as error:  # it stays held until the next start
            log.error("spool file can't be moved to failed", file=_printable(name), reason=error.strerror)
            return
        self._let_go(name)

    def _defer(self, name: str, reason: str) -> None:
        """Not now: keep it claimed, and leave everything alone for a while."""
        self._waiting.append(name)
        now = self._clock()
        if now >= self._resume_at:
            log.warning("spool waits", path=self.settings.path, seconds=self._back_off_s, reason=reason)
            self._resume_at = now + self._back_off_s
            self._back_off_s = min(2 * self._back_off_s, MAX_BACK_OFF_S)
        self._wake_at(self._resume_at)

    def _leave_flight(self, claimed: _Claimed) -> None:
        self.in_flight -= 1
        self.in_flight_bytes -= claimed.size_bytes
        if self._emptied is not None and not self.in_flight and not self._emptied.done():
            self._emptied.set_result(None)
        self._wake()

    def _let_go(self, name: str) -> None:
        """Nothing of this name is claimed any more."""
        self._held.discard(name)
        if name in self._again:
            self._again.discard(name)
            self._names.add([name], self._clock())
            self._wake()

    def _start(self, work: "asyncio.Future[None] | object") -> None:
        task = self._loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _printable(name: str) -> str:
    """Return a file's name for people: UTF-8, one line."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text if text.isprintable() else ascii(text)[1:-1]
