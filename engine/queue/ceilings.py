"""Named bounds of a path beside its policy's: what adapts, what a peer's reply asked for, what warms up.

A policy says the most that a path may ever have. Others know better for the moment; each sets a bound under
a name of its own, and the least of all is in force. Nothing here is ever above the policy.

Owns: nothing. Never: knows why; whoever sets a bound says it in words that operators read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from engine.core.units import Rate


class Ceiling(NamedTuple):
    """A bound on a path; `why` is shown to operators. 0 connections, no rate: says nothing about that."""

    key: str
    why: str
    connections: int = 0
    rate: Rate | None = None


def describe_ceiling(ceiling: Ceiling) -> dict[str, str | int]:
    """Return it for operators; what it says nothing about is left out."""
    row: dict[str, str | int] = {"key": ceiling.key, "why": ceiling.why}
    if ceiling.connections:
        row["connections"] = ceiling.connections
    if ceiling.rate is not None:
        row["rate"] = str(ceiling.rate)
    return row


class Bounds(NamedTuple):
    """What is in force, and who says so ("" where the policy does)."""

    connections: int
    connections_why: str
    rate: Rate | None
    rate_why: str
    burst: int


class BoundedPolicy(Protocol):
    """What is read of a policy here."""

    @property
    def max_connections(self) -> int: ...
    @property
    def max_message_rate(self) -> Rate | None: ...
    @property
    def burst(self) -> int: ...


def least(policy: BoundedPolicy, ceilings: Iterable[Ceiling]) -> Bounds:
    """Return the least of the policy's bounds and these.

    Rates are compared by what they let through in the long run. Where a ceiling's rate is the least there
    are no bursts: the policy's burst may be more than the ceiling's whole window.
    """
    connections, connections_why = policy.max_connections, ""
    rate, rate_why = policy.max_message_rate, ""
    for ceiling in ceilings:
        if ceiling.connections and (not connections or ceiling.connections < connections):
            connections, connections_why = ceiling.connections, ceiling.why
        if ceiling.rate is not None and (rate is None or ceiling.rate.per_s < rate.per_s):
            rate, rate_why = ceiling.rate, ceiling.why
    return Bounds(connections, connections_why, rate, rate_why, 1 if rate_why else policy.burst)
