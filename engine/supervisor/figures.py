"""The shards' metrics, as last reported, kept when they die.

Each shard is asked every REPORT_INTERVAL_S and once more when somebody looks, so that a dead shard's
totals are those of at most REPORT_INTERVAL_S before its death; the sum over all incarnations never falls.

Owns: the asking, the last snapshot of every incarnation.
Never: formats (telemetry.exposition does).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine.core.errors import NetworkError
from engine.supervisor.slot import Slot
from engine.telemetry.log import Log

REPORT_INTERVAL_S = 2.0
REPORT_TIMEOUT_S = 1.0  # somebody waits: after this the last snapshot is good enough
HUNG_S = 120.0  # a loop that did not turn for so long won't; commits and signatures take milliseconds

log = Log("figures")

Keep = Callable[[int, bytes, Any], None]  # (shard, incarnation, snapshot)


class Figures:
    """Asks the shards for their metrics; `keep` gets every answer, `hung` a slot that gives none."""

    def __init__(self, slots: Sequence[Slot], keep: Keep, hung: Callable[[Slot], None]) -> None:
        self._slots = slots
        self._keep = keep
        self._hung = hung
        self._answered_at: dict[bytes, float] = {}

    async def watch(self) -> None:
        """Ask all shards for ever."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            await self.refresh()
            self._find_hung(time.monotonic())

    async def refresh(self) -> None:
        """Ask all shards once; those that don't answer in time keep their last snapshot."""
        await asyncio.gather(*[self._ask(slot) for slot in self._slots])

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
        self._keep(slot.shard, incarnation, answer)

    def _find_hung(self, now: float) -> None:
        alive = {slot.incarnation: slot for slot in self._slots if slot.incarnation is not None}
        self._answered_at = {each: at for each, at in self._answered_at.items() if each in alive}
        for incarnation, at in list(self._answered_at.items()):
            if now - at > HUNG_S:
                self._answered_at[incarnation] = now
                self._hung(alive[incarnation])
