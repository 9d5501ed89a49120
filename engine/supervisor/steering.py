"""What the admin API asks of the engine, answered by asking the shards.

Owns: which shards a query goes to, how long they may take.
Never: speaks HTTP, merges answers (admin does).
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from engine.admin.engine import Answers
from engine.core.errors import NetworkError
from engine.settings.model import ListenerSettings
from engine.store.quarantine import Quarantined, list_quarantined
from engine.supervisor.slot import Slot

if TYPE_CHECKING:
    from engine.supervisor.supervisor import Supervisor

QUERY_TIMEOUT_S = 5.0  # a person waits; a shard that takes longer is named as not answering


class Steering:
    """The supervisor as the admin API sees it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._started_at = time.time()

    async def format_metrics(self) -> tuple[bytes, str]:
        return await self._supervisor.figures.format()

    def describe(self) -> dict[str, Any]:
        supervisor = self._supervisor
        return {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "generation": supervisor.plan.generation,
            "is_draining": supervisor.is_draining,
            "listeners": [_describe_listener(each) for each in supervisor.plan.model.settings.listeners],
            "shards": [_describe_slot(slot) for slot in supervisor.slots],
            "quarantine": [
                _describe_quarantined(each) for each in list_quarantined(supervisor.data_dir.path)
            ],
        }

    async def ask(self, what: str, criteria: dict[str, str], limit: int) -> Answers:
        body = {"what": what, "filter": criteria, "limit": limit}
        answers = Answers({}, {})
        await asyncio.gather(*[_ask(slot, body, answers) for slot in self._choose(what, criteria)])
        return answers

    async def reload(self) -> dict[str, Any]:
        await self._supervisor.reload()
        return {"generation": self._supervisor.plan.generation}

    async def retry(self, message_id: str) -> Answers:
        self._supervisor.poison.forget(bytes.fromhex(message_id))
        answers = Answers({}, {})
        slots = self._supervisor.slots
        await asyncio.gather(*[_ask(slot, {"id": message_id}, answers, "retry") for slot in slots])
        return answers

    async def cancel_rule(self, key: str) -> Answers:
        answers = Answers({}, {})
        slots = self._supervisor.slots
        await asyncio.gather(*[_ask(slot, {"key": key}, answers, "cancel_rule") for slot in slots])
        return answers

    async def drain(self, is_on: bool) -> dict[str, Any]:
        await self._supervisor.drain(is_on)
        return {"is_draining": is_on}

    def _choose(self, what: str, criteria: dict[str, str]) -> list[Slot]:
        """Return the slots that can answer: all, but about one vmta's paths the one that owns it."""
        slots = self._supervisor.slots
        if what not in ("explain", "rules"):
            return slots
        owner = self._supervisor.plan.assignment.get(criteria.get("vmta", ""))
        if owner is not None:
            return [slots[owner]]
        return slots


async def _ask(slot: Slot, body: dict[str, Any], answers: Answers, kind: str = "query") -> None:
    try:
        answers.results[slot.shard] = await slot.request(kind, body, QUERY_TIMEOUT_S)
    except NetworkError as error:
        answers.errors[slot.shard] = str(error)


def _describe_listener(listener: ListenerSettings) -> dict[str, Any]:
    return {
        "name": listener.name,
        "protocol": listener.protocol,
        "listen": listener.listen,
        "path": listener.path,
        "customer": listener.customer,
        "trusted": listener.trusted,
    }


def _describe_quarantined(each: Quarantined) -> dict[str, Any]:
    report = each.report or {}
    return {
        "store": str(each.path),
        "shard": each.shard,
        "quarantined_at": each.at,
        "state": "being salvaged" if each.report is None else "salvaged",
        "restored": report.get("restored", report.get("deliveries", 0)),
        "lost": report.get("lost", 0),
        "reason": each.reason,
    }


def _describe_slot(slot: Slot) -> dict[str, Any]:
    process = slot.process
    return {
        "shard": slot.shard,
        "is_up": slot.is_up,
        "pid": process.pid if process is not None else 0,
        "started_at": process.started_at if process is not None else 0.0,
        "starts": slot.starts,
        "last_death": slot.last_death,
        "refusal": slot.refusal,
    }
