"""Notifications to senders, bounce messages first of all: made, stored, and sent like any mail.

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
from engine.core.terms import NO_TERMS, Terms
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

    def bounce(
        self,
        delivery: Delivery,
        recipients: list[Failure],
        reason: str,
        action: str = "failed",
        retry_until: float = 0.0,
    ) -> None:
        """Tell the sender what became of recipients; the null sender is never told (RFC 5321 section 6.1)."""
        envelope = delivery.envelope
        if not envelope.sender:
            return
        terms = envelope.terms or NO_TERMS
        now = self._unix()
        message_id = self._ids.make(now)
        message = make_bounce(
            Bounce(
                sender=envelope.sender,
                failures=recipients,
                reporting_mta=self._hostname,
                postmaster=self._postmaster,
                message_id=f"{message_id.hex()}@{self._hostname}",
                original=delivery.message,
                arrived_at=envelope.accepted_at,
                now=now,
                reason=reason,
                action=action,
                envid=terms.envid,
                orcpts={each.recipient: terms.orcpt_of(each.recipient) for each in recipients},
                is_whole=terms.ret == "FULL" and not terms.requires_tls,  # RFC 8689 5: as if RET=HDRS
                deliver_by_at=terms.deliver_by_at,
                hold_until=terms.hold_until,
                retry_until=retry_until,
            )
        )
        facts = Envelope(
            "",
            envelope.customer,
            envelope.pool,
            now,
            len(message),
            "bounce",
            not message.isascii(),
            "",
            envelope.job,
            envelope.tags,
            _terms_of(envelope),
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


def _terms_of(envelope: Envelope) -> Terms | None:
    """Return what a bounce asks for: it is protected as the message was that it tells of (RFC 8689 5)."""
    requires_tls = envelope.terms is not None and envelope.terms.requires_tls
    is_utf8 = not envelope.sender.isascii()
    return Terms(is_utf8=is_utf8, requires_tls=requires_tls) if is_utf8 or requires_tls else None
