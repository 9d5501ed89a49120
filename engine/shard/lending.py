"""Deliveries that go to another shard, those too that this one could send itself.

What has no way out of here can only be offered again after a crash, and the other shard knows then whether it
has it. What has one would be sent from both. So it is on record where a delivery is offered before it is, and
after a crash it is offered there first (`Delivery.held`).

Owns: which deliveries are on their way like that, and what becomes of all that were handed over or not.
Never: chooses which, or where to (shard.balance, shard.upkeep).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core.envelope import Delivery
from engine.core.errors import StoreError
from engine.delivery.handover import MAX_UNDER_WAY
from engine.inject.accept import PERHAPS

if TYPE_CHECKING:
    from engine.shard.build import Engine


class Lending:
    """Gives deliveries away, on record."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lent: set[bytes] = set()

    def give(self, delivery: Delivery, shard: int | None = None) -> bool:
        """Begin to hand a ready delivery over; False where no shard can take it now."""
        engine = self._engine
        if shard is None:
            shard = engine.exchange.keeper_of(delivery)
        if shard is None or len(self._lent) >= MAX_UNDER_WAY:
            return False
        target = shard
        self._lent.add(delivery.key)
        delivery.held = f"{PERHAPS}{target}"
        engine.store.amend(delivery, delivery.due_at)
        engine.store.when_durable(lambda error: self._offer(delivery, target, error))
        return True

    def _offer(self, delivery: Delivery, shard: int, error: StoreError | None) -> None:
        if error is not None or not self._engine.handover.offer(delivery, shard):
            self.take_back(delivery)

    def handed_over(self, delivery: Delivery) -> None:
        """Another shard has a delivery, given or offered: it leaves this one."""
        engine = self._engine
        self._lent.discard(delivery.key)
        delivery.is_remembered = False  # it is the other shard's to remember now
        delivery.held = ""
        engine.store.remove(delivery)
        engine.readahead.left(delivery)
        engine.counters.counter("mailrail_forwarded_total", kind="handed_over")[0] += 1

    def not_handed_over(self, delivery: Delivery, perhaps: int | None) -> None:
        """Still ours, and perhaps another shard's too: then that one is asked again before anybody else."""
        if perhaps is None and delivery.key in self._lent:
            self.take_back(delivery)
            return
        self._lent.discard(delivery.key)
        if perhaps is not None and not delivery.held:
            delivery.held = f"{PERHAPS}{perhaps}"
            self._engine.store.amend(delivery, delivery.due_at)
        self._engine.readahead.left(delivery)

    def take_back(self, delivery: Delivery) -> None:
        """The other shard did not take what was given: it is this one's alone again."""
        self._lent.discard(delivery.key)
        delivery.held = ""
        self._engine.store.amend(delivery, delivery.due_at)
        self._engine.readahead.left(delivery)
