"""A store in memory that commits by itself, at the end of each turn of the loop."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.core.envelope import Delivery
from engine.core.errors import StoreError
from engine.store.batch import Done
from engine.store.memory import MemoryStore


class CommittingStore(MemoryStore):
    """`refuse_next` is what the next put is told by its commit, which stores nothing."""

    refuse_next: StoreError | None = None

    def put(self, deliveries: list[Delivery], message: bytes, done: Done, **extra: Any) -> None:
        loop = asyncio.get_running_loop()
        if self.refuse_next is not None and not self.full_reason:
            refusal, self.refuse_next = self.refuse_next, None
            loop.call_soon(done, refusal)
            return
        super().put(deliveries, message, done, **extra)
        loop.call_soon(self.commit)

    def restore(self, kind: str, key: bytes, record: bytes) -> None:
        super().restore(kind, key, record)
        asyncio.get_running_loop().call_soon(self.commit)

    def when_durable(self, done: Done) -> None:
        super().when_durable(done)
        asyncio.get_running_loop().call_soon(self.commit)
