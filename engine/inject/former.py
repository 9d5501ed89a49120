"""Where an id may be on record that another shard kept before the number of shards changed.

With their number the keeper of an id changes; what was answered stays where it was. So for 24 hours a
keeper that does not know an id asks everybody: the other shards, and the left stores that they and itself
have open. All must answer, or nothing can be said.

Owns: the question, and until when it is asked.
Never: takes a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from engine.core.errors import NetworkError, StoreError

RECALL = "recall"  # what one shard asks another: [customer, id]

# Asks another shard: (shard, kind, body, done(result, error), octets), as PeerLinks.send.
Ask = Callable[[int, str, Any, Callable[[Any, NetworkError | None], None], int], None]
Recalled = Callable[[bytes | None, bool], None]  # the answer that was given; whether everybody was heard


class ReplyRecord(Protocol):
    """A store that may know an id."""

    def idempotent(self, customer: str, given_id: str) -> bytes | None: ...


class FormerKeepers:
    """Everybody who may know an id that this shard keeps now."""

    def __init__(
        self,
        others: Sequence[int],
        ask: Ask,
        left_stores: Callable[[], Sequence[ReplyRecord]],
        is_asked: Callable[[], bool],
    ) -> None:
        """Args:
        others: the other shards.
        left_stores: those of shards that are no more, as far as this shard looks after them.
        is_asked: whether anybody may still know one.
        """
        self._others = others
        self._ask = ask
        self._left_stores = left_stores
        self._is_asked = is_asked

    @property
    def may_know(self) -> bool:
        return self._is_asked()

    def here(self, customer: str, given_id: str) -> bytes | None:
        """Return what the left stores say that this shard looks after.

        Raises:
            StoreError: one can't be read.
        """
        found = (store.idempotent(customer, given_id) for store in self._left_stores())
        return next((record for record in found if record is not None), None)

    def find(self, customer: str, given_id: str, done: Recalled) -> None:
        """Ask here and everywhere; `done` once, when all have answered or one knows it."""
        try:
            record = self.here(customer, given_id)
        except StoreError:
            done(None, False)
            return
        if record is not None or not self._others:
            done(record, True)
            return
        waiting = set(self._others)
        is_whole = True

        def answered(shard: int, record: bytes | None, error: NetworkError | None) -> None:
            nonlocal is_whole
            if shard not in waiting:
                return
            waiting.discard(shard)
            is_whole = is_whole and error is None
            if record is not None:
                waiting.clear()
            if not waiting:
                done(record, record is not None or is_whole)

        for shard in self._others:
            self._ask(
                shard,
                RECALL,
                [customer, given_id],
                lambda record, error, shard=shard: answered(shard, record, error),  # type: ignore[misc]
                len(given_id),
            )
