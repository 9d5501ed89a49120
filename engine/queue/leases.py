"""A limit that spans shards: one shard owns it, the others borrow amounts in advance.

What is lent counts as spent until it comes back, so the limit holds whatever messages are lost or
late: the owner may think that a shard has more than it has, never less. Therefore
* an owner that starts grants nothing until every shard has said what it holds, or is known dead;
* what a dead shard held stays spent until a time that the caller names (its connections' linger, the
  end of its window); if it never said what it held, nothing at all is lent until then;
* a borrower gives back before it tells, and counts a grant only when it has arrived.

Owns: who holds how much. Never: sends; the caller carries each call between shards, in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

REFUSED_PAUSE_S = 0.1  # a borrower that got nothing asks again after so long


class LeaseOwner:
    """The one shard that may lend."""

    __slots__ = ("_blocked_until", "_dead", "_held", "_short", "_unheard", "limit")

    def __init__(self, limit: int, shards: Iterable[int]) -> None:
        """Args: shards: all that may hold something from before; the owner itself too, as a borrower."""
        self.limit = limit
        self._held: dict[int, int] = {}
        self._unheard = set(shards)
        self._short: dict[int, int] = {}  # shards that asked for more than there was
        self._dead: list[tuple[float, int]] = []  # until, amount
        self._blocked_until = -inf

    @property
    def is_recovering(self) -> bool:
        """Return whether some shard has not said yet what it holds."""
        return bool(self._unheard)

    def is_unheard(self, shard: int) -> bool:
        """Return whether that shard has not said yet what it holds."""
        return shard in self._unheard

    def report(self, shard: int, held: int) -> None:
        """A shard says what it holds (after a start of either, or a new connection between them)."""
        self._unheard.discard(shard)
        self._held[shard] = held

    def borrow(self, shard: int, amount: int, now: float) -> int:
        """Return how much of `amount` is granted, 0 while recovering."""
        granted = 0
        if not self._unheard:
            granted = max(0, min(amount, self.available(now)))
        self._held[shard] = self._held.get(shard, 0) + granted
        if granted < amount:
            self._short[shard] = amount - granted
        else:
            self._short.pop(shard, None)
        return granted

    def give_back(self, shard: int, amount: int) -> None:
        """A shard no longer holds `amount`."""
        held = self._held.get(shard, 0)
        assert 0 <= amount <= held, f"shard {shard} gave back {amount} of {held}"
        self._held[shard] = held - amount

    def lose(self, shard: int, until: float) -> None:
        """A shard died: what it held counts as spent until then; its successor holds nothing."""
        if shard in self._unheard:
            self._unheard.discard(shard)
            self._blocked_until = max(self._blocked_until, until)
        held = self._held.pop(shard, 0)
        self._short.pop(shard, None)
        if held:
            self._dead.append((until, held))

    def available(self, now: float) -> int:
        """Return how much can be lent; negative where the limit was lowered below what is out."""
        if now < self._blocked_until:
            return 0
        self._dead = [(until, amount) for until, amount in self._dead if until > now]
        return self.limit - sum(self._held.values()) - sum(amount for _, amount in self._dead)

    def held_by(self, shard: int) -> int:
        """Return what a shard holds at most."""
        return self._held.get(shard, 0)

    def recalls(self, now: float) -> dict[int, int]:
        """Return how much to ask back of whom: where somebody is short, or the limit was lowered.

        Of those that hold most, and never more of one than what it holds above an even part.
        """
        missing = sum(self._short.values()) - self.available(now)
        if missing <= 0 or not self._held:
            return {}
        even = max(0, self.limit) // len(self._held)
        asked: dict[int, int] = {}
        for shard, held in sorted(self._held.items(), key=lambda item: (-item[1], item[0])):
            amount = min(missing, held - even)
            if amount > 0:
                asked[shard] = amount
                missing -= amount
        return asked


class LeaseBorrower:
    """One shard's part of a limit that spans shards."""

    __slots__ = ("_ask_again_at", "_asked", "_recalled", "ahead", "held", "used")

    def __init__(self, ahead: int) -> None:
        """Args: ahead: how much to keep in hand, unused, so that nobody waits for a round trip."""
        self.ahead = ahead
        self.held = 0
        self.used = 0
        self._asked = 0
        self._recalled = 0
        self._ask_again_at = -inf

    @property
    def spare(self) -> int:
        return self.held - self.used

    def take(self, amount: int = 1) -> bool:
        """Use some of what is held; False where that is not enough."""
        if self.used + amount > self.held:
            return False
        self.used += amount
        return True

    def release(self, amount: int = 1) -> None:
        """What was taken is free again."""
        assert amount <= self.used, "more came back than was taken"
        self.used -= amount

    def next_ask(self, now: float, waiting: int = 0) -> int:
        """Return how much to ask the owner for now, 0 for nothing; counts as asked.

        Args: waiting: how much would be taken at once.
        """
        amount = waiting + (self.ahead if waiting or self.used else 0) - self.spare
        if self._asked or amount <= 0 or now < self._ask_again_at:
            return 0
        self._asked = amount
        return amount

    def receive(self, granted: int, now: float) -> None:
        """The owner's answer to `next_ask`."""
        if granted < self._asked:
            self._ask_again_at = now + REFUSED_PAUSE_S
        self._asked = 0
        self.held += granted

    def recall(self, amount: int) -> None:
        """The owner wants some back; unused amounts go at once, others as they are released."""
        self._recalled = amount

    def next_return(self) -> int:
        """Return how much to give back now; it is no longer held: tell the owner."""
        wanted = max(self._recalled, self.spare - 2 * self.ahead if self.used else self.spare)
        amount = min(self.spare, wanted)
        if amount <= 0:
            return 0
        self._recalled = max(0, self._recalled - amount)
        self.held -= amount
        return amount

    def reconnect(self) -> int:
        """The owner, or the way to it, is new: return what to report; an answer under way is lost."""
        self._asked = 0
        self._ask_again_at = -inf
        return self.held
