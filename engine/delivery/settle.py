"""Outcomes to dispositions: what each recipient of a transaction gets. HOT.

The event is given to the log before the store learns of the removal, and both go to disk with the
same commit, event first: a crash in between tells of a delivery twice, and loses none.

Owns: which code is which disposition, when a deferred delivery is due again, what bounces.
Never: knows what a refusal means (judging does), chooses what is delivered next, opens or closes sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from engine.core.envelope import Delivery
from engine.core.reply import Reply, make_reply
from engine.delivery.crowding import crowded_out
from engine.delivery.flight import NOBODY, Bearer, Flight, Met
from engine.delivery.judging import Judge, Judgement
from engine.delivery.notices import is_told_of_relay, next_notice, told_of_delay, told_of_failure
from engine.delivery.settle_cells import SettleCells
from engine.delivery.site_queue import SiteQueue
from engine.message.dsn import Failure
from engine.net.site import Site
from engine.policy.model import Destination, Policy
from engine.policy.on_reply import ReplyRule
from engine.queue.scheduled import expires_at, retry_at
from engine.smtp.client import Outcome
from engine.smtp.enhanced import status_of
from engine.telemetry.events import Event
from engine.telemetry.labels import DestinationLabels
from engine.telemetry.metrics import Counters

EXPIRED = make_reply(554, "5.4.7", "delivery time expired")
MAX_REPLY_CHARS = 1000  # of the last reply, as the store keeps it


class SettleStore(Protocol):
    """What settling needs of the store."""

    def amend(self, delivery: Delivery, due_at: float) -> None: ...
    def remove(self, delivery: Delivery) -> None: ...


class Settlement(Protocol):
    """Who hears what became of a delivery."""

    def deferred(self, delivery: Delivery) -> None:
        """It is scheduled again, and no longer ready."""

    def ended(self, delivery: Delivery) -> None:
        """Its last recipient has a disposition."""

    def ready_again(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        """It goes back to the head of its ready queue."""


class Bounce(Protocol):
    """Tells the sender what became of recipients; action: failed, delayed, relayed or delivered."""

    def __call__(
        self,
        delivery: Delivery,
        recipients: list[Failure],
        reason: str,
        action: str = "failed",
        retry_until: float = 0.0,
    ) -> None: ...


class Whither(NamedTuple):
    """Where a delivery would go that is in no ready queue; its site where DNS told."""

    destination: Destination
    site: Site | None


# What a transaction says of its path: who carried it, the last reply, events of who was refused.
Heed = Callable[[Bearer, Reply | None, Sequence[Event]], None]


def _heed_nothing(session: Bearer, final: Reply | None, refused: Sequence[Event]) -> None:
    pass


class Dispositions:
    """Gives every recipient its disposition."""

    def __init__(  # noqa: PLR0913 (its collaborators, given once by the shard)
        self,
        store: SettleStore,
        add_event: Callable[[Event], None],
        counters: Counters,
        labels: DestinationLabels,
        settlement: Settlement,
        bounce: Bounce,
        *,
        judge: Judge,
        shard: int,
        unix_clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        """`bounce(delivery, failed, reason)` makes the message that tells the sender."""
        self._store = store
        self._add_event = add_event
        self._counters = counters
        self._labels = labels
        self._settlement = settlement
        self._bounce = bounce
        self._judge = judge
        self._shard = shard
        self._unix = unix_clock
        self._jitter = jitter
        self._cells: dict[str, SettleCells] = {}
        self._uncertain = counters.counter("mailrail_uncertain_total")
        self.heed: Heed = _heed_nothing  # what each transaction says of its path
        self.on_carried: Callable[[Bearer, str], None] | None = None  # a session carried mail of a domain
        self.on_settled: Callable[[Any, Flight, Outcome], None] = lambda *_: None

    # -- a transaction ended ----------------------------------------------------------------------

    def settle(self, flight: Flight, outcome: Outcome, session: Bearer) -> None:
        """Give every recipient of the flight its disposition."""
        delivery = flight.delivery
        site_queue = flight.site_queue
        now = self._unix()
        cells = self._cells_of(site_queue.destination.name)
        attempt_s = session.now - flight.begun_at
        cells.attempt.observe(attempt_s)
        cells.count_transaction(outcome, delivery)
        if self.on_carried is not None:
            self.on_carried(session, delivery.domain)
        deferred: list[str] = []
        waiting: list[Event] = []
        failed: list[Failure] = []
        relayed: list[Failure] = []
        refused: list[Event] = []
        terms = delivery.envelope.terms
        untried = _untried(outcome, len(flight.recipients))
        for index, recipient in enumerate(flight.recipients):
            if index in untried:
                continue
            reply = outcome.reply_for(index) or make_reply(451, "4.4.2", "connection lost")
            judgement = self._judge_reply(reply, outcome, index, flight)
            disposition = judgement.disposition if judgement else "delivered"
            event = self._event(disposition, delivery, recipient, now, site_queue)
            _describe(event, session, reply, delivery.attempts + 1, attempt_s)
            event.status = status_of(reply, phase_of(reply, outcome, index))
            if judgement:
                judgement.mark(event, delivery)
                refused.append(event)
            if disposition == "deferred":
                deferred.append(recipient)
                waiting.append(event)
                delivery.last_reply = str(reply)[:MAX_REPLY_CHARS]
                event.is_uncertain = outcome.is_uncertain and reply is outcome.final
                self._uncertain[0] += event.is_uncertain
            elif disposition == "bounced":
                failed.append(
                    Failure(recipient, reply, session.facts.peer.host, "" if reply.enhanced else event.status)
                )
            elif terms is not None and is_told_of_relay(terms, recipient, session.extensions):
                relayed.append(Failure(recipient, reply, session.facts.peer.host))
            self._add_event(event)
            self._count(cells, event)
        if relayed:
            self._bounce(delivery, relayed, "", "relayed")
        self.heed(session, outcome.final, refused)
        rest = delivery.recipients[len(flight.recipients) :]
        if untried:
            rest = [flight.recipients[index] for index in sorted(untried)] + rest
        self._close(delivery, site_queue, rest, deferred, failed, now)
        if not delivery.deferred:  # else others of it are tried first
            for event in waiting:  # lines are made when the commit begins
                event.due_at = delivery.due_at
        self.on_settled(session, flight, outcome)

    def _judge_reply(self, reply: Reply, outcome: Outcome, index: int, flight: Flight) -> Judgement | None:
        """Return what a reply means for a recipient; None where it is delivered."""
        by_code = disposition_of(reply, outcome, index)
        if by_code == "delivered":
            return None
        provider = flight.site_queue.destination.provider
        attempts = flight.delivery.attempts + 1
        judgement = self._judge.judge(reply, provider, attempts, is_permanent=by_code == "bounced")
        return judgement.overruled(flight.fired.get(id(reply))) if flight.fired else judgement

    def put_back(self, flight: Flight) -> None:
        """The peer never looked at it: it is ready again, and this was no attempt."""
        self._settlement.ready_again(flight.delivery, flight.site_queue)

    def _close(
        self,
        delivery: Delivery,
        site_queue: SiteQueue,
        rest: list[str],
        deferred: list[str],
        failed: list[Failure],
        now: float,
    ) -> None:
        """Bring the delivery's record up to date: gone, due later, or ready with the untried `rest`."""
        policy = site_queue.policy_of(delivery.envelope.customer)
        if failed and policy.bounce_message:
            self._tell_failed(delivery, failed, "")
        if not rest and not deferred:
            self._store.remove(delivery)
            self._settlement.ended(delivery)
            return
        delivery.recipients = rest + deferred
        delivery.deferred += len(deferred)
        if delivery.deferred < len(delivery.recipients):
            self._store.amend(delivery, delivery.due_at)
            self._settlement.ready_again(delivery, site_queue)
        else:
            self._defer(delivery, policy, now)

    def _defer(self, delivery: Delivery, policy: Policy, now: float) -> None:
        delivery.attempts += 1
        delivery.deferred = 0
        wait_s = retry_at(0.0, delivery.attempts, self._jitter(), policy.retry_s)
        due_at = now + max(wait_s * delivery.wait_factor, delivery.wait_least_s)
        delivery.wait_factor, delivery.wait_least_s = 1, 0.0
        until = expires_at(delivery.envelope, policy.expire_after_s)
        if delivery.envelope.terms is not None:
            due_at = min(due_at, self._tell_delayed(delivery, policy, now, until))
        self._store.amend(delivery, min(due_at, max(now, until)))
        self._settlement.deferred(delivery)

    # -- what the sender is told ------------------------------------------------------------------

    def tell_late(self, delivery: Delivery, policy: Policy) -> None:
        """Send the notices that are due of a delivery that is ready, and waits without an attempt."""
        before = delivery.told
        until = expires_at(delivery.envelope, policy.expire_after_s)
        self._tell_delayed(delivery, policy, self._unix(), until)
        if delivery.told != before:
            self._store.amend(delivery, delivery.due_at)

    def _tell_failed(self, delivery: Delivery, failed: list[Failure], reason: str) -> None:
        told = told_of_failure(delivery.envelope.terms, failed)
        if told:
            self._bounce(delivery, told, reason)

    def _tell_delayed(self, delivery: Delivery, policy: Policy, now: float, until: float) -> float:
        """Send the notices that are due; return when the next one is: the delivery is tried again then."""
        at, kind = next_notice(delivery, policy.delay_notice_after_s)
        while at <= now:
            text = "not delivered yet" + (
                f"; last reply: {delivery.last_reply}" if delivery.last_reply else ""
            )
            reply = make_reply(451, "4.4.7", text)
            late = [Failure(recipient, reply) for recipient in told_of_delay(delivery, kind)]
            self._bounce(delivery, late, "", "delayed", until)
            delivery.told |= kind
            at, kind = next_notice(delivery, policy.delay_notice_after_s)
        return at

    # -- without a transaction --------------------------------------------------------------------

    def defer(
        self, delivery: Delivery, site_queue: SiteQueue, reply: Reply, vmta: str = "", met: Met = NOBODY
    ) -> None:
        """An attempt failed before any transaction: no session, perhaps no host."""
        policy = site_queue.policy_of(delivery.envelope.customer)
        self.defer_by(delivery, reply, policy, self._unix(), site_queue, vmta, met)

    def defer_by(
        self,
        delivery: Delivery,
        reply: Reply,
        policy: Policy,
        now: float,
        site_queue: SiteQueue | None,
        vmta: str = "",
        met: Met = NOBODY,
    ) -> None:
        """The same, for a delivery that may have no site yet."""
        delivery.last_reply = str(reply)[:MAX_REPLY_CHARS]
        events = self._tell_all("deferred", delivery, reply, now, site_queue, vmta, met=met)
        self._defer(delivery, policy, now)
        for event in events:
            event.due_at = delivery.due_at

    def bounce(
        self,
        delivery: Delivery,
        reply: Reply,
        policy: Policy,
        site_queue: SiteQueue | None,
        rule: ReplyRule | None = None,
    ) -> None:
        """Nothing can be delivered: every recipient bounces with `reply`."""
        self._end("bounced", delivery, reply, policy, site_queue, "", rule)

    def expire(
        self, delivery: Delivery, policy: Policy, site_queue: SiteQueue | Whither | None, reason: str = ""
    ) -> None:
        """It waited too long, on disk perhaps; `reason` is what it waited for."""
        text = EXPIRED.text + (f"; last reply: {delivery.last_reply}" if delivery.last_reply else "")
        text += f"; it waited for: {reason}" if reason else ""
        reply = make_reply(EXPIRED.code, EXPIRED.enhanced, text)
        self._end("expired", delivery, reply, policy, site_queue, reason)

    def cancel(self, delivery: Delivery, reason: str) -> None:
        """An operator ends it; nobody gets a bounce message."""
        self._tell_all("cancelled", delivery, None, self._unix(), None, "", reason)
        self._store.remove(delivery)
        self._settlement.ended(delivery)

    def _end(
        self,
        disposition: str,
        delivery: Delivery,
        reply: Reply,
        policy: Policy,
        site_queue: SiteQueue | Whither | None,
        reason: str,
        rule: ReplyRule | None = None,
    ) -> None:
        self._tell_all(disposition, delivery, reply, self._unix(), site_queue, "", reason, Met(rule=rule))
        if policy.bounce_message:
            self._tell_failed(delivery, [Failure(each, reply) for each in delivery.recipients], reason)
        self._store.remove(delivery)
        self._settlement.ended(delivery)

    def _tell_all(
        self,
        disposition: str,
        delivery: Delivery,
        reply: Reply | None,
        now: float,
        site_queue: SiteQueue | Whither | None,
        vmta: str = "",
        reason: str = "",
        met: Met = NOBODY,
    ) -> list[Event]:
        """Log one event for each recipient; return them."""
        events = []
        judgement: Judgement | None = None
        if reply is not None and disposition in ("deferred", "bounced"):
            provider = site_queue.destination.provider if site_queue else ""
            judgement = self._judge.judge_settled(disposition, reply, provider, delivery.attempts + 1)
            judgement = judgement.overruled(met.rule)
        cells = self._cells_of(site_queue.destination.name if site_queue else delivery.domain)
        for recipient in delivery.recipients:
            event = self._event(disposition, delivery, recipient, now, site_queue)
            event.reply = reply
            event.status = status_of(reply, met.phase) if reply is not None else ""
            event.peer = met.peer
            event.vmta = vmta
            if judgement is not None:
                judgement.mark(event, delivery)
            event.reason = reason
            event.attempt = delivery.attempts + (disposition == "deferred")
            self._add_event(event)
            self._count(cells, event)
            events.append(event)
        return events

    # -- events and counters ----------------------------------------------------------------------

    def _event(
        self,
        disposition: str,
        delivery: Delivery,
        recipient: str,
        now: float,
        site_queue: SiteQueue | Whither | None,
    ) -> Event:
        envelope = delivery.envelope
        event = Event(
            disposition,
            now,
            delivery.message_id.hex(),
            envelope.customer,
            envelope.pool,
            envelope.sender,
            envelope.accepted_at,
            envelope.size_bytes,
            self._shard,
            recipient,
        )
        event.domain = delivery.domain
        event.queue_s = round(now - envelope.accepted_at, 6)
        event.feed = envelope.feed
        event.job = envelope.job
        event.tags = envelope.tags
        if site_queue is not None:
            destination = site_queue.destination
            event.destination = destination.name
            event.provider = destination.provider
            event.site = site_queue.site.plain_name if site_queue.site else ""
        return event

    def _count(self, cells: SettleCells, event: Event) -> None:
        cells.count(event, self._labels.peek(event.destination or event.domain))

    def _cells_of(self, destination: str) -> SettleCells:
        label = self._labels.label(destination)
        cells = self._cells.get(label)
        if cells is None:
            cells = self._cells[label] = SettleCells(self._counters, label)
        return cells


