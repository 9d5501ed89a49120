"""How many deliveries each customer has in the store, as of the last round of the sweep over the schedule.

The sweep (expiry) passes every delivery anyhow, so the census costs it an addition for each; a count kept
with each put and removal would cost the hot path, and have to be on disk as well, since a start does not
scan. A round takes one tick for an ordinary backlog and about two minutes for a million deliveries. The store
knows its total exactly, so that is what is split, in the proportions of the round.

Owns: the numbers of the last round, and of the one under way.
Never: reads the store.
"""

from __future__ import annotations

from collections import Counter

UNKNOWN = ""  # whose: of a store that no slice of the sweep has seen yet


class Census:
    """Counts the deliveries of each customer, round by round."""

    def __init__(self) -> None:
        self._last: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()
        self._has_ended = False

    def count(self, customer: str, deliveries: int) -> None:
        """Add what a slice of the round has passed."""
        if deliveries:
            self._under_way[customer] += deliveries

    def end_round(self) -> None:
        """All have been passed: the next slice begins anew."""
        self._last, self._under_way = self._under_way, Counter()
        self._has_ended = True

    def split(self, total: int) -> dict[str, int]:
        """Return how `total` deliveries are divided between customers.

        The first round tells before its end.
        """
        found = self._last if self._has_ended else self._under_way
        counted = found.total()
        if not counted:
            return {UNKNOWN: total} if total else {}
        if counted == total:
            return dict(found)
        parts = {customer: number * total // counted for customer, number in found.items()}
        parts[found.most_common(1)[0][0]] += total - sum(parts.values())
        return parts
