"""A loop that stands still, stores on it, deliveries to put."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from engine.core.envelope import Delivery, Envelope, MessageIds
from engine.store.environment import StoreOptions
from engine.store.image import StoreImage
from engine.store.lmdb import Store
from engine.store.pages import BIG_VALUE, page_number, parse_leaf
from engine.store.walk import named_tables

PAGE_BYTES = 4096
UNIX_START = 1_700_000_000.0
SMALL = {"min_free_bytes": 0, "min_free_fraction": 0.0, "lock_wait_s": 0.0, "map_size_bytes": 64 << 20}


class Handle:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.is_cancelled = at, call, False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualLoop:
    """What the store uses of a loop; time moves when a test says so or `run_until` has nothing else to do."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._soon: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._threads: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._count = itertools.count()
        self.commits_under_way: Callable[[], bool] = lambda: False

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., None], *args: Any) -> Handle:
        handle = Handle(self.now, lambda: call(*args))
        self._soon.append(handle)
        return handle

    def call_at(self, at: float, call: Callable[..., None], *args: Any) -> Handle:
        handle = Handle(at, lambda: call(*args))
        heapq.heappush(self._timers, (at, next(self._count), handle))
        return handle

    def call_soon_threadsafe(self, call: Callable[..., None], *args: Any) -> None:
        self._threads.put(lambda: call(*args))

    def turn(self) -> bool:
        """Run what is ready; False if nothing was."""
        ran = False
        while self._soon or (self._timers and self._timers[0][0] <= self.now):
            handle = self._soon.popleft() if self._soon else heapq.heappop(self._timers)[2]
            ran = True
            if not handle.is_cancelled:
                handle.call()
        return ran

    def run_until(self, is_over: Callable[[], bool], is_committing: Callable[[], bool]) -> None:
        """Run, wait for the commit thread, move the clock to the next timer: until `is_over`."""
        for _ in range(100_000):
            self.turn()
            if is_over():
                return
            if is_committing():
                self._threads.get(timeout=30)()
            elif self._timers:
                self.now = max(self.now, self._timers[0][0])
            else:
                raise AssertionError("the loop has nothing left to do")
        raise AssertionError("no end")


