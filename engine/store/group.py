"""Group commit: everything staged since the last commit goes into one transaction.

One commit is under way at a time; the next gathers meanwhile. A commit costs some 200 microseconds however
little is in it, so they are paced under load: after one that made n puts durable, the next begins n half
milliseconds later, at most 5 ms. A lone injector never waits for that, and what nobody waits for lingers a
little for company.

No room is not the end: the puts of that commit are refused and what concerns stored deliveries goes on by
itself. Any other failure is: nobody is told that anything is durable any more, and `on_unhealthy` is
called, once.

Owns: the batches, when a commit begins, what becomes of a failed one.
Never: decides what goes into a batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from engine.core.errors import StoreError, StoreFull, StoreUnhealthy
from engine.store.batch import Batch, Done
from engine.store.commit import CommitThread, Journal, Writer, commit
from engine.store.environment import Environment, translate

MAX_OPERATIONS = 500  # a batch of 500 holds the loop for 2 to 4 ms
MAX_BATCH_BYTES = 8 << 20
PACE_PER_PUT_S = 0.0005  # bench/store_commit.py: from some 5 puts a commit on, pacing pays
PACE_S = 0.005
SOON_S = 0.001  # below the resolution of uvloop's timers
LINGER_S = 0.010  # removals and amendments: a crash costs the duplicates of that long
ASYNC_S = 0.2  # design section 4: what `async` may lose
RETRY_S = 1.0  # after a commit that found no room although it put nothing


class Stats:
    """Plain counts for the shard's metrics."""

    __slots__ = ("commits", "failures", "operations", "puts")

    def __init__(self) -> None:
        self.commits = self.failures = self.operations = self.puts = 0


