"""What all shards of an engine are told: texts, assignment of vmtas, listeners.

A plan is whole and does not change; a reload makes a new one of the next generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from engine.loading import Model, Texts
from engine.supervisor.assignments import count_together


@dataclass(frozen=True, slots=True)
class Plan:
    """One generation.

    `assignment` lacks a vmta that is between two owners: nobody may use it then.
    `addresses` has the owner of each address, of those too that no vmta has any more.
    `listeners` maps listener names to the keys of their sockets; spool listeners have none. `admin` is
    the key of the admin API's.
    """

    generation: int
    texts: Texts
    model: Model
    assignment: dict[str, int]
    addresses: Mapping[str, int]
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


def find_moves(old: Plan, new: Plan) -> dict[str, int]:
    """Return the vmtas whose sessions must have ended before `new`: name to its shard in `old`.

    Peers count addresses. One moves where it has another owner, or counts together with other addresses
    than before; with it goes every vmta of `old` that counted in it, whether it stays, changes its address
    or is in the configuration no more.
    """
    before, after = _places(old), _places(new)
    counted_in = {address: place for place in after.values() for address in place.addresses}
    moved: set[str] = set()
    for vmta, place in before.items():
        kept = [counted_in[address] for address in place.addresses if address in counted_in]
        is_changed = any(each != place for each in kept) or after.get(vmta, place) != place
        if is_changed:
            moved.update(place.addresses)
    return {vmta: place.shard for vmta, place in before.items() if moved.intersection(place.addresses)}


class _Place(NamedTuple):
    """Where a vmta counts."""

    shard: int
    addresses: tuple[str, ...]


def _places(plan: Plan) -> dict[str, _Place]:
    counted = count_together(plan.model.settings)
    return {vmta: _Place(shard, counted[vmta]) for vmta, shard in plan.assignment.items() if vmta in counted}
