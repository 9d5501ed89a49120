"""Mail of damaged environments, brought back into the shard's store while it serves.

Each directory in quarantine that is this shard's and has no report is read by a process of its own. What
it remembers (claims, ids, replies) comes first, before anything is accepted here, then messages, as fast as
commits go. Deliveries that are here, or were and left within 24 hours, are refused as duplicates, so all of
it may be cut short by a death and begun again.

Owns: those processes; what is told of their end.
Never: opens a damaged file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.envelope import Delivery
from engine.core.errors import StoreError, StoreUnhealthy
from engine.store.quarantine import Quarantined, finish_salvage, list_quarantined
from engine.store.records import Duplicate
from engine.store.restore import decode_message
from engine.store.salvage import HEAD_BYTES, Item, command, parse_item
from engine.telemetry.log import Log

if TYPE_CHECKING:
    from engine.shard.build import Engine

MEMORY_WAIT_S = (
    30.0  # half of what the supervisor allows for a start; after that, duplicates are the lesser evil
)
MAX_UNDER_WAY = 50  # messages put and not committed yet
RESTORE_SLICE = 500  # claims, ids and replies in one commit
MAX_LOST = 100_000  # deliveries that are named; more are counted
FULL_PAUSE_S = 5.0
AGAIN_S = 60.0  # after a reader that did not come to its end
MAX_BROKEN_OFF = 10  # such readers; what ends so many ends the next one as well

Items = Callable[[Path], AsyncIterator[Item]]

log = Log("salvage")


async def read_items(place: Path) -> AsyncIterator[Item]:
    """Yield the items that a process of its own reads from a damaged environment."""
    reader = await asyncio.create_subprocess_exec(
        *command(place), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    assert reader.stdout is not None
    try:
        while True:
            try:
                head = await reader.stdout.readexactly(HEAD_BYTES)
                octets = await reader.stdout.readexactly(int.from_bytes(head, "big"))
            except asyncio.IncompleteReadError:
                return
            yield parse_item(octets)
    finally:
        if reader.returncode is None:
            reader.kill()
        await reader.wait()


class Salvages:
    """Everything of this shard that is in quarantine and not salvaged yet."""

    def __init__(self, engine: Engine, data_dir: Path, items: Items = read_items) -> None:
        self._engine = engine
        self._data_dir = data_dir
        self._items = items
        self._found: dict[Path, Salvage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_put = asyncio.Event()

    async def open(self) -> None:
        """Begin to read, and wait until what they remember is stored here."""
        fresh = self._look()
        if not fresh:
            return
        waiting = [asyncio.ensure_future(each.has_memory.wait()) for each in fresh]
        _, late = await asyncio.wait(waiting, timeout=MEMORY_WAIT_S)
        for each in late:
            each.cancel()
        if late:
            log.warning("serving before all that is remembered was read", stores=len(late))

    def begin(self) -> None:
        """Put messages from now on: the shard delivers. Look again for what has come to quarantine."""
        self._may_put.set()
        self._look()

    def close(self) -> None:
        """Stop; what was not put is put by the next process."""
        for task in self._tasks:
            task.cancel()

    def _look(self) -> list[Salvage]:
        engine = self._engine
        fresh = []
        for place in list_quarantined(self._data_dir):
            is_ours = place.shard % engine.shards == engine.shard
            if is_ours and place.report is None and place.path not in self._found:
                salvage = Salvage(engine, place, self._items, self._may_put)
                self._found[place.path] = salvage
                fresh.append(salvage)
                task = engine.loop.create_task(salvage.run())
                self._tasks.add(task)
                task.add_done_callback(self._ended)
        return fresh

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "salvage failed", "exception": error}
            self._engine.loop.call_exception_handler(context)


class Salvage:
    """One environment in quarantine on its way back."""

    def __init__(self, engine: Engine, place: Quarantined, items: Items, may_put: asyncio.Event) -> None:
        self._engine = engine
        self._place = place
        self._items = items
        self._may_put = may_put
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self.has_memory = asyncio.Event()  # or it never will have
        self._lost: list[dict[str, Any]] = []
        self._seen: set[str] = set()  # lost ones told in an earlier run of this process
        self._was_refused = False  # a commit had no room for some of it
        self._broken_off = 0  # readers that did not come to their end
        self._counts = {"restored": 0, "known": 0, "lost": 0}

    async def run(self) -> None:
        """Bring back all that can be read, and put on record that it was."""
        log.warning("salvaging", store=str(self._place.path), reason=self._place.reason)
        try:
            while not await self._read():
                if self._broken_off >= MAX_BROKEN_OFF:
                    log.error("salvage broke off too often, not begun again", store=str(self._place.path))
                    return
                log.error("salvage broke off, begun again", store=str(self._place.path), in_s=AGAIN_S)
                self.has_memory.set()
                await asyncio.sleep(AGAIN_S)
        except StoreUnhealthy as error:
            log.error("salvage waits for the next start", store=str(self._place.path), error=str(error))
        finally:
            self.has_memory.set()

    async def _read(self) -> bool:
        """Take the items of one run of the reader; False where it did not come to its end."""
        self._lost, self._counts, self._was_refused = [], dict.fromkeys(self._counts, 0), False
        restored = 0
        async for item in self._items(self._place.path):
            if item[0] == "message":
                await self._put(item)
            elif item[0] == "lost":
                self._lose(item[1])
            elif item[0] == "memory":
                await self._durable()
                self.has_memory.set()
                await self._may_put.wait()
            elif item[0] == "end":
                return await self._finish(item[1])
            else:
                self._engine.store.restore(item[0], item[1], item[2])
                restored += 1
                if restored % RESTORE_SLICE == 0:
                    await self._durable()
        self._broken_off += 1
        return False

    async def _put(self, item: Item) -> None:
        """Store a message here, once; waits for room."""
        await self._room.acquire()
        store = self._engine.store
        deliveries, message = decode_message(item)
        fresh = [each for each in deliveries if not (store.is_stored(each.key) or store.remembered(each.key))]
        self._count("known", len(deliveries) - len(fresh))
        if not fresh:
            self._room.release()
            return

        def done(error: StoreError | None) -> None:
            self._room.release()
            self._settle(fresh, error)

        while True:
            try:
                store.put(fresh, message, done, is_forwarded=True)
                return
            except StoreUnhealthy:
                raise
            except StoreError as error:  # full, or just being stored
                log.warning("salvage waits", store=str(self._place.path), reason=str(error))
                await asyncio.sleep(FULL_PAUSE_S)

    def _settle(self, deliveries: list[Delivery], error: StoreError | None) -> None:
        if error is None:
            self._count("restored", len(deliveries))
            for delivery in deliveries:
                self._engine.readahead.arrived(delivery)
        elif isinstance(error, Duplicate):
            self._count("known", len(deliveries))
        else:
            self._was_refused = True

    def _lose(self, facts: dict[str, Any]) -> None:
        self._count("lost", 1)
        if len(self._lost) < MAX_LOST:
            self._lost.append(facts)
        if facts["delivery"] not in self._seen:
            log.error("accepted mail lost", store=str(self._place.path), **facts)
            if len(self._seen) < MAX_LOST:
                self._seen.add(facts["delivery"])

    def _count(self, result: str, count: int) -> None:
        self._counts[result] += count
        self._engine.counters.counter("mailrail_salvaged_total", result=result)[0] += count

    async def _finish(self, facts: dict[str, Any]) -> bool:
        """Wait for what is under way; False where some of it found no room."""
        for _ in range(MAX_UNDER_WAY):
            await self._room.acquire()
        for _ in range(MAX_UNDER_WAY):
            self._room.release()
        await self._durable()
        if self._was_refused:
            return False
        report = {**self._counts, "damage": facts["damage"], "has_past": facts["has_past"]}
        try:
            finish_salvage(self._place.path, report, self._lost)
        except OSError as error:
            log.error("salvage not put on record", store=str(self._place.path), error=str(error))
            return False
        tell = log.error if self._counts["lost"] else log.warning
        tell("salvaged", store=str(self._place.path), **report)
        return True

    async def _durable(self) -> None:
        future: asyncio.Future[None] = self._engine.loop.create_future()

        def done(error: StoreError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self._engine.store.when_durable(done)
        await future
