"""`mailrail retry`: a message's deliveries become due now, and those held as poison are let go.

Owns: what an operator's word changes about a delivery: due time and hold, not what was tried so far; and that
    its domain is asked for again where DNS did not answer.
Never: touches what is in memory; it is ready, or on its way, already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core.envelope import Delivery
from engine.core.errors import StoreError

if TYPE_CHECKING:
    from engine.shard.build import Engine

POISON = "poison"


def retry_message(engine: Engine, message_id: bytes, unix_now: float) -> dict[str, int]:
    """Make the deliveries of a message due.

    Returns:
        How many are due now, how many of these were held as poison, how many were under way.
    """
    counts = {"due": 0, "released": 0, "under_way": 0}
    changed: list[Delivery] = []
    for found in engine.store.deliveries_of(message_id):
        if found.key in engine.readahead.in_memory:
            counts["under_way"] += 1
            continue
        delivery = engine.store.load(found.key)
        if delivery is None:
            continue  # it is leaving, or was set aside
        if delivery.held == POISON:
            delivery.held = ""
            counts["released"] += 1
        counts["due"] += 1
        engine.store.amend(delivery, unix_now)
        changed.append(delivery)
    if changed:
        _bring(engine, changed)
    return counts


def _bring(engine: Engine, changed: list[Delivery]) -> None:
    """Bring them on once it is on disk; the scan may have been faster, even to their end."""

    def done(error: StoreError | None) -> None:
        for delivery in changed if error is None else ():
            if delivery.key not in engine.readahead.in_memory:
                now = engine.store.load(delivery.key)
                if now is not None:
                    engine.resolver.forget_failure(now.domain)
                    engine.readahead.forget_failure(now.domain)
                    engine.readahead.arrived(now)

    engine.store.when_durable(done)
