"""Deliveries whose pool has no vmta on this shard, given to a shard that has one.

Written there, committed there, only then removed here. The owner remembers the delivery's key, in the
transaction that stores it and for 24 hours after it has left, so a crash in between is answered with
"known already" when the delivery is offered again.

Owns: what is under way to another shard.
Never: chooses weights (queue.placement does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from engine.core.envelope import Delivery, Envelope
from engine.core.errors import NetworkError
from engine.telemetry.log import Log

MAX_UNDER_WAY = 256
AGAIN_S = 1.0  # a shard that is down is asked again by then (the scan of readahead comes back)

log = Log("handover")


class Parcel(msgspec.Struct, array_like=True, gc=False):
    """A message with its deliveries, as it crosses from shard to shard."""

    envelope: Envelope
    message: bytes
    message_id: bytes
    deliveries: list[
        tuple[int, str, list[str], float, int, str, int]
    ]  # index, domain, recipients, due, attempts, reply, told


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Parcel).decode


def pack(envelope: Envelope, message: bytes, deliveries: list[Delivery]) -> bytes:
    """Return the parcel as octets."""
    rows = [(d.index, d.domain, d.recipients, d.due_at, d.attempts, d.last_reply, d.told) for d in deliveries]
    return _encode(Parcel(envelope, message, deliveries[0].message_id, rows))


def unpack(octets: bytes) -> tuple[Envelope, bytes, list[Delivery]]:
    """Return envelope, message and deliveries; they are remembered when they leave."""
    parcel = _decode(octets)
    deliveries = [
        Delivery(
            parcel.message_id,
            index,
            parcel.envelope,
            domain,
            recipients,
            due_at,
            parcel.message,
            attempts,
            last_reply,
            "",
            True,
            told,
        )
        for index, domain, recipients, due_at, attempts, last_reply, told in parcel.deliveries
    ]
    return parcel.envelope, parcel.message, deliveries


class Handover:
    """Gives deliveries to the shards that can carry them."""

    def __init__(
        self,
        send: Callable[[int, str, Any, Callable[[Any, NetworkError | None], None], int], None],
        keeper_of: Callable[[Delivery], int | None],
        on_gone: Callable[[Delivery], None],
        on_failed: Callable[[Delivery, int | None], None],
    ) -> None:
        """Args:
        send: asks a peer shard (control.peers).
        keeper_of: the shard to give a delivery to; None: none can take it now.
        on_gone: the other shard has it; remove it here.
        on_failed: still ours; the number of a shard that may have it as well.
        """
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._keeper_of = keeper_of
        self._on_gone = on_gone
        self._on_failed = on_failed
        self._under_way = 0

    def offer(self, delivery: Delivery, shard: int | None = None) -> bool:
        """Begin to hand a delivery over, to `shard` if it asked for it; False where none can take it now."""
        if shard is None:
            shard = self._keeper_of(delivery)
        if shard is None or self._under_way >= MAX_UNDER_WAY:
            return False
        self._under_way += 1

        def done(_result: Any, error: NetworkError | None) -> None:
            self._under_way -= 1
            if error is None:
                self._on_gone(delivery)
            else:
                log.info("hand-over failed", id=delivery.message_id.hex(), shard=shard, reason=str(error))
                perhaps = None if error.phase == "request" else shard
                self._loop.call_later(AGAIN_S, self._on_failed, delivery, perhaps)

        octets = pack(delivery.envelope, delivery.message, [delivery])
        self._loop.call_soon(self._send, shard, "handover", octets, done, len(octets))
        return True
