"""Where the store's transaction runs: the ways of group commit, compared.

    python -m bench.store_commit [seconds per row]

    loop        begin, changes and commit on the loop: it stands still while the disk syncs
    thread      all three in a thread, which needs the interpreter some ten times a message
    split       begin and changes on the loop, only the commit in a thread
    packed      as split, with all messages of a commit in one record
    paced       as split; after a commit of n puts the next begins n half milliseconds later, at most 5

The number behind a way is the interpreter's switch interval in milliseconds (5 is Python's own).

The load is a loop as busy as an engine's. At each turn it works 100 microseconds; then a new message of 10 kB
is put, if fewer than 50 are on their way; one that was told is removed after 50 microseconds more; there are
500 queues.
So the loop is never idle, and the rate says what the store leaves of it. The processor's time is without
that work, for one put and one removal; it means little where almost nothing got through. `turn` is how long a
turn of the loop takes at worst (p99.9): what every session waits. `alone` is one client, without work.

2026-11-22, 2-core virtual machine, ext4, an fdatasync takes 0.2 ms; CPython 3.11, uvloop, LMDB 0.9.36:

                messages/s  CPU µs/msg puts/commit    told p50    told p99  commit p99        turn   alone p50
  loop 5              2165       157.9         1.0        0.29        0.43        0.41        0.69        0.35
  thread 5               0           -         0.5     2498.47     2501.73     2187.06        0.16        0.30
  thread 0.02         5728        64.4         7.3        1.60        5.29        2.59        0.51        0.34
  packed 0.02         5626        61.4         4.5        0.92        1.56        0.87        0.28        0.35
  split 5               34           -         7.6      461.68     2029.53     1069.94        0.20        0.33
  split 0.2             47           -        14.6      853.11     1283.21      755.72        0.18        0.32
  split 0.02          5697        60.7         4.6        0.94        2.02        0.87        0.28        0.33
  paced 5              112           -        16.5        4.48     2134.12     1692.43        0.34        0.35
  paced 0.02          5895        28.8        29.4        3.43        5.97        1.97        0.38        0.33

What decides is the switch interval. A loop that is never idle gives the interpreter up at each of its turns
and takes it back within a microsecond; the thread that waits is woken each time, finds it taken and begins
its interval anew. It only asks for its turn when a whole interval has passed undisturbed, so an interval
longer than a turn starves it. Shorter, thread and loop hand over within some 50 microseconds, three times a
commit.

Then pacing halves the cost of a message. The whole transaction on the loop needs no handing over, but commits
each message by itself here, and stands still for as long as the disk takes: 0.2 ms on this one, 10 on others.
Packing messages gains nothing, since a put is the cheapest part. `engine/store/group.py` is `paced 0.02`.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import uvloop

from engine.core.envelope import Delivery, Envelope, MessageIds
from engine.store.batch import Batch
from engine.store.commit import Writer
from engine.store.environment import Environment, StoreOptions

CLIENTS = 50
QUEUES = 500
MESSAGE = (b"Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do.\r\n" * 200)[:10_000]
WORK_BEFORE_S = 0.000100
WORK_AFTER_S = 0.000050
PACE_PER_PUT_S = 0.0005
PACE_S = 0.005
LINGER_S = 0.010
ROWS = (
    ("loop", 5.0),
    ("thread", 5.0),
    ("thread", 0.02),
    ("packed", 0.02),
    ("split", 5.0),
    ("split", 0.2),
    ("split", 0.02),
    ("paced", 5.0),
    ("paced", 0.02),
)


class Group:
    """The least group commit that can tell the ways apart."""

    def __init__(self, environment: Environment, loop: asyncio.AbstractEventLoop, way: str) -> None:
        self.environment, self.loop, self.way = environment, loop, way
        self.writer = Writer(environment.tables)
        self.batch = Batch()
        self.is_busy = False
        self.handle: asyncio.Handle | None = None
        self.last_begin = self.pace_s = 0.0
        self.commits = 0
        self.commit_s: list[float] = []
        self.segments: dict[bytes, list] = {}  # packed: message id to [key of the record, messages left]
        self.jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self.run_jobs, daemon=True)
        self.thread.start()

    def put(self, delivery: Delivery, done: Callable[[None], None]) -> None:
        self.batch.put([delivery], MESSAGE)
        self.batch.puts.append(done)
        if not self.is_busy and len(self.batch.puts) == 1:
            self.arm(self.last_begin + self.pace_s - self.loop.time())

    def remove(self, delivery: Delivery) -> None:
        self.batch.remove(delivery)
        if not self.is_busy and self.handle is None:
            self.arm(LINGER_S)

    def arm(self, delay_s: float) -> None:
        if self.handle is not None:
            self.handle.cancel()
        if delay_s < 0.001:
            self.handle = self.loop.call_soon(self.begin)
        else:
            self.handle = self.loop.call_later(delay_s, self.begin)

    def begin(self) -> None:
        self.handle, self.is_busy = None, True
        batch, self.batch = self.batch, Batch()
        self.last_begin, began = self.loop.time(), time.perf_counter()
        if self.way == "paced":
            self.pace_s = min(PACE_S, PACE_PER_PUT_S * len(batch.puts))
        finish = partial(self.finish, batch, began)
        if self.way == "loop":
            self.write(batch).commit()
            finish()
        elif self.way == "thread":
            self.jobs.put(lambda: (self.write(batch).commit(), self.loop.call_soon_threadsafe(finish)))
        else:
            txn = self.write(batch)
            self.jobs.put(lambda: (txn.commit(), self.loop.call_soon_threadsafe(finish)))

    def write(self, batch: Batch):
        txn = self.environment.lmdb.begin(write=True)
        if self.way == "packed":
            self.pack(txn, batch)
        self.writer.write(txn, batch, 0.0)
        return txn

    def pack(self, txn, batch: Batch) -> None:
        for key, record in batch.deliveries.items():
            if record is None and (segment := self.segments.pop(key[:12], None)):
                segment[1] -= 1
                if not segment[1]:
                    txn.delete(segment[0], db=self.environment.tables.bodies)
        if batch.bodies:
            segment = [b"segment" + min(batch.bodies), len(batch.bodies)]
            self.segments |= dict.fromkeys(batch.bodies, segment)
            batch.bodies = {segment[0]: b"".join(batch.bodies.values())}

    def finish(self, batch: Batch, began: float) -> None:
        self.is_busy = False
        self.commits += 1
        self.commit_s.append(time.perf_counter() - began)
        if self.batch.puts:
            self.arm(self.last_begin + self.pace_s - self.loop.time())
        elif self.batch.operations:
            self.arm(LINGER_S)
        for done in batch.puts:
            done(None)

    def run_jobs(self) -> None:
        while (job := self.jobs.get()) is not None:
            job()


class Load:
    """A loop that always works: at each turn 100 microseconds, and one message further where one can go."""

    def __init__(self, group: Group, in_flight: int, has_work: bool) -> None:
        self.group, self.room, self.has_work = group, in_flight, has_work
        self.ids = MessageIds(0, b"load")
        self.told: deque[Delivery] = deque()
        self.told_s: list[float] = []
        self.turn_s: list[float] = []
        self.last_turn = 0.0
        self.work_s = 0.0
        self.is_over = False

    async def run(self, seconds: float) -> tuple[float, float]:
        """Return wall and processor seconds, those of the work taken off."""
        self.last_turn = wall = time.perf_counter()
        cpu = time.process_time()
        self.turn()
        await asyncio.sleep(seconds)
        self.is_over = True
        return time.perf_counter() - wall, time.process_time() - cpu - self.work_s

    def turn(self) -> None:
        now = time.perf_counter()
        self.turn_s.append(now - self.last_turn)
        self.last_turn = now
        if self.told:
            self.work(WORK_AFTER_S)
            self.group.remove(self.told.popleft())
            self.room += 1
        self.work(WORK_BEFORE_S)
        if self.room:
            self.room -= 1
            self.put()
        if not self.is_over and (self.has_work or self.room):
            self.group.loop.call_soon(self.turn)

    def put(self) -> None:
        now = time.time()
        envelope = Envelope("a@acme.example", "acme", "acme", now, len(MESSAGE), "smtp")
        domain = f"d{len(self.told_s) % QUEUES}.example"
        delivery = Delivery(self.ids.make(now), 0, envelope, domain, [f"u@{domain}"], now)
        self.group.put(delivery, partial(self.tell, delivery, time.perf_counter()))

    def tell(self, delivery: Delivery, began: float, _: None) -> None:
        self.told_s.append(time.perf_counter() - began)
        self.told.append(delivery)
        if not self.has_work and not self.is_over:
            self.turn()

    def work(self, seconds: float) -> None:
        """Burn processor time of this thread: waiting for the interpreter is not work."""
        began = time.thread_time()
        while self.has_work and time.thread_time() - began < seconds:
            pass
        self.work_s += time.thread_time() - began


def quantile(values: list[float], share: float) -> float:
    """Return the quantile in milliseconds."""
    return sorted(values)[int(len(values) * share)] * 1e3 if values else 0.0


async def measure(way: str, clients: int, has_work: bool, seconds: float) -> dict[str, float]:
    """Run one load over one way on a store of its own."""
    path = Path(tempfile.mkdtemp(prefix="store-commit-", dir="."))
    environment = Environment(path, StoreOptions(map_size_bytes=8 << 30))
    environment.open()
    group = Group(environment, asyncio.get_running_loop(), way)
    load = Load(group, clients, has_work)
    try:
        wall_s, cpu_s = await load.run(seconds)
        messages = len(load.told_s)
        while group.is_busy or group.handle is not None:
            await asyncio.sleep(0.01)
    finally:
        group.jobs.put(None)
        group.thread.join()
        environment.close()
        shutil.rmtree(path)
    return {
        "rate": messages / wall_s,
        "cpu_us": cpu_s / messages * 1e6,
        "puts": messages / group.commits,
        "told_p50": quantile(load.told_s, 0.5),
        "told_p99": quantile(load.told_s, 0.99),
        "commit_p99": quantile(group.commit_s, 0.99),
        "turn_p99": quantile(load.turn_s, 0.999),
    }


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.5
    heads = (
        "",
        "messages/s",
        "CPU µs/msg",
        "puts/commit",
        "told p50",
        "told p99",
        "commit p99",
        "turn",
        "alone p50",
    )
    print("".join(f"{head:>12}" for head in heads) + "   (ms)")
    for way, switch_ms in ROWS:
        sys.setswitchinterval(switch_ms / 1000)
        row = uvloop.run(measure(way, CLIENTS, True, seconds))
        alone = uvloop.run(measure(way, 1, False, seconds / 3))
        print(
            f"{way + ' ' + format(switch_ms, 'g'):12}"
            f"{row['rate']:12.0f}{row['cpu_us']:12.1f}{row['puts']:12.1f}"
            f"{row['told_p50']:12.2f}{row['told_p99']:12.2f}{row['commit_p99']:12.2f}{row['turn_p99']:12.2f}"
            f"{alone['told_p50']:12.2f}"
        )


if __name__ == "__main__":
    main()
