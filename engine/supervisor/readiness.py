"""Whether the engine serves, as systemd and the log are told.

    begun    no shard up: STATUS says why      a shard comes up: READY, and STATUS from then on
    ready    for good, except for the time of a reload (RELOADING, then READY again)

An engine of which no shard has come up yet is not ready: who started it waits, for as long as its
TimeoutStartSec says, and sees the reason. One that was ready stays so, whatever becomes of its shards: they
are restarted here, and systemd could do no more.

Owns: what systemd was told last.
Never: restarts a shard, ends the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.supervisor.notify import notify_ready, notify_reloading, notify_status, notify_stopping
from engine.supervisor.slot import Slot
from engine.telemetry.log import Log

log = Log("supervisor")


class Readiness:
    """What is said of the state of all slots."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._is_watching = False  # the first outcome of every slot is in, and nobody has asked for the end
        self._is_ready = False

    def begin(self) -> None:
        """Every slot has been up or has failed once: from now on what changes is told."""
        self._is_watching = True
        self.changed()
        if not self._is_ready:
            log.error("no shard serves yet, they are tried again", reason=self._describe_down())

    def changed(self) -> None:
        """A shard came up or went down."""
        if not self._is_watching:
            return
        if self._is_ready or not self._up:
            notify_status(self.describe())
            return
        self._is_ready = True
        log.info("serving", shards=len(self._slots), up=self._up)
        notify_ready(self.describe())

    def reloading(self) -> None:
        """A reload begins."""
        if self._is_ready:
            notify_reloading()

    def reloaded(self, generation: int) -> None:
        """A reload has ended, this generation is in force."""
        if self._is_watching and self._is_ready:
            notify_ready(f"{self.describe()}, generation {generation}")

    def stop(self) -> None:
        """The end was asked for."""
        self._is_watching = False
        notify_stopping()

    def describe(self) -> str:
        """Return how many shards are up, and what became of the others."""
        down = self._describe_down()
        return f"{self._up} of {len(self._slots)} shards up" + (f": {down}" if down else "")

    @property
    def _up(self) -> int:
        return sum(slot.is_up for slot in self._slots)

    def _describe_down(self) -> str:
        """Return the reasons, each once, with the shards that it is of."""
        shards: dict[str, list[str]] = {}
        for slot in self._slots:
            if not slot.is_up:
                shards.setdefault(slot.refusal or slot.last_death, []).append(str(slot.shard))
        return "; ".join(f"shard {', '.join(of)}: {reason or 'starting'}" for reason, of in shards.items())