def _untried(outcome: Outcome, count: int) -> frozenset[int]:
    """Return which recipients get another transaction, and no disposition in this one."""
    if outcome.is_cut:
        return frozenset(index for index in range(count) if outcome.reply_for(index) is None)
    return crowded_out(outcome) if count > 1 else frozenset()


def disposition_of(reply: Reply, outcome: Outcome, index: int) -> str:
    """Turn the reply that decides a recipient into delivered, deferred or bounced, by its code alone.

    552 at RCPT is temporary: RFC 5321 section 4.5.3.1.10 (too many recipients, said with the wrong code).
    """
    code = reply.code
    if code < 300:
        return "delivered"
    if code >= 500 and not (
        code == 552 and index < len(outcome.recipients) and outcome.recipients[index] is reply
    ):
        return "bounced"
    return "deferred"


def phase_of(reply: Reply, outcome: Outcome, index: int) -> str:
    """Return what the reply that decides a recipient answers: mail, rcpt or data."""
    if reply is outcome.mail:
        return "mail"
    is_of_rcpt = index < len(outcome.recipients) and outcome.recipients[index] is reply
    return "rcpt" if is_of_rcpt else "data"


def _describe(event: Event, session: Bearer, reply: Reply, attempt: int, attempt_s: float) -> None:
    event.reply = reply
    event.attempt = attempt
    event.attempt_s = round(attempt_s, 6)
    facts = session.facts
    event.vmta = facts.vmta
    event.source = facts.source
    event.hostname = facts.hostname
    event.peer = facts.peer
    event.session = facts.id
    event.tls = facts.tls
    event.tls_verification = facts.tls_verification
    event.tls_resumed = facts.tls_resumed
    event.proxy = facts.proxy
