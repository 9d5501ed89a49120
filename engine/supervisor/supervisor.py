"""The process above the shards.

It opens every listening socket once and gives all shards a copy, so that a shard that is dead or busy
keeps no client waiting: the others accept. It restarts shards that die, tells their peers, counts what
they died on, brings new configurations to them, and stops them within a grace.

Owns: the plan, the slots, the listening sockets, the assignment of vmtas.
Never: touches a message; what it does not do can't lose one.
Fails: ConfigError when the start or a reload is refused.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from engine.core.errors import ConfigError, NetworkError, Origin
from engine.loading import Model, Texts, build_model, load_texts
from engine.store.quarantine import mark_damaged
from engine.supervisor.assignments import Assignment, deal_vmtas, load_assignment, store_assignment
from engine.supervisor.data_dir import DataDir
from engine.supervisor.directories import make_directories
from engine.supervisor.figures import Figures
from engine.supervisor.listeners import Listeners, Place, admin_place, listener_place
from engine.supervisor.plan import Plan
from engine.supervisor.poison import PoisonRecord, read_step, take_step
from engine.supervisor.process import ShardProcess, describe_death
from engine.supervisor.readiness import Readiness
from engine.supervisor.refusals import locate_data_dir, locate_place, refuse_change
from engine.supervisor.rollout import Rollout, RolloutError
from engine.supervisor.slot import Slot
from engine.supervisor.suspicion import StoreDeaths
from engine.telemetry.log import Log

SHARD_COMMAND = (sys.executable, "-m", "engine", "_shard")
STOP_MARGIN_S = 5.0  # past the grace: last commits, event lines, process exit
DRAIN_TIMEOUT_S = 5.0
# Read once, at start, by the supervisor or by each shard's store and event log.
FIXED_SETTINGS = (
    "data_dir",
    "shards",
    "durability",
    "map_size_bytes",
    "min_free_disk_bytes",
    "event_log_dir",
    "event_log_size_bytes",
    "event_log_age_s",
    "validating_resolver",
    "mta_sts",
    "mta_sts_port",
    "nameservers",
    "dns_port",
    "dns_min_ttl_s",
    "dns_max_ttl_s",
    "dns_negative_ttl_s",
    "dns_cache_size",
)

log = Log("supervisor")

Applied = Callable[[Plan], Awaitable[None]]


class Supervisor:
    """One running engine."""

    def __init__(
        self, config_path: str, applied: Applied, shard_command: Sequence[str] = SHARD_COMMAND
    ) -> None:
        """Load the configuration.

        Args:
            applied: is called with each plan that is in force.

        Raises:
            ConfigError: nothing has been started.
        """
        self._config_path = config_path
        self._applied = applied
        texts = load_texts(config_path)
        model = build_model(texts)
        self.shards = count_shards(model)
        self.data_dir = DataDir(model.settings.engine.data_dir)
        self.plan = Plan(0, texts, model, {}, {}, {}, "")
        self._recounted_at = 0.0
        self.slots = [
            Slot(n, shard_command, self._make_body, self._upped, self._downed) for n in range(self.shards)
        ]
        self.is_draining = False
        self.listeners = Listeners()
        self.poison = PoisonRecord(self.data_dir.poison_file)
        self._store_deaths = StoreDeaths()
        self._hung: bytes = b""  # the incarnation that was ended last
        self.readiness = Readiness(self.slots)
        self.figures = Figures(self.slots, self._end_hung)
        self._rollout = Rollout(self.slots, self._set_plan, self._make_body)
        self._reload_lock = asyncio.Lock()
        self._is_stopping = False

    # -- start and stop --------------------------------------------------------------------

    async def open(self) -> None:
        """Take the data directory, listen, start every shard and wait until each is up or has failed once.

        Where none is up then, they are tried again, and the engine is not ready before one is.

        Raises:
            ConfigError: a directory or address can't be used, or every shard refuses the configuration.
        """
        async with self._reload_lock:
            try:
                await self._open()
            except ConfigError:
                self.listeners.close()
                raise
        if not self._is_stopping:
            self.readiness.begin()

    async def _open(self) -> None:
        try:
            await self.data_dir.open(self.shards)
        except ConfigError as error:
            raise locate_data_dir(self.plan.texts, error) from None
        self.poison.load()
        self._clear_steps()
        make_directories(self.plan.texts, self.plan.model.settings)
        previous = load_assignment(self.data_dir.assignment_file)
        self._recounted_at = self._when_recounted(previous)
        self.plan = self._make_plan(self.plan.texts, self.plan.model, 1, previous)
        self._listen(self.plan.texts, self.plan.model)
        self._store_assignment()
        for slot in self.slots:
            slot.start()
        await self._applied(self.plan)
        log.info("listening", listeners=len(self.plan.listeners), shards=self.shards, pid=os.getpid())
        await asyncio.gather(*[slot.first_outcome.wait() for slot in self.slots])
        if all(slot.refusal and not slot.is_up for slot in self.slots) and not self._is_stopping:
            # A single one may fare better when it is tried again; what all refuse is the configuration.
            refusals = "; ".join(dict.fromkeys(slot.refusal for slot in self.slots))
            raise ConfigError(Origin(self._config_path, 0), f"no shard can start: {refusals}")

    async def stop(self) -> None:
        """Stop within the configured grace: transactions in flight may finish."""
        self._is_stopping = True
        grace_s = self.plan.model.settings.engine.grace_s
        self.readiness.stop()
        log.info("stopping", grace_s=grace_s)
        for slot in self.slots:
            slot.stop_restarting()
        self.listeners.close()
        await asyncio.gather(*[self._stop_one(slot, grace_s) for slot in self.slots])
        self.data_dir.close()
        log.info("stopped")

    def kill(self) -> None:
        """End every shard at once; what is accepted is on disk."""
        self._is_stopping = True
        for slot in self.slots:
            slot.stop_restarting()
            if slot.process is not None:
                slot.process.end()

    async def _stop_one(self, slot: Slot, grace_s: float) -> None:
        process = slot.process
        if process is None:
            return
        try:
            await process.request("stop", {"grace_s": grace_s}, grace_s + STOP_MARGIN_S)
        except NetworkError as error:
            log.debug("shard did not confirm its stop", shard=slot.shard, error=str(error))
        if not await process.wait_ended(STOP_MARGIN_S):
            log.warning("shard did not stop in time, killed", shard=slot.shard, pid=process.pid)
            process.end()
            await process.wait_ended()

    # -- reload and drain ------------------------------------------------------------------

    async def reload(self) -> None:
        """Load the configuration anew and bring it to all shards; without dropping a session.

        Raises:
            ConfigError: refused; everything runs on as before.
        """
        async with self._reload_lock:
            if self._is_stopping:
                raise ConfigError(Origin(self._config_path, 0), "not loaded: the engine is stopping")
            self.readiness.reloading()
            result = "refused"
            try:
                await self._reload()
                result = "done"
            except ConfigError as error:
                log.error("reload refused", error=str(error))
                raise
            finally:
                self.figures.counters.counter("mailrail_reloads_total", result=result)[0] += 1
                self.readiness.reloaded(self.plan.generation)

    async def drain(self, is_on: bool) -> None:
        """Refuse new mail on every shard, or take it again; shards that start later are told too."""
        self.is_draining = is_on
        log.info("draining" if is_on else "draining ended")
        asked = [slot.request("drain", {"on": is_on}, DRAIN_TIMEOUT_S) for slot in self.slots]
        for slot, answer in zip(
            self.slots, await asyncio.gather(*asked, return_exceptions=True), strict=True
        ):
            if isinstance(answer, NetworkError):
                log.warning("shard was not told of draining", shard=slot.shard, error=str(answer))
            elif isinstance(answer, BaseException):
                raise answer

    async def _reload(self) -> None:
        old = self.plan
        texts = load_texts(self._config_path)
        model = build_model(texts)
        self._refuse_fixed(texts, model)
        make_directories(texts, model.settings)
        new = self._make_plan(texts, model, old.generation + 1, self._dealt(old))
        self._listen(texts, model)
        try:
            await self._rollout.run(old, new)
        except RolloutError as error:
            back = replace(old)  # another one for those that were told the old: they have let go of vmtas
            await self._roll_back(self.plan, back)
            raise ConfigError(Origin(self._config_path, 0), f"not taken by the shards: {error}") from None
        finally:
            self.listeners.keep(self.plan.keys)
        await self._applied(new)
        self._store_assignment()
        log.info(
            "reloaded", generation=new.generation, vmtas=len(new.assignment), listeners=len(new.listeners)
        )

    async def _roll_back(self, failed: Plan, back: Plan) -> None:
        try:
            await self._rollout.run(failed, back)
        except RolloutError as error:
            # It ran this plan before: a shard that can't take it back is restarted with it.
            log.error("shards could not go back to the plan before", error=str(error))
            for slot in self.slots:
                if slot.process is not None and slot.process.plan is not back:
                    slot.process.end()

    def _listen(self, texts: Texts, model: Model) -> None:
        try:
            self.listeners.add(_find_places(model))
        except ConfigError as error:
            raise locate_place(texts, model.settings, error) from None

    def _refuse_fixed(self, texts: Texts, model: Model) -> None:
        """Refuse changes that only a restart can bring, by line and key."""
        old, new = self.plan.model.settings.engine, model.settings.engine
        for key in FIXED_SETTINGS:
            before, after = getattr(old, key), getattr(new, key)
            if key == "shards":
                before, after = self.shards, count_shards(model)
            if before != after:
                raise refuse_change(self.plan.texts, texts, key)

    # -- what shards are told --------------------------------------------------------------

    def _make_plan(self, texts: Texts, model: Model, generation: int, previous: Assignment) -> Plan:
        dealt = deal_vmtas(model.settings, self.shards, previous)
        settings = model.settings
        listeners = {each.name: place.key for each in settings.listeners if (place := listener_place(each))}
        admin = admin_place(settings.admin).key
        return Plan(generation, texts, model, dealt.vmtas, dealt.addresses, listeners, admin)

    def _dealt(self, plan: Plan) -> Assignment:
        return Assignment(plan.assignment, self.shards, plan.addresses, self._recounted_at)

    def _store_assignment(self) -> None:
        """Keep who owns what; addresses that no vmta has are known for as long as this process lives."""
        used = {address for vmta in self.plan.model.settings.vmtas.values() for address in vmta.addresses}
        addresses = {address: shard for address, shard in self.plan.addresses.items() if address in used}
        store_assignment(self.data_dir.assignment_file, self._dealt(self.plan)._replace(addresses=addresses))

    def _when_recounted(self, previous: Assignment) -> float:
        """Return when the number of shards last changed; now, where stores are there and nobody knows."""
        is_first = not previous.shards and not self.data_dir.leftover_stores(0)
        if is_first or previous.shards == self.shards:
            return previous.recounted_at
        log.info("number of shards changed", shards=self.shards, before=previous.shards)
        return time.time()

    def _set_plan(self, plan: Plan) -> None:
        self.plan = plan

    def _make_body(self, slot: Slot, process: ShardProcess) -> dict[str, Any]:
        """Return the body of "configure" for one shard, and give it the sockets that it names."""
        plan = self.plan
        wanted = set(plan.listeners.values())
        process.plan = plan
        process.give_listeners({key: sock for key, sock in self.listeners.sockets.items() if key in wanted})
        leftover = self.data_dir.leftover_stores(self.shards)
        return {
            **plan.as_body(),
            "shard": slot.shard,
            "shards": self.shards,
            "incarnation": process.incarnation,
            "adopt_stores": [number for number in leftover if number % self.shards == slot.shard],
            "recounted_at": self._recounted_at,
            "poison": self.poison.keys,
            "is_draining": self.is_draining,
        }

    # -- what shards do --------------------------------------------------------------------

    def _upped(self, slot: Slot) -> None:
        """Introduce a shard that came up to the others, and the others to it."""
        for other in self.slots:
            if other is not slot:
                other.notify("peer", _describe_peer(slot))
                slot.notify("peer", _describe_peer(other))
        self.readiness.changed()

    def _downed(self, slot: Slot, process: ShardProcess, returncode: int) -> None:
        """Tell the others that a shard died; count what it died on."""
        for other in self.slots:
            if other is not slot:
                other.notify("peer", _describe_peer(slot))
        self.figures.end(process.shard)
        self.readiness.changed()
        if not self._is_stopping:
            self._suspect_store(process, returncode)
            for key in self.poison.note_death(self.data_dir.step_file(process.shard), returncode):
                log.error("delivery held as poison", delivery=key, shard=process.shard)

    def _suspect_store(self, process: ShardProcess, returncode: int) -> None:
        """Count deaths that a damaged store can cause; the next shard is told by a mark beside the store."""
        if process.incarnation == self._hung:
            return
        directory = self.data_dir.shard_dir(process.shard)
        has_step = bool(read_step(self.data_dir.step_file(process.shard)))
        if not self._store_deaths.note_death(
            process.shard, returncode, has_step=has_step, now=time.monotonic()
        ):
            return
        why = f"shards died of {describe_death(returncode)} on it"
        log.error("store is not trusted any more", store=str(directory), reason=why)
        try:
            mark_damaged(directory, why)
        except OSError as error:
            log.error("store not marked as damaged", store=str(directory), error=str(error))

    def _end_hung(self, slot: Slot) -> None:
        if slot.process is not None:
            self._hung = slot.process.incarnation
            log.error("shard hung, ended", shard=slot.shard, pid=slot.process.pid)
            slot.process.end(
                signal.SIGABRT
            )  # counts as a death of its own, so that what hangs it becomes poison

    def _clear_steps(self) -> None:
        """Forget what shards worked on when they were ended with their supervisor: it did not kill them."""
        for step_file in self.data_dir.path.glob("shard-*/step"):
            take_step(step_file)


def count_shards(model: Model) -> int:
    """Return how many shards the settings ask for: one per core that we may use, unless told otherwise."""
    return model.settings.engine.shards or len(os.sched_getaffinity(0))


def _find_places(model: Model) -> list[Place]:
    settings = model.settings
    places = [place for each in settings.listeners if (place := listener_place(each))]
    return [*places, admin_place(settings.admin)]


def _describe_peer(slot: Slot) -> dict[str, Any]:
    return {"shard": slot.shard, "up": slot.is_up, "incarnation": slot.incarnation}
