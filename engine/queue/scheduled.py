"""When a delivery is tried again, when it has waited too long, and how far a shard reads ahead.

Owns: the retry curve; the bound on deliveries in memory and each customer's part of it.
Never: keeps the schedule (the store does), reads a clock, draws chance.
Fails: AssertionError where something leaves the window that never came in.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.envelope import Envelope

# Each wait is lengthened or shortened by up to this share, so that what failed together does not come
# back together. Operators' practice: 10 %.
JITTER_SHARE = 0.1


def retry_at(now: float, attempts: int, jitter: float, curve: Sequence[float]) -> float:
    """Return when to try again.

    Args:
        now: any clock; the result is of the same.
        attempts: that have failed by now, at least 1.
        jitter: in [0, 1); 0.5 is the curve itself.
        curve: seconds after the first, second, ... failure; the last repeats.
    """
    wait_s = curve[min(max(attempts, 1), len(curve)) - 1]
    return now + wait_s * (1.0 + JITTER_SHARE * (2.0 * jitter - 1.0))


def expires_at(envelope: Envelope, expire_after_s: float) -> float:
    """Return when a delivery is given up, Unix UTC seconds: at its own deadline, if that comes first.

    The time for which a message was held at its sender's wish does not count (RFC 4865 section 4).
    """
    terms = envelope.terms
    if terms is None:
        return envelope.accepted_at + expire_after_s
    at = (terms.hold_until or envelope.accepted_at) + expire_after_s
    return min(at, terms.expires_by) if terms.expires_by else at


class _Part:
    """What one customer has in the window."""

    __slots__ = ("count", "size_bytes")

    def __init__(self) -> None:
        self.count = 0
        self.size_bytes = 0


class Window:
    """Deliveries that are in memory: bounded in number and octets, and for each customer.

    A customer may take half of what the others leave free: alone it gets half of the window, a
    second one a quarter, and there is always room for one who has nothing in it. One delivery
    comes in whatever its size, where a customer has none.
    """

    __slots__ = ("_parts", "count", "max_bytes", "max_count", "size_bytes")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self.count = 0
        self.size_bytes = 0
        self._parts: dict[str, _Part] = {}

    @property
    def has_room(self) -> bool:
        """Return whether anybody's next delivery may come in."""
        return self.count < self.max_count and self.size_bytes < self.max_bytes

    def admit(self, customer: str, size_bytes: int) -> bool:
        """Count a delivery in, if it may come; HOT."""
        part = self._parts.get(customer)
        count = self.count
        if part is None:
            if count >= self.max_count or self.size_bytes >= self.max_bytes:
                return False
        elif (
            part.count > self.max_count - count
            or count >= self.max_count
            or part.size_bytes + size_bytes > self.max_bytes - self.size_bytes
        ):
            return False
        self.force(customer, size_bytes)
        return True

    def force(self, customer: str, size_bytes: int) -> None:
        """Count a delivery in that is in memory anyhow."""
        part = self._parts.get(customer)
        if part is None:
            part = self._parts[customer] = _Part()
        part.count += 1
        part.size_bytes += size_bytes
        self.count += 1
        self.size_bytes += size_bytes

    def leave(self, customer: str, size_bytes: int) -> None:
        """Count a delivery out, with the size that it came in with."""
        part = self._parts.get(customer)
        assert part is not None, "a delivery left the window that was not in it"
        part.count -= 1
        part.size_bytes -= size_bytes
        self.count -= 1
        self.size_bytes -= size_bytes
        if not part.count:
            del self._parts[customer]

    def held_by(self, customer: str) -> int:
        """Return how many deliveries of that customer are in memory."""
        part = self._parts.get(customer)
        return part.count if part is not None else 0
