"""Ready queue of one (pool, site): deficit round robin between customers.

Customers take turns; a turn is worth `share` units, a delivery costs one unit for each 32 KiB or part
of it. What a turn leaves over counts for the next, so a customer of large messages gets as many
octets as one of small ones, and a blast of a million delays another's single message by one turn at
most. A customer whose last delivery was taken leaves the round and its credit behind.

Owns: the order in which ready deliveries are taken; how many wait for each customer.
Never: knows due times, decides who may send. HOT: push and pop cost the same for any length.
After: Shreedhar and Varghese, Efficient Fair Queueing Using Deficit Round Robin (1995).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from math import inf

from engine.core.envelope import Delivery

COST_SHIFT = 15  # one unit for each 32 KiB: most mail costs one, and 10 MB do not count as one message
_COST_ROUND_UP = (1 << COST_SHIFT) - 1


def cost_of(delivery: Delivery) -> int:
    """Return how many units of its customer's turn a delivery takes."""
    return (delivery.envelope.size_bytes + _COST_ROUND_UP) >> COST_SHIFT or 1


def _one(_customer: str) -> int:
    return 1


class _Line:
    """What waits for one customer."""

    __slots__ = ("credit", "customer", "deliveries", "share")

    def __init__(self, customer: str, share: int) -> None:
        self.customer = customer
        self.share = share
        self.credit = 0
        self.deliveries: deque[Delivery] = deque()


class ReadyQueue:
    """Deliveries that may go at once, fair between customers."""

    __slots__ = ("_expires_at", "_length", "_lines", "_share_of", "_trimmed", "_turns")

    def __init__(self, share_of: Callable[[str], int] = _one) -> None:
        """Args: share_of: units of a customer's turn, at least 1; asked when its first delivery comes."""
        self._share_of = share_of
        self._lines: dict[str, _Line] = {}
        self._turns: deque[_Line] = deque()  # whose turn it is stands first; never an empty line
        self._length = 0
        self._trimmed = 0
        self._expires_at = inf  # none that waits expires earlier

    def __len__(self) -> int:
        return self._length

    def waiting(self, customer: str) -> int:
        """Return how many deliveries of that customer wait here."""
        line = self._lines.get(customer)
        return len(line.deliveries) if line is not None else 0

    def customers(self) -> dict[str, int]:
        """Return how many deliveries wait for each customer, who comes next first."""
        return {line.customer: len(line.deliveries) for line in self._turns}

    def __iter__(self) -> Iterator[Delivery]:
        for line in self._turns:
            yield from line.deliveries

    def push(self, delivery: Delivery, limit: int) -> bool:
        """Queue a delivery; False when its customer has `limit` waiting already. HOT."""
        customer = delivery.envelope.customer
        line = self._lines.get(customer)
        if line is None:
            if limit <= 0:
                return False
            line = self._join(customer)
            self._turns.append(line)
            if len(self._turns) == 1:
                line.credit = line.share
        elif len(line.deliveries) >= limit:
            return False
        line.deliveries.append(delivery)
        self._length += 1
        self._expires_at = min(self._expires_at, delivery.expires_at)
        return True

    def push_front(self, delivery: Delivery) -> None:
        """Give back a delivery that was taken and not tried: it goes first again, past any limit."""
        customer = delivery.envelope.customer
        line = self._lines.get(customer)
        if line is None:
            line = self._join(customer)
            self._turns.appendleft(line)
            line.credit = line.share
        line.deliveries.appendleft(delivery)
        self._length += 1
        self._expires_at = min(self._expires_at, delivery.expires_at)

    def pop(self) -> Delivery | None:
        """Take the delivery whose turn it is. HOT."""
        turns = self._turns
        passed = 0
        while turns:
            line = turns[0]
            deliveries = line.deliveries
            cost = (deliveries[0].envelope.size_bytes + _COST_ROUND_UP) >> COST_SHIFT or 1
            if len(turns) == 1:
                line.credit = max(line.credit, cost)  # nobody to be fair to
            elif line.credit < cost:
                turns.rotate(-1)
                turns[0].credit += turns[0].share
                passed += 1
                if passed >= len(turns):
                    self._leap()
                    passed = 0
                continue
            line.credit -= cost
            delivery = deliveries.popleft()
            self._length -= 1
            if not deliveries:
                turns.popleft()
                del self._lines[line.customer]
                if turns:
                    turns[0].credit += turns[0].share
            return delivery
        return None

    def pop_other(self, held: Container[str]) -> Delivery | None:
        """Take the delivery whose turn it is among customers that are not in `held`; visits each customer."""
        aside = [line for line in self._turns if line.customer in held]
        self._turns = deque(line for line in self._turns if line.customer not in held)
        delivery = self.pop()
        self._turns.extend(aside)
        return delivery

    def pop_last(self) -> Delivery | None:
        """Take a delivery that would have been among the last, of a customer with no fewer than most."""
        turns = self._turns
        if not turns:
            return None
        while True:
            self._trimmed = (self._trimmed + 1) % len(turns)
            line = turns[-1 - self._trimmed]
            if len(line.deliveries) * len(turns) >= self._length:
                break
        delivery = line.deliveries.pop()
        self._length -= 1
        if not line.deliveries:
            self._drop(line)
        return delivery

    def take(self, is_meant: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out all deliveries for which `is_meant` is true; visits each."""
        taken: list[Delivery] = []
        for line in list(self._turns):
            out = [delivery for delivery in line.deliveries if is_meant(delivery)]
            if not out:
                continue
            taken += out
            kept = [delivery for delivery in line.deliveries if not is_meant(delivery)]
            line.deliveries = deque(kept)
            if not kept:
                self._drop(line)
        self._length -= len(taken)
        return taken

    def take_expired(self, unix_now: float) -> list[Delivery]:
        """Take out all deliveries whose time is over; visits each where there may be one."""
        if unix_now < self._expires_at:
            return []
        taken = self.take(lambda delivery: delivery.expires_at <= unix_now)
        self._expires_at = min((delivery.expires_at for delivery in self), default=inf)
        return taken

    def _join(self, customer: str) -> _Line:
        """Make a line for a customer; the caller gives it its place."""
        line = self._lines[customer] = _Line(customer, max(1, self._share_of(customer)))
        return line

    def _drop(self, line: _Line) -> None:
        """Take an empty line out of the round."""
        is_next = self._turns[0] is line
        self._turns.remove(line)
        del self._lines[line.customer]
        if is_next and self._turns:
            self._turns[0].credit += self._turns[0].share

    def _leap(self) -> None:
        """A round has served nobody: give all at once what the rounds until somebody is served would."""
        rounds = min((cost_of(line.deliveries[0]) - line.credit - 1) // line.share for line in self._turns)
        if rounds > 0:
            for line in self._turns:
                line.credit += rounds * line.share
