"""The metrics of all processes: asked for, and kept when a shard dies.

Each shard is asked every REPORT_INTERVAL_S and once more when somebody looks, so that a dead shard's
totals are those of at most REPORT_INTERVAL_S before its death; the sum over all incarnations never falls.

Owns: the asking, the supervisor's own counters.
Never: adds up or formats (telemetry.exposition does).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from engine.control.vitals import watch_process
from engine.core.errors import NetworkError
from engine.supervisor.slot import Slot
from engine.telemetry.exposition import CONTENT_TYPE, SUPERVISOR, Exposition
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

REPORT_INTERVAL_S = 2.0
REPORT_TIMEOUT_S = 1.0  # somebody waits: after this the last snapshot is good enough
HUNG_S = 120.0  # a loop that did not turn for so long won't; commits and signatures take milliseconds

log = Log("figures")


class Figures:
    """Metrics of the engine; `hung` is told of a slot that has not answered for HUNG_S."""

    def __init__(self, slots: Sequence[Slot], hung: Callable[[Slot], None]) -> None:
        self._slots = slots
        self._hung = hung
        self._exposition = Exposition()
        self._answered_at: dict[bytes, float] = {}
        self.counters = Counters()
        watch_process(self.counters, "supervisor")

    async def watch(self) -> None:
        """Ask all shards for ever."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            await self.refresh()
            self._find_hung(time.monotonic())

    async def refresh(self) -> None:
        """Ask all shards once; those that don't answer in time keep their last snapshot."""
        await asyncio.gather(*[self._ask(slot) for slot in self._slots])

    async def format(self) -> tuple[bytes, str]:
        """Return the page of all metrics as they are now, and its content type."""
        await self.refresh()
        self._exposition.keep(SUPERVISOR, b"", self.counters.snapshot())
        return self._exposition.format(), CONTENT_TYPE

    def end(self, shard: int) -> None:
        """A shard's process is dead: its totals stay, its gauges go."""
        self._exposition.end(shard)
        self.counters.counter("mailrail_shard_restarts_total", shard=str(shard))[0] += 1

    async def _ask(self, slot: Slot) -> None:
        incarnation = slot.incarnation
        if incarnation is None:
            return
        self._answered_at.setdefault(incarnation, time.monotonic())
        try:
            answer = await slot.request("report", {}, REPORT_TIMEOUT_S)
        except NetworkError as error:
            log.debug("shard did not report", shard=slot.shard, error=str(error))
            return
        self._answered_at[incarnation] = time.monotonic()
        self._exposition.keep(slot.shard, incarnation, answer)

    def _find_hung(self, now: float) -> None:
        alive = {slot.incarnation: slot for slot in self._slots if slot.incarnation is not None}
        self._answered_at = {each: at for each, at in self._answered_at.items() if each in alive}
        for incarnation, at in list(self._answered_at.items()):
            if now - at > HUNG_S:
                self._answered_at[incarnation] = now
                self._hung(alive[incarnation])
