"""The one door in: every feed's messages are checked, completed, signed, placed and stored here. HOT.

`done` is called once, when the message is durable in the store of the shard that owns it, or with the
reply that refuses it. A promise to an injector is made nowhere else.

Owns: whose mail it is, whether its sender may be used, what is added to and taken from its header.
Never: speaks a feed's protocol, chooses weights (queue.placement), decides what is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from engine.core.address import domain_of, matches_sender
from engine.core.envelope import MAX_DELIVERIES, Delivery, Envelope, MessageIds
from engine.core.errors import PerhapsStored, Refused, StoreError, StoreFull
from engine.core.reply import Reply, make_reply
from engine.core.terms import Terms
from engine.inject.context import Done, FeedContext
from engine.inject.terms import mark_utf8, parse_asked
from engine.message.encode import encode_8bit
from engine.message.headers import Controls, Scan, complete, from_domain, is_tls_optional, scan, take_controls
from engine.settings.model import Customer
from engine.telemetry.events import Event, Peer
from engine.telemetry.metrics import Cell, Counters

MAX_RECEIVED = 100  # hops (RFC 5321 section 6.3: at least 100)
MAX_RECIPIENTS_PER_DELIVERY = 100  # what every peer takes in one transaction (RFC 5321 section 4.5.3.1.8)

MAX_MAY_SEND = 10_000  # pairs of customer and sender known to be allowed or not: 2 MB at most

NO_CUSTOMER = make_reply(550, "5.7.1", "no such customer, or none named")
NO_POOL = make_reply(550, "5.7.1", "no such pool")
TOO_MANY_HOPS = make_reply(554, "5.4.6", f"more than {MAX_RECEIVED} Received fields: a mail loop")
FULL = make_reply(452, "4.3.1", "insufficient storage, try again later")
UNHEALTHY = make_reply(451, "4.3.0", "the store is not available, try again later")
DRAINING = make_reply(421, "4.3.2", "draining, no new mail here")

PERHAPS = "shard "  # of Delivery.held: the shard that may have stored it already


class IntakeStore(Protocol):
    """What acceptance needs of the store."""

    def put(
        self,
        deliveries: list[Delivery],
        message: bytes,
        done: Callable[[StoreError | None], None],
        *,
        claim: str = "",
        idempotency: str = "",
        reply: bytes = b"",
        is_forwarded: bool = False,
    ) -> None: ...


class Forward(Protocol):
    """Gives a message to the shard that will own it; `done(None)` after its commit."""

    def __call__(
        self,
        shard: int,
        deliveries: list[Delivery],
        message: bytes,
        done: Callable[[StoreError | None], None],
    ) -> None: ...


class _AcceptedCells(NamedTuple):
    """What counts the messages of one customer through one listener."""

    messages: Cell
    injections: Cell
    injected_bytes: Cell


class Acceptor:
    """Takes messages from the feeds of one shard."""

    def __init__(  # noqa: PLR0913 (its collaborators, given once by the shard)
        self,
        *,
        shard: int,
        ids: MessageIds,
        store: IntakeStore,
        place: Callable[[str], int],
        forward: Forward,
        arrived: Callable[[Delivery], None],
        sign: Callable[[str, str, bytes, float], bytes],
        add_event: Callable[[Event], None],
        counters: Counters,
        unix_clock: Callable[[], float],
    ) -> None:
        """Args:
        place: pool to the shard that shall own the message.
        arrived: a delivery is committed here.
        sign: (customer, From domain, message, Unix seconds) to DKIM fields, b"" where it has no key.
        """
        self._shard = shard
        self._hostname = ""
        self._ids = ids
        self._store = store
        self._place = place
        self._forward = forward
        self._arrived = arrived
        self._sign = sign
        self._add_event = add_event
        self._counters = counters
        self._unix = unix_clock
        self._customers: Mapping[str, Customer] = {}
        self._pools: Mapping[str, Any] = {}
        self._cells: dict[tuple[str, str, str], _AcceptedCells] = {}
        self._may_send: dict[tuple[str, str], Reply | None] = {}  # customer and sender to the refusal
        self.is_draining = False

    def use(self, hostname: str, customers: Mapping[str, Customer], pools: Mapping[str, Any]) -> None:
        """Accept for these customers, as this host, from now on (start, reload)."""
        self._hostname = hostname
        self._customers = customers
        self._pools = pools
        self._may_send.clear()

    # -- checks that a feed may make early --------------------------------------------------------

    def check_sender(self, context: FeedContext, sender: str) -> Reply | None:
        """Return why this sender may not be used, None if it may. The null sender always may."""
        if self.is_draining:
            return DRAINING
        if not context.customer:
            return None  # named later, by a header or a field
        customer = self._customers.get(context.customer)
        if customer is None:
            return NO_CUSTOMER
        return self._check_sender(customer, sender)

    # -- a message --------------------------------------------------------------------------------

    def accept(
        self,
        sender: str,
        recipients: list[str],
        message: bytes,
        is_8bit: bool,
        context: FeedContext,
        done: Done,
    ) -> None:
        """Take a message; `done(reply, message ids in hex)` comes once, after the commit if it is taken.

        Args:
            message: header and body, CRLF lines, not stuffed, within the listener's bounds.
        """
        if self.is_draining:
            self._refuse(DRAINING, context, done)
            return
        scanned = scan(message)
        controls, stripped = take_controls(message, scanned, is_trusted=context.is_trusted)
        if stripped is not message:
            message, scanned = stripped, scan(stripped)
        customer = self._customers.get(context.customer or controls.customer)
        refusal = self._refusal(customer, sender, scanned, controls, context)
        if refusal is not None or customer is None:
            self._refuse(refusal or NO_CUSTOMER, context, done)
            return
        if is_8bit and customer.encode_8bit == "always":
            message = encode_8bit(message)
            scanned, is_8bit = scan(message), not message.isascii()
        now = self._unix()
        terms = context.terms
        if terms is not None or controls.terms or is_8bit or context.feed != "smtp":
            try:
                terms = _agree(context, controls, sender, recipients, scanned, now)
            except Refused as refused:
                self._refuse(refused.reply, context, done)
                return
        message_id = self._ids.make(now)
        added = complete(
            scanned,
            hostname=self._hostname,
            message_id=message_id.hex(),
            protocol=context.protocol if context.feed == "smtp" else context.feed,
            helo=context.helo,
            peer=context.peer,
            recipient=recipients[0] if len(recipients) == 1 else "",
            unix_now=now,
            is_utf8=terms is not None and terms.is_utf8,
        )
        message = added + message
        if customer.dkim:
            message = self._sign(customer.name, from_domain(message) or "", message, now) + message
        envelope = Envelope(
            sender,
            customer.name,
            controls.pool or context.pool or customer.pool,
            now,
            len(message),
            context.feed,
            is_8bit,
            context.peer,
            controls.job or context.job,
            controls.tags or context.tags,
            terms,
            is_tls_optional=is_tls_optional(scanned),
        )
        self._store_or_forward(message_id, envelope, recipients, message, context, done)

    def _refusal(
        self, customer: Customer | None, sender: str, scanned: Scan, controls: Controls, context: FeedContext
    ) -> Reply | None:
        if customer is None:
            return NO_CUSTOMER
        pool = controls.pool or context.pool
        if pool and pool not in self._pools:
            return NO_POOL
        if scanned.received_count > MAX_RECEIVED:
            return TOO_MANY_HOPS
        return self._check_sender(customer, sender)

    def _check_sender(self, customer: Customer, sender: str) -> Reply | None:
        """Return why a customer may not send as that; known pairs are kept: bulk comes from few senders."""
        key = (customer.name, sender)
        known = self._may_send
        if key not in known:
            if len(known) >= MAX_MAY_SEND:
                known.clear()
            known[key] = _check_sender(customer, sender)
        return known[key]

    def _store_or_forward(
        self,
        message_id: bytes,
        envelope: Envelope,
        recipients: list[str],
        message: bytes,
        context: FeedContext,
        done: Done,
    ) -> None:
        deliveries = make_deliveries(message_id, envelope, recipients)
        if context.claim or context.idempotency:  # kept where its claim or id is; it isn't placed
            self._put(deliveries, message, context, done)
            return
        shard = self._place(envelope.pool)
        if shard == self._shard:
            self._put(deliveries, message, context, done)
            return

        def forwarded(error: StoreError | None) -> None:
            if error is None:
                self._answer(deliveries, context, done)
                return
            if isinstance(error, PerhapsStored):
                for delivery in deliveries:  # offered to that shard first, which knows whether it has it
                    delivery.held = f"{PERHAPS}{error.shard}"
            # That shard is down or full: keep it here; it is handed over when that is possible.
            self._put(deliveries, message, context, done)

        self._forward(shard, deliveries, message, forwarded)

    def _put(self, deliveries: list[Delivery], message: bytes, context: FeedContext, done: Done) -> None:
        def committed(error: StoreError | None) -> None:
            if error is not None:
                self._refuse(_reply_to(error), context, done)
                return
            for delivery in deliveries:
                delivery.message = message
                self._arrived(delivery)
            self._answer(deliveries, context, done)

        try:
            self._store.put(
                deliveries,
                message,
                committed,
                claim=context.claim,
                idempotency=context.idempotency,
                reply=deliveries[0].message_id if context.idempotency else b"",
            )
        except StoreError as error:
            self._refuse(_reply_to(error), context, done)
            return
        self._tell_accepted(deliveries, context)  # in the same turn, and so with the same commit

    # -- telling ----------------------------------------------------------------------------------

    def admit(
        self,
        deliveries: list[Delivery],
        message: bytes,
        done: Callable[[StoreError | None], None],
        *,
        is_new: bool,
    ) -> None:
        """Store what another shard has accepted and placed here (new), or hands over.

        Raises:
            StoreError: nothing was staged.
        """

        def committed(error: StoreError | None) -> None:
            if error is None:
                for delivery in deliveries:
                    self._arrived(delivery)
            done(error)

        self._store.put(deliveries, message, committed, is_forwarded=True)
        if is_new:
            envelope = deliveries[0].envelope
            self._tell_accepted(deliveries, FeedContext(envelope.feed, "", peer=envelope.peer))

    def _tell_accepted(self, deliveries: list[Delivery], context: FeedContext) -> None:
        """The accepted event goes to disk with the message's own transaction."""
        first = deliveries[0]
        envelope = first.envelope
        recipients = (
            [r for d in deliveries for r in d.recipients] if len(deliveries) > 1 else first.recipients
        )
        event = Event(
            "accepted",
            envelope.accepted_at,
            first.message_id.hex(),
            envelope.customer,
            envelope.pool,
            envelope.sender,
            envelope.accepted_at,
            envelope.size_bytes,
            self._shard,
        )
        event.recipients = list(recipients)
        event.feed = envelope.feed
        event.listener = context.listener
        event.job = envelope.job
        event.tags = envelope.tags
        if context.peer:
            event.peer = Peer(context.helo, context.peer)
        self._add_event(event)

    def _answer(self, deliveries: list[Delivery], context: FeedContext, done: Done) -> None:
        first = deliveries[0]
        cells = self._accepted_cells(first.envelope.customer, context)
        cells.messages[0] += (
            sum(len(delivery.recipients) for delivery in deliveries)
            if len(deliveries) > 1
            else len(first.recipients)
        )
        cells.injections[0] += 1
        cells.injected_bytes[0] += first.envelope.size_bytes
        message_id = first.message_id.hex()
        done(make_reply(250, "2.0.0", f"Ok: queued as {message_id}"), [message_id])

    def _refuse(self, reply: Reply, context: FeedContext, done: Done) -> None:
        feed, listener = context.feed, context.listener
        refused = self._counters.counter
        refused("mailrail_injections_total", feed=feed, listener=listener, result="refused")[0] += 1
        done(reply, [])

    def _accepted_cells(self, customer: str, context: FeedContext) -> _AcceptedCells:
        feed, listener = context.feed, context.listener
        key = (customer, feed, listener)
        cells = self._cells.get(key)
        if cells is None:
            counter = self._counters.counter
            cells = self._cells[key] = _AcceptedCells(
                counter("mailrail_messages_total", event="accepted", customer=customer, destination=""),
                counter("mailrail_injections_total", feed=feed, listener=listener, result="accepted"),
                counter("mailrail_injected_bytes_total", feed=feed, listener=listener),
            )
        return cells


