"""Messages to and from other shards: placing, forwarding, handing over.

Owns: which shard owns which vmta, as the supervisor last said; links to the other shards.
Never: stores (inject.accept does, here and there).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.control.peers import PeerHandler, PeerLinks
from engine.core.envelope import Delivery
from engine.core.errors import NetworkError, PerhapsStored, StoreError, StoreUnhealthy
from engine.delivery.handover import pack, unpack
from engine.inject.accept import PERHAPS, Acceptor
from engine.inject.former import RECALL
from engine.inject.idempotent import REQUEST, IdempotentIds
from engine.queue.placement import Placement, weigh_shards
from engine.settings.model import Settings
from engine.store.records import Duplicate
from engine.telemetry.metrics import Counters

REPORT_EVERY_S = 0.05
REPORT_AFTER = 16  # messages; what is not reported yet can't keep the proportions (queue.placement)

Done = Callable[[StoreError | None], None]


class Exchange:
    """The other shards, as one shard sees them."""

    def __init__(
        self, shard: int, run_dir: Path, counters: Counters, handlers: dict[str, PeerHandler]
    ) -> None:
        """`handlers`: what else other shards may ask (leases, balance)."""
        self._shard = shard
        self.peers = PeerLinks(
            shard,
            run_dir,
            {
                "forward": partial(self._take, True),
                "handover": partial(self._take, False),
                "placed": self._merge,
                REQUEST: self._submit,
                RECALL: self._recall,
                **handlers,
            },
        )
        self._placement = Placement({}, shard)
        self._others: set[int] = set()
        self._shards = 1
        self._unreported = 0
        self._loop = asyncio.get_running_loop()
        self.on_peer: Sequence[Callable[[int, bool], None]] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._forwarded = counters.counter("mailrail_forwarded_total", kind="placed")
        self._duplicates = counters.counter("mailrail_duplicates_refused_total")
        self.acceptor: Acceptor
        self.knows_left: Callable[[bytes], bool] = lambda _key: False
        self.repeats: IdempotentIds | None = None

    def use(self, settings: Settings, assignment: dict[str, int], shards: int) -> None:
        """Place by these pools and owners from now on."""
        members = {pool.name: pool.members for pool in settings.pools.values()}
        weights = weigh_shards(members, assignment)
        self._shards = shards
        self._others = set(assignment.values()) - {self._shard}
        self._placement = Placement(weights, self._shard)
        self._note_down()

    async def open(self) -> None:
        """Listen for the other shards, and tell them from time to time what was placed."""
        await self.peers.open()
        self._timer = self._loop.call_later(REPORT_EVERY_S, self._tick)

    def close(self) -> None:
        """Close the links."""
        if self._timer is not None:
            self._timer.cancel()
        self.peers.close()

    def set_peer(self, shard: int, incarnation: bytes | None) -> None:
        """Learn that another shard is up, or down (None)."""
        self.peers.set_peer(shard, incarnation)
        for changed in self.on_peer:
            changed(shard, incarnation is not None)
        self._note_down()

    def _note_down(self) -> None:
        self._placement.set_down({shard for shard in self._others if not self.peers.is_up(shard)})

    def _tick(self) -> None:
        self._timer = self._loop.call_later(REPORT_EVERY_S, self._tick)
        self._note_down()
        self._report()

    def _report(self) -> None:
        """Tell the other shards what was placed, so that what they keep for themselves is counted in."""
        self._unreported = 0
        report = self._placement.take_report()
        if report:
            for shard in self.peers.up:
                self.peers.notify(shard, "placed", report)

    def _submit(self, from_shard: int, octets: bytes) -> asyncio.Future[list[Any]]:
        """Take a message whose repeatable id is kept here."""
        if self.repeats is None:
            raise NetworkError("link", "not serving yet")
        return self.repeats.take(from_shard, octets)

    def _recall(self, _from: int, body: Any) -> bytes | None:
        """Say what was answered to an id that another shard keeps now."""
        if self.repeats is None:
            raise NetworkError("link", "not serving yet")
        return self.repeats.recall(*body)

    def _merge(self, _from: int, report: Any) -> None:
        self._placement.merge(report)

    def place(self, pool: str) -> int:
        """Return the shard that shall own a new message of the pool."""
        self._unreported += 1
        if self._unreported >= REPORT_AFTER:
            self._report()
        return self._placement.place(pool)

    def owner_of(self, pool: str) -> int | None:
        """Return another shard that owns a vmta of the pool and is up."""
        return self._placement.owner(pool)

    def keeper_of(self, delivery: Delivery) -> int | None:
        """Return the shard to hand a delivery to: the one that may have it already, else one for its pool."""
        if not delivery.held.startswith(PERHAPS):
            return self.owner_of(delivery.envelope.pool)
        shard = self._perhaps_at(delivery)
        return shard if self.peers.is_up(shard) else None

    def is_keeper_here(self, delivery: Delivery) -> bool:
        """Whether the shard that may have a delivery already is no more, and this one has its store."""
        return delivery.held.startswith(PERHAPS) and self._perhaps_at(delivery) == self._shard

    def _perhaps_at(self, delivery: Delivery) -> int:
        """Return the shard that may have it, or looks after its store."""
        return int(delivery.held.removeprefix(PERHAPS)) % self._shards

    def forward(self, shard: int, deliveries: list[Delivery], message: bytes, done: Done) -> None:
        """Give a message to its owner; `done(None)` after the owner's commit. HOT.

        `done(PerhapsStored)` where the owner died after it was asked; another error: it has nothing.
        """
        is_sent = False

        def answered(_result: Any, error: NetworkError | None) -> None:
            if error is None:
                self._forwarded[0] += 1
                done(None)
            elif is_sent and error.phase != "request":
                done(PerhapsStored(shard, str(error)))
            else:
                done(StoreUnhealthy(str(error)))

        octets = pack(deliveries[0].envelope, message, deliveries)
        self.peers.send(shard, "forward", octets, answered, len(octets))
        is_sent = True

    def send(
        self,
        shard: int,
        kind: str,
        body: Any,
        done: Callable[[Any, NetworkError | None], None],
        size_bytes: int,
    ) -> None:
        """Hand a delivery over."""
        self.peers.send(shard, kind, body, done, size_bytes)

    def _take(self, is_new: bool, _from: int, octets: bytes) -> asyncio.Future[str]:
        """Store what another shard gives; answered after the commit. Known already is as good as stored."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        _, message, deliveries = unpack(octets)
        # What a left store has, or had until it was delivered: it comes from there, or came.
        new = [delivery for delivery in deliveries if not self.knows_left(delivery.key)]

        def done(error: StoreError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result("stored")
            elif isinstance(error, Duplicate):
                self._duplicates[0] += 1
                future.set_result("known")
            else:
                future.set_exception(error)

        try:
            if not new:
                raise Duplicate(f"{deliveries[0].message_id.hex()} is in a left store")
            self.acceptor.admit(new, message, done, is_new=is_new)
        except StoreError as error:
            done(error)
        return future
