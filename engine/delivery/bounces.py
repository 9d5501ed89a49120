"""Bounce messages to the sender of what failed: made, stored, and sent like any mail.

The bounce is staged before the removal of what it tells of, and so is on disk no later.

Owns: when a bounce is made, and whose mail it is (the customer's whose message failed).
Never: words it (message.dsn).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.core.address import domain_of
from engine.core.envelope import Delivery, Envelope, MessageIds
from engine.core.errors import StoreError
from engine.message.dsn import Bounce, Failure, make_bounce
from engine.settings.model import Settings
from engine.telemetry.events import Event
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

log = Log("bounces")


class BounceStore(Protocol):
    """What bouncing needs of the store."""

    def put(
        self,
        deliveries: list[Delivery],
        message: bytes,
        done: Callable[[StoreError | None], None],
        *,
        is_own: bool = False,
    ) -> None: ...


class Bouncer:
    """Makes bounce messages."""

    def __init__(
        self,
        store: BounceStore,
        ids: MessageIds,
        arrived: Callable[[Delivery], None],
        add_event: Callable[[Event], None],
        counters: Counters,
        shard: int,
        unix_clock: Callable[[], float],
    ) -> None:
        self._counters = counters
        self._shard = shard
        self._store = store
        self._ids = ids
        self._arrived = arrived
        self._add_event = add_event
        self._unix = unix_clock
        self._hostname = ""
        self._postmaster = ""
        self.made = 0

    def use(self, settings: Settings) -> None:
        """Take host name and postmaster from these settings."""
        self._hostname = settings.engine.hostname
        self._postmaster = settings.engine.postmaster

    def bounce(self, delivery: Delivery, failed: list[Failure], reason: str) -> None:
        """Tell the sender which recipients failed; the null sender is never told (RFC 5321 section 6.1)."""
        envelope = delivery.envelope
        if not envelope.sender:
            return
        now = self._unix()
        message_id = self._ids.make(now)
        message = make_bounce(
            Bounce(
                sender=envelope.sender,
                failures=failed,
                reporting_mta=self._hostname,
                postmaster=self._postmaster,
                message_id=f"{message_id.hex()}@{self._hostname}",
                original=delivery.message,
                arrived_at=envelope.accepted_at,
                now=now,
                reason=reason,
            )
        )
        facts = Envelope(
            "",
            envelope.customer,
            envelope.pool,
            now,
            len(message),
            "bounce",
            False,
            "",
            envelope.job,
            envelope.tags,
            # RFC 8689 section 5: what bounces a protected message is protected too.
            requires_tls=envelope.requires_tls,
        )
        told = Delivery(message_id, 0, facts, domain_of(envelope.sender), [envelope.sender], now, message)

        def committed(error: StoreError | None) -> None:
            if error is None:
                self._arrived(told)
            else:
                log.error("bounce message not stored", id=delivery.message_id.hex(), reason=str(error))

        try:
            self._store.put([told], message, committed, is_own=True)
        except StoreError as error:
            log.error("bounce message not stored", id=delivery.message_id.hex(), reason=str(error))
            return
        self.made += 1
        self._tell(told, facts, now)

    def _tell(self, told: Delivery, facts: Envelope, now: float) -> None:
        event = Event(
            "accepted", now, told.message_id.hex(), facts.customer, facts.pool, "", now, facts.size_bytes
        )
        event.recipients = list(told.recipients)
        event.shard = self._shard
        event.feed = "bounce"
        self._counters.counter(
            "mailrail_messages_total", event="accepted", customer=facts.customer, destination=""
        )[0] += 1
        self._add_event(event)
