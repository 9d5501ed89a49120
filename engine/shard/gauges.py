"""What a shard's metrics read when somebody looks: sessions, queues, window, store, process.

Owns: how the state of the engine's objects becomes numbers of the catalog.
Never: counts events (their owners do).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from engine.control.vitals import watch_process
from engine.queue.decide import decide
from engine.telemetry.labels import HeldLabels

if TYPE_CHECKING:
    from engine.shard.build import Engine

Reading = dict[tuple[str, ...], float]

NOTHING: tuple[str, ...] = ()


class Gauges:
    """Reads one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held_labels = HeldLabels(engine.labels)
        watch = engine.counters.watch
        watch("mailrail_sessions", self._sessions)
        watch("mailrail_ready", self._ready)
        watch("mailrail_held", self._held)
        watch("mailrail_holds_total", self._refusals)
        watch("mailrail_scheduled", self._scheduled)
        watch("mailrail_window_messages", lambda: {NOTHING: engine.window.count})
        watch("mailrail_window_bytes", lambda: {NOTHING: engine.window.size_bytes})
        watch("mailrail_store_used_bytes", lambda: {NOTHING: engine.store.room.map_used_bytes})
        watch("mailrail_store_free_ratio", self._free)
        watch("mailrail_store_operations_total", self._operations)
        watch("mailrail_lookups_total", lambda: {(r,): n for r, n in engine.resolver.counts.items()})
        watch("mailrail_sts_fetches_total", lambda: {(r,): n for r, n in engine.resolver.sts_counts.items()})
        watch(
            "mailrail_dane_lookups_total", lambda: {(r,): n for r, n in engine.resolver.dane_counts.items()}
        )
        watch("mailrail_bounce_messages_total", lambda: {NOTHING: engine.bouncer.made})
        watch_process(engine.counters, f"shard-{engine.shard}")

    def _sessions(self) -> Reading:
        label = self._engine.labels.peek
        found: Counter[tuple[str, ...]] = Counter()
        for session in self._engine.opener.sessions:
            phase = session.phase
            state = "idle" if phase == "idle" else "closing" if phase == "quit" else "busy"
            found[session.path.vmta, label(session.path.destination), state] += 1
        for path in self._engine.paths.paths.values():
            opening = sum(demand.opening for demand in path.sites.values())
            if opening:
                found[path.vmta, label(path.destination), "opening"] += opening
        return dict(found)

    def _ready(self) -> Reading:
        label = self._engine.labels.peek
        found: Counter[tuple[str, ...]] = Counter()
        for queue in self._engine.sites:
            found[queue.pool, label(queue.destination.name)] += len(queue.queue)
        return dict(found)

    def _scheduled(self) -> Reading:
        parts = self._engine.expiry.census.split(self._engine.store.count())
        return {(customer,): float(number) for customer, number in parts.items()}

    def _held(self) -> Reading:
        """Holds first: labels are few, and paths that back off may be many."""
        now = self._engine.loop.time()
        label = self._held_labels.label
        found: Reading = {}
        backing_off = []
        for path in self._engine.paths.paths.values():
            hold = path.hold_in_force(now)
            if hold is not None:
                found[path.vmta, label(path.destination, now), hold.reason] = 1.0
            elif any(demand.retry_at > now for demand in path.sites.values()):
                backing_off.append(path)
        for path in backing_off:
            if decide(path, now).reason.startswith("back-off"):
                found[path.vmta, label(path.destination, now), "back-off"] = 1.0
        return found

    def _refusals(self) -> Reading:
        return {(reason,): count for reason, count in self._engine.dispatcher.refusals.items()}

    def _free(self) -> Reading:
        room = self._engine.store.room
        map_free = 1.0 - room.map_used_bytes / room.map_size_bytes
        disk_free = room.disk_free_bytes / room.disk_size_bytes if room.disk_size_bytes else 0.0
        return {(str(self._engine.shard),): min(map_free, disk_free)}

    def _operations(self) -> Reading:
        stats = self._engine.store.stats
        return {("put",): stats.puts, ("all",): stats.operations}
