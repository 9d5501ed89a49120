"""scan: the first pass has no pauses, later ones leave the loop alone, and no queue is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.delivery.scan import HURRIED_SLICE, PAUSE_S, SLICE, SLICE_S, STEP, Scan
from tests.fakes.virtual_loop import START, VirtualLoop, run_virtually

Heads = list[tuple[int, bytes]]
UNIX = 1_700_000_000.0


class Queues:
    """So many queues, one becoming due each millisecond before now."""

    def __init__(self, count: int) -> None:
        now_ms = int(UNIX * 1000)
        self.heads = [(now_ms - count + n, f"acme\0d{n}.example\0".encode()) for n in range(count)]

    def due_queues(self, after: bytes, now_ms: int, limit: int) -> Heads:
        behind = [head for head in self.heads if head[0].to_bytes(8, "big") + head[1] > after]
        return [head for head in behind if head[0] <= now_ms][:limit]


class Notes:
    """What a scan finds, and when."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_paused = False
        self.passes: list[list[bytes]] = []
        self.began: list[float] = []
        self.ended: list[float] = []
        self.looks: list[int] = []
        self.fresh: list[bytes] = []
        self.on_look: Callable[[], None] = lambda: None

    def begin_pass(self) -> None:
        self.passes.append([])
        self.began.append(self.loop.time())

    def begin_slice(self) -> None:
        self.looks.append(0)

    def look(self, heads: Heads, now_ms: int) -> None:
        self.passes[-1] += [queue for _, queue in heads]
        self.looks[-1] += len(heads)
        self.on_look()

    def look_fresh(self, heads: Heads, now_ms: int) -> None:
        self.fresh += [queue for _, queue in heads]

    def end_pass(self) -> None:
        self.ended.append(self.loop.time())


def make_scan(store: Queues) -> tuple[Scan, Notes]:
    loop = asyncio.get_running_loop()
    notes = Notes()
    return Scan(store, lambda: UNIX + loop.time() - START, notes), notes


def test_first_pass_goes_on_at_every_turn_of_the_loop() -> None:
    async def main() -> None:
        scan, notes = make_scan(Queues(5 * HURRIED_SLICE))
        scan.start()
        await asyncio.sleep(PAUSE_S)
        assert notes.ended == [START]  # no time has passed: other work had its turns, and no pauses
        assert notes.looks == [HURRIED_SLICE] * 5 + [0]
        scan.close()

    run_virtually(main())


def test_every_queue_is_looked_at_once_in_a_pass() -> None:
    async def main() -> None:
        store = Queues(2 * HURRIED_SLICE + 7)
        scan, notes = make_scan(store)
        scan.start()
        await asyncio.sleep(10.0)
        assert len(notes.ended) > 2
        for looked_at in notes.passes[: len(notes.ended)]:
            assert looked_at == [queue for _, queue in store.heads]
        scan.close()

    run_virtually(main())


def test_later_passes_pause_between_slices() -> None:
    async def main() -> None:
        scan, notes = make_scan(Queues(3 * SLICE))
        scan.start()
        await asyncio.sleep(1.0)
        assert notes.ended[1] - notes.began[1] > 2.5 * PAUSE_S
        scan.close()

    run_virtually(main())


def test_slice_ends_when_its_time_is_over_and_the_next_goes_on_there() -> None:
    async def main() -> None:
        store = Queues(4 * STEP + 3)
        scan, notes = make_scan(store)
        loop = notes.loop
        assert isinstance(loop, VirtualLoop)
        notes.on_look = lambda: loop._pass(SLICE_S * 0.7)  # each first queue of a site costs a lot
        scan.start()
        while not notes.ended:
            await asyncio.sleep(0)
        assert notes.passes[0] == [queue for _, queue in store.heads]
        assert notes.looks[:3] == [2 * STEP, 2 * STEP, 3]
        scan.close()

    run_virtually(main())


def test_restart_does_not_wait_for_the_next_pass() -> None:
    async def main() -> None:
        scan, notes = make_scan(Queues(10))
        notes.on_look = lambda: notes.loop._pass(1.0)  # type: ignore[attr-defined]
        scan.start()
        await asyncio.sleep(0.05)
        assert len(notes.ended) == 1  # and a pass of a second is followed by a pause of twenty
        scan.restart()
        await asyncio.sleep(0.05)
        assert len(notes.ended) == 2
        scan.close()

    run_virtually(main())


def test_while_paused_nothing_is_looked_at() -> None:
    async def main() -> None:
        scan, notes = make_scan(Queues(10))
        notes.is_paused = True
        scan.start()
        await asyncio.sleep(5.0)
        assert not notes.passes
        notes.is_paused = False
        await asyncio.sleep(0.2)
        assert len(notes.passes[0]) == 10
        scan.close()

    run_virtually(main())


def test_what_becomes_due_meanwhile_is_told_apart() -> None:
    async def main() -> None:
        store = Queues(10)
        scan, notes = make_scan(store)
        scan.start()
        store.heads.append((int((UNIX + 0.5) * 1000), b"acme\0new.example\0"))
        await asyncio.sleep(0.65)
        assert notes.fresh == [b"acme\0new.example\0"]
        scan.close()

    run_virtually(main())
