"""Ids that an injector may repeat for 24 hours without its message being taken twice.

An id belongs to a customer and is kept by one shard, whichever the injector talks to: the one that its hash
names. That shard takes the message, and remembers the answer in the message's own transaction. So the
answer to "have I had this?" is exact across shards. While that shard is down the injector gets a 4xx and
asks again; its question is then answered exactly. After a change of the number of shards, which changes the
keepers, a keeper asks the former ones (inject.former).

Owns: which shard keeps an id, who waits for the answer to one that is on its way.
Never: decides about a message (inject.accept does), keeps a record (the store does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol
from zlib import crc32

import msgspec

from engine.core.errors import NetworkError, StoreError
from engine.core.reply import Reply, make_reply
from engine.inject.context import Done, Intake
from engine.inject.former import Ask, FormerKeepers
from engine.inject.submission import Offer

REQUEST = "submit"  # what one shard asks another

NOT_NOW = make_reply(451, "4.3.0", "the store is not available, try again later")
NOBODY_KNOWS = make_reply(451, "4.3.2", "a shard that may know this id does not answer; repeat it later")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Offer).decode


class ReplyStore(Protocol):
    """What is needed of the store."""

    def idempotent(self, customer: str, given_id: str) -> bytes | None: ...
    def when_durable(self, done: Callable[[StoreError | None], None]) -> None: ...


class IdempotentIds:
    """The one place of a shard through which messages with repeatable ids go."""

    def __init__(
        self, shard: int, shards: int, door: Intake, store: ReplyStore, ask: Ask, former: FormerKeepers
    ) -> None:
        """Args: shards: how many there are; the same for all of them."""
        self._former = former
        self._shard = shard
        self._shards = shards
        self._door = door
        self._store = store
        self._ask = ask
        self._under_way: dict[tuple[str, str], list[Done]] = {}

    def submit(self, offer: Offer, done: Done) -> None:
        """Take a message, here or at the shard that keeps its id; a repeat gets the answer of the first."""
        owner = keeper_of(offer.context.customer, offer.context.idempotency, self._shards)
        if owner == self._shard:
            self._take(offer, done)
            return

        def answered(result: Any, error: NetworkError | None) -> None:
            if error is not None:
                detail = f"shard {owner}, which keeps this id, does not answer; repeat it later"
                done(make_reply(451, "4.3.2", detail), [])
            else:
                code, enhanced, text, message_ids = result
                done(make_reply(code, enhanced, text), message_ids)

        octets = _encode(offer)
        self._ask(owner, REQUEST, octets, answered, len(octets))

    def take(self, _from: int, octets: bytes) -> asyncio.Future[list[Any]]:
        """Take a message for another shard; the result is what its injector is told."""
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def done(reply: Reply, message_ids: list[str]) -> None:
            if not future.done():
                future.set_result([reply.code, reply.enhanced, reply.text, message_ids])

        self._take(_decode(octets), done)
        return future

    def recall(self, customer: str, given_id: str) -> bytes | None:
        """Return the answer that is on record here, for the shard that keeps the id now.

        Raises:
            StoreError: it can't be read.
        """
        known = self._store.idempotent(customer, given_id)
        return self._former.here(customer, given_id) if known is None else known

    def _take(self, offer: Offer, done: Done) -> None:
        context = offer.context
        key = (context.customer, context.idempotency)
        waiting = self._under_way.get(key)
        if waiting is not None:
            waiting.append(done)
            return
        try:
            known = self._store.idempotent(*key)
        except StoreError:
            done(NOT_NOW, [])
            return
        if known:
            done(*format_known(known))
        elif known is not None:  # answered before it was durable, as "async" does: say so when it is
            self._store.when_durable(lambda error: self._again(error, offer, done))
        else:
            self._under_way[key] = [done]
            self._begin(key, offer)

    def _begin(self, key: tuple[str, str], offer: Offer) -> None:
        """Nobody asked for it here before: take it, unless a former keeper has."""

        def settled(reply: Reply, message_ids: list[str]) -> None:
            for each in self._under_way.pop(key):
                each(reply, message_ids)

        def recalled(record: bytes | None, is_whole: bool) -> None:
            if record:
                settled(*format_known(record))
            elif record is not None or not is_whole:
                settled(NOBODY_KNOWS, [])
            else:
                self._accept(offer, settled)

        if self._former.may_know:
            self._former.find(*key, recalled)
        else:
            self._accept(offer, settled)

    def _accept(self, offer: Offer, settled: Done) -> None:
        self._door.accept(
            offer.sender, offer.recipients, offer.message, offer.is_8bit, offer.context, settled
        )

    def _again(self, error: StoreError | None, offer: Offer, done: Done) -> None:
        if error is None:
            self._take(offer, done)
        else:
            done(NOT_NOW, [])


def keeper_of(customer: str, given_id: str, shards: int) -> int:
    """Return the shard that keeps an id: the same for all shards, whoever is asked."""
    return crc32(f"{customer}\0{given_id}".encode()) % shards


def format_known(record: bytes) -> tuple[Reply, list[str]]:
    """Return the answer that was given: the store keeps the message id, the acceptor's words are constant."""
    message_id = record.hex()
    return make_reply(250, "2.0.0", f"Ok: queued as {message_id}"), [message_id]