class Harness:
    """A store on a loop that stands still, and what its callbacks were told."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.loop = ManualLoop()
        self.unix_now = UNIX_START
        self.told: list[object] = []
        self.puts = 0
        self.damaged: list[tuple[bytes, str]] = []
        self.mended: list[str] = []
        self.unhealthy: list[Exception] = []
        self.commits_s: list[float] = []
        self.journal = options.pop("journal", None)
        self.path = path
        self.store = Store(
            path,
            loop=self.loop,  # type: ignore[arg-type]
            options=StoreOptions(**{**SMALL, **options}),
            journal=self.journal,
            clock=lambda: self.unix_now,
            on_damaged=lambda key, detail: self.damaged.append((key, detail)),
            on_mended=self.mended.extend,
            on_unhealthy=self.unhealthy.append,
            observe_commit_s=self.commits_s.append,
        )
        self.store.open()

    def put(self, *deliveries: Delivery, **extra: Any) -> None:
        """Stage one message; what it is told is appended to `told`."""
        self.puts += 1
        self.store.put(list(deliveries), deliveries[0].message, self.told.append, **extra)

    def put_now(self, *deliveries: Delivery, **extra: Any) -> None:
        """Put and wait until it is durable."""
        self.put(*deliveries, **extra)
        self.commit()

    def commit(self) -> None:
        """Return when everything staged is durable, or was refused."""
        over: list[object] = []
        self.store.when_durable(over.append)
        self.run_until(lambda: bool(over))

    def run_until(self, is_over: Callable[[], bool]) -> None:
        self.loop.run_until(is_over, lambda: self.store._group._committing is not None)

    def are_all_told(self) -> bool:
        """Say whether every put has been told."""
        return len(self.told) == self.puts

    def heads(self) -> list[tuple[int, bytes]]:
        return self.store.due_queues(b"", 1 << 62, 1 << 30)

    def stored_keys(self) -> list[bytes]:
        return [key for _, _, key in self.store.schedule_slice(b"", 1 << 30)]


@pytest.fixture
def open_harness(tmp_path: Path) -> Iterator[Callable[..., Harness]]:
    """Return a function that opens a store in `tmp_path`; all are closed at the end."""
    opened: list[Harness] = []

    def open_it(name: str = "store", **options: Any) -> Harness:
        opened.append(Harness(tmp_path / name, **options))
        return opened[-1]

    yield open_it
    for harness in opened:
        harness.store.close()


@pytest.fixture(scope="session")
def harness_type() -> type[Harness]:
    """Return the class, for tests that open stores many times over."""
    return Harness


@pytest.fixture
def harness(open_harness: Callable[..., Harness]) -> Harness:
    return open_harness()


@pytest.fixture
def make() -> Callable[..., Delivery]:
    """Return a function that makes deliveries of messages of their own."""
    ids = MessageIds(3, b"inst")

    def make_delivery(
        domain: str = "x.example",
        *,
        customer: str = "acme",
        due_at: float = UNIX_START,
        message: bytes = b"Subject: hi\r\n\r\nhello\r\n",
        sibling_of: Delivery | None = None,
        index: int = 0,
    ) -> Delivery:
        if sibling_of is not None:
            message_id, envelope, message = sibling_of.message_id, sibling_of.envelope, sibling_of.message
        else:
            message_id = ids.make(UNIX_START)
            envelope = Envelope("news@acme.example", customer, "pool", UNIX_START, len(message), "smtp")
        return Delivery(message_id, index, envelope, domain, [f"user@{domain}"], due_at, message)

    return make_delivery


class Damaged:
    """A store of some deliveries, closed, whose file a test damages."""

    def __init__(self, harness: Harness, deliveries: list[Delivery]) -> None:
        self.path = harness.path
        self.data = harness.path / "data.mdb"
        self.deliveries = {delivery.key: delivery for delivery in deliveries}

    def page_of(self, table: str, kind: str = "leaf") -> int:
        """Return a page of a table: its `root`, a `leaf`, or the first page of a `big` value."""
        image = StoreImage(self.data)
        try:
            (main,) = [meta.main.root for meta in (image.file.newest,) if meta]
            root = named_tables(image.file, [main])[table].root
            leaf = image.leaves[table][len(image.leaves[table]) // 2].number
            if kind != "big":
                return root if kind == "root" else leaf
            numbers = [number for _, number in image.leaves[table]]
            nodes = [node for n in numbers for node in parse_leaf(image.file.read_tree_page(n))[0]]
            return next(page_number(node.data) for node in nodes if node.flags & BIG_VALUE)
        finally:
            image.close()

    def zero(self, page: int, count: int = 1) -> None:
        """Overwrite pages with zeros."""
        self.write(page * PAGE_BYTES, bytes(count * PAGE_BYTES))

    def flip(self, page: int, at: int) -> None:
        """Flip one bit of a page."""
        octets = self.data.read_bytes()
        self.write(page * PAGE_BYTES + at, bytes([octets[page * PAGE_BYTES + at] ^ 0x10]))

    def write(self, at: int, octets: bytes) -> None:
        with self.data.open("r+b") as file:
            file.seek(at)
            file.write(octets)


@pytest.fixture
def fill(open_harness: Callable[..., Harness], make: Callable[..., Delivery]) -> Callable[..., Damaged]:
    """Return a function that fills a store with messages, takes some away again and closes it."""

    def fill_it(count: int = 400, removed: int = 100, name: str = "shard-0") -> Damaged:
        harness = open_harness(name)
        deliveries = []
        for number in range(count):
            size = (200, 1500, 6000)[number % 3]
            deliveries.append(make(f"d{number % 20}.example", message=b"x" * size))
            harness.put(deliveries[-1], claim=f"claim-{number}" if number % 50 == 49 else "")
            if number % 40 == 39:
                harness.commit()
        for delivery in deliveries[:removed]:
            delivery.is_remembered = True
            harness.store.remove(delivery)
        harness.commit()
        harness.store.close()
        return Damaged(harness, deliveries[removed:])

    return fill_it
