"""What all shards of an engine are told: texts, assignment of vmtas, listeners.

A plan is whole and does not change; a reload makes a new one of the next generation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from engine.loading import Model, Texts


@dataclass(frozen=True, slots=True)
class Plan:
    """One generation.

    `assignment` lacks a vmta that is between two owners: nobody may use it then.
    `listeners` maps listener names to the keys of their sockets; spool listeners have none. `admin` is
    the key of the admin API's.
    """

    generation: int
    texts: Texts
    model: Model
    assignment: dict[str, int]
    listeners: dict[str, str]
    admin: str

    @property
    def keys(self) -> set[str]:
        """Keys of all sockets that this plan listens on."""
        return {*self.listeners.values(), self.admin}

    def without(self, vmtas: set[str]) -> Plan:
        """Return this plan with some vmtas owned by nobody."""
        kept = {vmta: shard for vmta, shard in self.assignment.items() if vmta not in vmtas}
        return replace(self, assignment=kept)

    def as_body(self) -> dict[str, Any]:
        """Return what is the same in every shard's "configure"."""
        return {
            "generation": self.generation,
            "texts": msgspec.to_builtins(self.texts),
            "assignment": self.assignment,
            "listeners": self.listeners,
        }


def find_moves(old: dict[str, int], new: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return the vmtas that change owner: name to (old shard, new shard)."""
    return {vmta: (old[vmta], shard) for vmta, shard in new.items() if vmta in old and old[vmta] != shard}