def make_deliveries(message_id: bytes, envelope: Envelope, recipients: list[str]) -> list[Delivery]:
    """Return one delivery for each recipient domain, or more where a domain has very many recipients."""
    terms = envelope.terms
    now = envelope.accepted_at if terms is None else terms.hold_until or envelope.accepted_at
    if len(recipients) == 1:
        return [Delivery(message_id, 0, envelope, domain_of(recipients[0]), recipients, now)]
    by_domain: dict[tuple[str, bool], list[str]] = {}
    for recipient in dict.fromkeys(recipients):
        # Apart: a peer without SMTPUTF8 may still take those that don't need it.
        by_domain.setdefault((domain_of(recipient), recipient.isascii()), []).append(recipient)
    groups = [
        (domain, group[start : start + MAX_RECIPIENTS_PER_DELIVERY])
        for (domain, _), group in by_domain.items()
        for start in range(0, len(group), MAX_RECIPIENTS_PER_DELIVERY)
    ]
    assert len(groups) < MAX_DELIVERIES
    return [
        Delivery(message_id, index, envelope, domain, group, now)
        for index, (domain, group) in enumerate(groups)
    ]


def _agree(
    context: FeedContext,
    controls: Controls,
    sender: str,
    recipients: list[str],
    scanned: Scan,
    unix_now: float,
) -> Terms | None:
    """Return the terms of a message that asks for something, or might without saying so."""
    terms = context.terms
    asked = context.asked or controls.terms
    if asked:
        terms = parse_asked(asked, terms, max_hold_s=context.max_hold_s, unix_now=unix_now)
    return mark_utf8(terms, sender, recipients, scanned.header, context.feed)


def _check_sender(customer: Customer, sender: str) -> Reply | None:
    if not sender or any(matches_sender(pattern, sender) for pattern in customer.senders):
        return None
    return make_reply(550, "5.7.1", f"customer {customer.name} may not send as <{sender}>")


def _reply_to(error: StoreError) -> Reply:
    return FULL if isinstance(error, StoreFull) else UNHEALTHY
