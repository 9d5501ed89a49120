"""Brings a new plan to running shards; vmtas move in two phases.

    1  the moving vmtas belong to nobody: old owners end their sessions, export limiter, warm-up and hold
       state, and acknowledge ("release"); a shard that starts meanwhile is told the same
    2  all shards are offered that state ("adopt") and take what is of their addresses, then all get the
       plan ("configure")

An old owner that does not acknowledge in time is killed: the death of a process closes its sessions for
certain, and the new owner may start: as after a restart, with what was on disk of long windows.

Owns: the order of these steps.
Never: opens listeners, builds models.
Fails: RolloutError when a shard can't take the plan; the caller rolls the old plan out again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from engine.core.errors import MailrailError, NetworkError
from engine.supervisor.plan import Plan, find_moves
from engine.supervisor.process import ShardProcess
from engine.supervisor.slot import Slot
from engine.telemetry.log import Log

RELEASE_GRACE_S = 10.0  # given to transactions in flight before their sessions are cut
RELEASE_TIMEOUT_S = 30.0  # the grace, and a busy loop
CONFIGURE_TIMEOUT_S = 30.0  # building a model takes well under a second; a loop may be busy
DEATH_TIMEOUT_S = 10.0  # SIGKILL to pidfd, with a disk in between

log = Log("rollout")

PlanSetter = Callable[[Plan], None]
BodyMaker = Callable[[Slot, ShardProcess], dict[str, Any]]


class RolloutError(MailrailError):
    """A shard could not take the new plan; `str()` says which and why."""


class Rollout:
    """Takes all shards from one plan to another.

    `set_plan` makes a plan the one that shards which start are told; `make_body` is that telling.
    """

    def __init__(self, slots: Sequence[Slot], set_plan: PlanSetter, make_body: BodyMaker) -> None:
        self._slots = slots
        self._set_plan = set_plan
        self._make_body = make_body

    async def run(self, old: Plan, new: Plan) -> None:
        """Bring all shards from `old` to `new`.

        Raises:
            RolloutError: a shard answered that it can't; the others may have the new plan already.
        """
        moves = find_moves(old, new)
        states: dict[str, Any] = {}
        if moves:
            self._set_plan(old.without(set(moves)))
            states = await self._release(moves)
        self._set_plan(new)
        await asyncio.gather(*[self._adopt_one(slot, states) for slot in self._slots])
        answers = await asyncio.gather(*[self._configure(slot, new) for slot in self._slots])
        refusals = [answer for answer in answers if answer]
        if refusals:
            raise RolloutError("; ".join(refusals))

    async def _release(self, moves: dict[str, int]) -> dict[str, Any]:
        """Have the old owners let go of what moves; return the exported states by vmta."""
        leaving: dict[int, list[str]] = defaultdict(list)
        for vmta, shard in moves.items():
            leaving[shard].append(vmta)
        owners = [slot for slot in self._slots if slot.shard in leaving]
        states: dict[str, Any] = {}
        for exported in await asyncio.gather(
            *[self._release_one(slot, leaving[slot.shard]) for slot in owners]
        ):
            states.update(exported)
        return states

    async def _release_one(self, slot: Slot, vmtas: list[str]) -> dict[str, Any]:
        async with slot.lock:
            process = slot.process
            if process is None or not slot.is_up:
                return {}  # a shard that is down holds no session; one that starts is told that it owns none
            body = {"vmtas": vmtas, "grace_s": RELEASE_GRACE_S}
            try:
                return dict(await process.request("release", body, RELEASE_TIMEOUT_S))
            except NetworkError as error:
                log.error(
                    "shard did not release vmtas, killed", shard=slot.shard, vmtas=vmtas, error=str(error)
                )
                await _kill(process)
                return {}

    async def _adopt_one(self, slot: Slot, states: dict[str, Any]) -> None:
        if not states:
            return
        try:
            await slot.request("adopt", {"vmtas": states}, CONFIGURE_TIMEOUT_S)
        except NetworkError as error:
            # It dies or restarts: then it begins with the caution of a start, which is enough.
            log.warning("state of moved vmtas lost", shard=slot.shard, vmtas=list(states), error=str(error))

    async def _configure(self, slot: Slot, plan: Plan) -> str:
        """Tell one shard its plan; return why it refuses, "" where it does not."""
        async with slot.lock:
            process = slot.process
            if process is None or not slot.is_up or process.plan is plan:
                return ""  # its successor is told the plan when it starts, or was
            try:
                answer = await process.request(
                    "configure", self._make_body(slot, process), CONFIGURE_TIMEOUT_S
                )
            except NetworkError as error:
                if error.phase == "request":
                    return f"shard {slot.shard}: {error.detail}"
                log.error("shard did not take the plan, killed", shard=slot.shard, error=str(error))
                await _kill(process)
                return ""
            refusal = str((answer or {}).get("error", ""))
            return f"shard {slot.shard}: {refusal}" if refusal else ""


async def _kill(process: ShardProcess) -> None:
    process.end()
    if not await process.wait_ended(DEATH_TIMEOUT_S):
        raise RolloutError(f"shard {process.shard} can't be killed")