class GroupCommit:
    """The batches of one environment, oldest first; the last one is being staged."""

    def __init__(
        self,
        environment: Environment,
        *,
        loop: asyncio.AbstractEventLoop,
        is_async: bool,
        journal: Journal | None,
        unix_clock: Callable[[], float],
        observe_commit_s: Callable[[float], None],
        on_unhealthy: Callable[[StoreError], None],
        on_mended: Callable[[Batch], None],
    ) -> None:
        self.batch = Batch()
        self.batches = [self.batch]
        self.staged: dict[bytes, Batch] = {}  # delivery key: the batch with its last change
        self.failure: StoreError | None = None
        self.stats = Stats()
        self._environment = environment
        self._loop = loop
        self._is_async = is_async
        self._journal = journal
        self._unix_clock = unix_clock
        self._observe_commit_s = observe_commit_s
        self._on_unhealthy = on_unhealthy
        self._on_mended = on_mended
        self._thread = CommitThread(self._finished_in_thread)
        self._is_threaded = False
        self._committing: Batch | None = None
        self._result: tuple[Exception | None, float] | None = None
        self._no_room = ""
        self._no_room_at = 0.0
        self._handle: asyncio.Handle | None = None
        self._begin_at = 0.0
        self._last_begin = 0.0
        self._pace_s = 0.0
        self._is_stuck = False  # the last commit found no room and trying at once would change nothing
        self._answers: list[Done] = []

    def start(self) -> None:
        """Begin to commit; the environment is open."""
        self._writer = Writer(self._environment.tables)
        self._thread.start()
        self._is_threaded = True

    def stop(self) -> None:
        """Commit what is staged, here and now, and tell everybody."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._is_threaded:
            self._thread.stop()
            self._is_threaded = False
            self._finish()
        while self.failure is None and not self._is_stuck and self._has_work():
            self._begin()
            self._finish()
        self._answer()
        self._tell_all(StoreUnhealthy(f"{self._environment.path}: the store is closed"))

    @property
    def no_room(self) -> str:
        """Why a commit of the last second found no room; "" if none did."""
        if self._no_room and self._loop.time() - self._no_room_at >= RETRY_S:
            self._no_room = ""
        return self._no_room

    @property
    def staged_bytes(self) -> int:
        return sum(batch.size_bytes for batch in self.batches)

    def fail(self, error: StoreError) -> None:
        """Promise nothing any more: what is stored can't be trusted. Only the first error counts."""
        if self.failure is None:
            self.failure = error
            self._tell_all(error)
            self._on_unhealthy(error)

    def tell(self, done: Done) -> None:
        """Have `done` called when what was just put is durable (`sync`), or soon (`async`). HOT."""
        if not self._is_async:
            self.batch.puts.append(done)
            self.want(is_urgent=True)
            return
        if not self._answers:
            self._loop.call_soon(self._answer)
        self._answers.append(done)
        self.want()

    def tell_durable(self, done: Done) -> None:
        """Have `done` called when everything staged so far is durable."""
        self.batch.waiting.append(done)
        self.want(is_urgent=True)

    def want(self, *, is_urgent: bool = False) -> None:
        """See to it that what was staged is committed. HOT."""
        batch = self.batch
        if batch.operations >= MAX_OPERATIONS or batch.size_bytes >= MAX_BATCH_BYTES:
            self._seal()
        if self._committing is not None:
            return
        now = self._loop.time()
        if len(self.batches) > 1:
            at = now
        elif is_urgent:
            at = self._last_begin + self._pace_s
        else:
            at = now + (ASYNC_S if self._is_async else LINGER_S)
        self._arm(at, now)

    def _arm(self, at: float, now: float) -> None:
        if self._handle is not None:
            if self._begin_at <= at + SOON_S:
                return
            self._handle.cancel()
        self._begin_at = at
        if at - now < SOON_S:
            self._handle = self._loop.call_soon(self._begin)
        else:
            self._handle = self._loop.call_at(at, self._begin)

    def _seal(self) -> None:
        """Stage what follows into a new batch."""
        self.batch = Batch()
        self.batches.append(self.batch)

    def _has_work(self) -> bool:
        return len(self.batches) > 1 or not self.batch.is_empty

    def _begin(self) -> None:
        """Make the oldest batch's changes and have the thread commit them."""
        self._handle = None
        if self._committing is not None or self.failure is not None:
            return
        batch = self.batches[0]
        if batch is self.batch:
            self._seal()
        self._committing = batch
        self._last_begin = self._loop.time()
        self._pace_s = min(PACE_S, PACE_PER_PUT_S * len(batch.puts))
        try:
            txn = self._write(batch)
        except Exception as error:  # lmdb's, or a bug: either way nothing may be promised from here on
            self._result = (error, 0.0)
            self._finish()
            return
        chunk = self._journal.take() if self._journal is not None else None
        if self._is_threaded:
            self._thread.submit(txn, self._journal, chunk)
        else:
            began = time.perf_counter()
            self._result = (commit(txn, self._journal, chunk), time.perf_counter() - began)

    def _write(self, batch: Batch) -> object:
        """Return the transaction that holds the changes of `batch`; None if there are none."""
        if not batch.operations:
            return None
        txn = self._environment.lmdb.begin(write=True)
        try:
            self._writer.write(txn, batch, self._unix_clock())
        except Exception:
            txn.abort()
            raise
        return txn

    def _finished_in_thread(self, error: Exception | None, seconds: float) -> None:
        self._result = (error, seconds)
        self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        """Draw the conclusions of a commit that has ended; a second call finds nothing to do."""
        if self._result is None or self._committing is None:
            return
        error, seconds = self._result
        batch, self._committing, self._result = self._committing, None, None
        told = self._succeed(batch, seconds) if error is None else self._fail(batch, error)
        if self._has_work() and self.failure is None and self._is_threaded:
            self._arm_next()
        answer = None if error is None else self._translate(error)
        for done in told:
            done(answer)

    def _arm_next(self) -> None:
        now = self._loop.time()
        head = self.batches[0]
        if self._is_stuck:
            self._arm(now + RETRY_S, now)
        elif len(self.batches) > 1 or head.puts or head.waiting:
            self._arm(max(now, self._last_begin + self._pace_s), now)
        else:
            self._arm(now + (ASYNC_S if self._is_async else LINGER_S), now)

    def _succeed(self, batch: Batch, seconds: float) -> list[Done]:
        self.batches.pop(0)
        self._forget(batch)
        self._is_stuck = False
        self.stats.commits += 1
        self.stats.operations += batch.operations
        self.stats.puts += len(batch.bodies)
        self._observe_commit_s(seconds)
        if batch.doubts:
            self._on_mended(batch)
        return batch.puts + batch.waiting

    def _forget(self, batch: Batch) -> None:
        staged = self.staged
        for key in batch.deliveries:
            if staged.get(key) is batch:
                del staged[key]

    def _fail(self, batch: Batch, error: Exception) -> list[Done]:
        """Keep what must not be lost; return whom to tell that their put was not stored."""
        self.stats.failures += 1
        translated = self._translate(error)
        if not isinstance(translated, StoreFull):
            self.fail(translated)
            return []
        self._no_room = str(translated)
        self._no_room_at = self._loop.time()
        self._environment.nudge()
        if not batch.fresh:
            self._is_stuck = not self._environment.grow()
            return []
        if self._is_async:
            self._is_stuck = not self._set_back_all()
            return []
        self._is_stuck = False
        return self._refuse(batch)

    def _refuse(self, batch: Batch) -> list[Done]:
        """Give up the puts of a batch; what concerns stored deliveries takes its place."""
        self._forget(batch)
        relief = batch.relieve()
        relief.waiting = batch.waiting
        for key in relief.deliveries:
            self.staged.setdefault(key, relief)
        self.batches[0] = relief
        if not relief.operations and not relief.waiting:
            self.batches.pop(0)
        return batch.puts

    def _set_back_all(self) -> bool:
        """Put off all puts, which `async` has promised; False if there is nothing else to commit.

        What concerns stored deliveries goes first, in a batch of its own.
        """
        rest = self.batches[0]
        for later in self.batches[1:]:
            rest.join(later)
        relief = rest.relieve()
        self.batch = rest
        self.batches[:] = [relief, rest] if relief.operations else [rest]
        self.staged.clear()
        for batch in self.batches:
            self.staged.update(dict.fromkeys(batch.deliveries, batch))
        return len(self.batches) > 1

    def _tell_all(self, error: StoreError) -> None:
        for batch in self.batches:
            told, batch.puts, batch.waiting = batch.puts + batch.waiting, [], []
            for done in told:
                done(error)

    def _translate(self, error: Exception) -> StoreError:
        return error if isinstance(error, StoreError) else translate(error, self._environment.path)

    def _answer(self) -> None:
        """Tell the puts of this turn of the loop that they are staged (`async`)."""
        answers, self._answers = self._answers, []
        for done in answers:
            done(self.failure)
