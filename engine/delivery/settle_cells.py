"""The counters that settling adds to, for one destination label. HOT.

Owns: which metric a disposition counts in.
Never: decides one (settle does).
"""

from __future__ import annotations

from engine.core.envelope import Delivery
from engine.smtp.client import Outcome
from engine.telemetry.events import Event
from engine.telemetry.metrics import Cell, Counters, Histogram


class SettleCells:
    """The counters of one destination label."""

    __slots__ = (
        "_by_category",
        "_by_event",
        "_counters",
        "_label",
        "_transactions",
        "attempt",
        "queue",
        "sent",
    )

    def __init__(self, counters: Counters, label: str) -> None:
        self._counters = counters
        self._label = label
        self.sent = counters.counter("mailrail_sent_bytes_total", destination=label)
        self.queue: Histogram = counters.histogram("mailrail_queue_seconds", destination=label)
        self.attempt: Histogram = counters.histogram("mailrail_attempt_seconds", destination=label)
        self._by_event: dict[tuple[str, str], Cell] = {}
        self._transactions: dict[str, Cell] = {}
        self._by_category: dict[tuple[str, str], Cell] = {}

    def count_transaction(self, outcome: Outcome, delivery: Delivery) -> None:
        """Count a transaction by how it ended."""
        result = result_of(outcome)
        cell = self._transactions.get(result)
        if cell is None:
            cell = self._transactions[result] = self._counters.counter(
                "mailrail_transactions_total", destination=self._label, result=result
            )
        cell[0] += 1
        if result in ("accepted", "uncertain"):
            self.sent[0] += len(delivery.message)

    def count(self, event: Event, label: str) -> None:
        """Count what became of a recipient; `label` names its destination among all messages."""
        key = (event.event, event.customer)
        cell = self._by_event.get(key)
        if cell is None:
            cell = self._by_event[key] = self._counters.counter(
                "mailrail_messages_total", event=event.event, customer=event.customer, destination=label
            )
        cell[0] += 1
        if event.event != "deferred":
            self.queue.observe(event.queue_s)
        if event.category:
            self._count_category(event.event, event.category)

    def _count_category(self, event: str, category: str) -> None:
        key = (event, category)
        cell = self._by_category.get(key)
        if cell is None:
            cell = self._by_category[key] = self._counters.counter(
                "mailrail_classified_total", event=event, category=category, destination=self._label
            )
        cell[0] += 1


def result_of(outcome: Outcome) -> str:
    """Return how a transaction ended: accepted, temporary, permanent, lost or uncertain."""
    if outcome.is_uncertain:
        return "uncertain"
    reply = outcome.final or outcome.reply_for(0)
    if reply is None or (reply.synthetic and reply.is_temporary):
        return "lost"
    return "accepted" if reply.code < 300 else "permanent" if reply.code >= 500 else "temporary"
