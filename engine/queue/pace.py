"""The search for the fastest pace that a peer takes, of which it only ever says "too fast".

It goes on between `low`, the fastest pace that was taken, and `high`, the slowest that was not:

    refused        the first time, or ROW times without a delivery between: nothing is taken at all. One
                   message at a time asks, further and further apart, whether mail is taken again
    refused once   the last step up is taken back; a pace that has held is lowered by a tenth
    taken again    the pace is what was taken of late, over all the time that it took
    no trouble     a step towards `high` every RAISE_EVERY_S, at most WIDEST times the pace, if that was used
    they meet      the pace is SETTLED of `low` for HOLD_S, then a step is tried above. Each that is refused
                   doubles the time to the next, which does not come before PRICE deliveries for each deferral

A limit that counts over an hour looks as if any pace were good, until nothing is taken for the rest of it.
Two cycles in a row that ended in long trouble after the same number of deliveries are such a limit: the pace
is that number over the whole cycle, and steps come no more often than such cycles do.

Refusals that do not say why (`shaken`) halve the pace, but not below SHAKEN_LEAST_PER_S; where nothing is
taken any more on a path that took mail, one message at a time asks.

Changes to the worse come at most once every LOWER_EVERY_S, to the better every RAISE_EVERY_S.

Owns: what was learned of one peer's rate.
Never: reads a clock; stops for good: while asking, one message in ASK_LAST_S still goes.
"""

from __future__ import annotations

from math import inf, sqrt

import msgspec

LOWER_EVERY_S = 60.0
RAISE_EVERY_S = 120.0
KNOWN = 20  # messages, before what was taken of late says what the peer takes
ASK_FIRST_S = 20.0
ASK_LAST_S = 600.0
ASK_SHARE = 1 / 12  # of the last trouble, if that was long, is the first distance of what asks
TAKEN_TO_GO_ON = 2  # messages in a row, while asking
MEET = 1.05  # low and high are as near as is worth a refusal
SETTLED = 0.98
ROW = 4  # refusals without a delivery between, once the last step down has reached the peer
REACHED_S = 5.0
LOWER = 0.9
HOLD_S = 1800.0
HOLD_LAST_S = 4 * 3600.0
PRICE = 100  # deliveries for each deferral of the last step up: 1 %
WIDEST = 4.0  # times the pace that is known to be taken, in one step
WIDEN_FIRST = 1.15  # the first step above what was found; doubles while it is taken
LEAST_STEP = 1.03
LONG_TROUBLE_S = 120.0
LONG_SHARE = 0.2  # of the cycle: less of it is lost by staying a little too fast
ALIKE = 1.25  # two cycles took about the same number
SHAKEN_LEAST_PER_S = 1 / 3.0  # as many as MIN_SAMPLES (queue.adaptive) need in their window
SLOWEST_PER_S = 1 / 3600.0


class PaceState(msgspec.Struct, frozen=True, array_like=True):
    """What survives a restart; `*_at` are Unix UTC, paces messages a second. -1.0 for "no bound"."""

    low: float
    high: float
    pace: float
    ask_s: float
    hold_s: float
    until_at: float
    began_at: float
    taken: int
    last_taken: int
    last_trouble_s: float


class Pace:
    """The search for one peer's rate; it begins with the first trouble."""

    __slots__ = (
        "_ask_s",
        "_cost",
        "_cycle_began",
        "_cycle_taken",
        "_high",
        "_hold_s",
        "_is_widened",
        "_last_taken",
        "_last_trouble_s",
        "_low",
        "_lowered_at",
        "_raise_s",
        "_raised_at",
        "_row",
        "_taken",
        "_trouble_at",
        "_until",
        "_used",
        "_widen",
        "pace",
    )

    def __init__(self, now: float, began: float, taken: int) -> None:
        """Args: taken: messages that were delivered since `began`, without trouble."""
        self.pace = inf  # messages a second; inf: the policy's alone
        self._low = 0.0
        self._high = inf
        self._cycle_began = min(began, now)  # when mail was last taken again
        self._cycle_taken = taken
        self._last_taken = 0  # in the cycle before, where its trouble was long
        self._last_trouble_s = 0.0
        self._lowered_at = -inf
        self._raise_s = RAISE_EVERY_S
        self._raised_at = now
        self._used = 0  # taken since then
        self._trouble_at = -inf
        self._ask_s = 0.0  # between messages that ask; 0: not asking
        self._taken = 0  # since the last refusal, while asking; else since the last change
        self._row = 0  # refused in a row, since the last step down has reached the peer
        self._cost = 0  # refused since the last step up
        self._until = -inf  # no step above what was found before
        self._widen = WIDEN_FIRST
        self._is_widened = False  # the pace in force is above what was found
        self._hold_s = HOLD_S

    @property
    def is_asking(self) -> bool:
        """Nothing is taken, so far as is known."""
        return self._ask_s > 0.0

    @property
    def allowed_per_s(self) -> float:
        """Messages a second now; inf: no bound."""
        return 1.0 / self._ask_s if self._ask_s else self.pace

    # -- what the peer shows ------------------------------------------------------------------------

    def taken(self, now: float) -> bool:
        """A message was delivered: return whether the pace changed. HOT."""
        self._cycle_taken += 1
        self._used += 1
        self._row = 0
        self._taken += 1
        if self._ask_s:
            return self._hear_again(now)
        return now >= self._raised_at + self._raise_s and self._raise(now)

    def refused(self, now: float) -> bool:
        """The peer said that this is too fast: return whether the pace changed."""
        self._cost += 1
        if self._ask_s:
            self._taken = 0
            if now < self._lowered_at + LOWER_EVERY_S or self._ask_s >= ASK_LAST_S:
                return False
            self._ask_s = min(2 * self._ask_s, ASK_LAST_S)
            self._lowered_at = now
            return True
        if now >= self._lowered_at + REACHED_S:
            self._row += 1
        if self._row >= ROW or not self._low:
            self._ask(now)
            return True
        if now < self._lowered_at + max(LOWER_EVERY_S, self._raise_s / 2):
            return False  # of a long window the rest is spent at once: one step is enough for it
        self._lower(now)
        return True

    def shaken(self, now: float, *, is_all: bool) -> bool:
        """Many refusals did not say why: return whether the pace changed; `is_all`: nothing was taken."""
        if self._ask_s:
            return self.refused(now)
        if now < self._lowered_at + LOWER_EVERY_S:
            return False
        if is_all and self._cycle_taken:
            self._ask(now)
            return True
        before = self.pace if self.pace < inf else self._mean_per_s(now)
        pace = max(before / 2, SHAKEN_LEAST_PER_S)
        if pace >= self.pace:
            return False
        self._high, self._low = max(before, pace), pace
        self.pace = pace
        self._lowered_at = self._raised_at = now
        self._is_widened = False
        self._taken = self._used = 0
        return True

    # -- steps --------------------------------------------------------------------------------------

    def _recent_per_s(self, now: float) -> float:
        """Return what was taken since the last look."""
        return self._used / max(now - self._raised_at, 1.0)

    def _mean_per_s(self, now: float) -> float:
        """Return what was taken since mail was last taken again, trouble included."""
        return max(self._cycle_taken / max(now - self._cycle_began, 1.0), SLOWEST_PER_S)

    def _lower(self, now: float) -> None:
        """The last step up was one too many; or what was taken so far no longer is."""
        if self.pace > self._low:
            self._high = self.pace
            if self._is_widened or self._high <= MEET * self._low:
                self._high = self._low
                self._settle(now)
        else:
            recent = self._recent_per_s(now) if self._used >= KNOWN else inf
            self._high, self._low = self._low, max(min(LOWER * self._low, recent), SLOWEST_PER_S)
            self._until = now + HOLD_S
        self._lowered_at = self._raised_at = now
        self.pace = SETTLED * self._low
        self._taken = self._used = self._row = 0

    def _ask(self, now: float) -> None:
        """Nothing is taken at all, or nothing is known yet: stop, and ask from time to time."""
        if self.pace == inf:
            self._high = self._mean_per_s(now)
        elif self.pace > self._low:
            self._high = self.pace
        self._trouble_at = self._lowered_at = now
        self._taken = self._row = 0
        steps = int(self._last_trouble_s * ASK_SHARE / ASK_FIRST_S)  # whole ones: rates have few windows
        self._ask_s = min(max(1, steps) * ASK_FIRST_S, ASK_LAST_S)

    def _hear_again(self, now: float) -> bool:
        """One that asked was taken: the next one need not wait long; after two, go on."""
        if self._taken >= TAKEN_TO_GO_ON and now >= self._lowered_at + LOWER_EVERY_S:
            self._go_on(now)
            return True
        is_far = self._ask_s > ASK_FIRST_S
        self._ask_s = ASK_FIRST_S
        return is_far

    def _go_on(self, now: float) -> None:
        """Mail is taken again: at which pace?"""
        self._ask_s = 0.0
        mean, before = self._mean_per_s(now), self._last_taken
        self._last_trouble_s = now - self._trouble_at
        cycle_s = now - self._cycle_began
        is_long = self._last_trouble_s >= max(LONG_TROUBLE_S, LONG_SHARE * cycle_s)
        self._last_taken = self._cycle_taken if is_long else 0
        if self._last_taken and before / ALIKE <= self._cycle_taken <= before * ALIKE:
            self._low, self._high = mean, MEET * mean
            self._raise_s = min(max(cycle_s, RAISE_EVERY_S), HOLD_LAST_S)
            self._settle(now)
        elif not self._low:
            self._low, self._high = mean, max(self._high, mean)
        self.pace = SETTLED * self._low
        self._cycle_began = self._raised_at = now
        self._cycle_taken = self._taken = self._used = 0

    def _settle(self, now: float) -> None:
        """Low and high have met: keep to it for a while."""
        self._hold_s = min(2 * self._hold_s, HOLD_LAST_S) if self._is_widened else HOLD_S
        self._until = now + self._hold_s
        self._widen = WIDEN_FIRST
        self._is_widened = False

    def _raise(self, now: float) -> bool:
        """The pace was taken for long enough: a step up, if it is time."""
        recent = self._recent_per_s(now)
        self._raised_at, self._used = now, 0
        if recent < 0.5 * self.pace:
            return False  # it was not used: that says nothing
        if now < self._until or (self._until > -inf and self._taken < PRICE * self._cost):
            return False
        self._low = max(self._low, self.pace)
        self._cost = self._taken = 0
        if self._high <= MEET * self._low:
            if self._until == -inf and not self._is_widened:
                self._settle(now)
                self.pace = SETTLED * self._low
                return True
            self._high = self._low * self._widen
            self._widen = min(2 * self._widen, WIDEST)
            self._is_widened = True
        self._until = -inf
        self.pace = max(min(sqrt(self._low * self._high), WIDEST * self._low), LEAST_STEP * self._low)
        return True

    # -- restarts -----------------------------------------------------------------------------------

    def export(self, now: float, unix_now: float) -> PaceState:
        """Return what the next process goes on from."""
        offset_s = unix_now - now
        return PaceState(
            self._low,
            self._high if self._high < inf else -1.0,
            self.pace if self.pace < inf else -1.0,
            self._ask_s,
            self._hold_s,
            self._until + offset_s if self._until > -inf else -1.0,
            self._cycle_began + offset_s,
            self._cycle_taken,
            self._last_taken,
            self._last_trouble_s,
        )

    @classmethod
    def restore(cls, state: PaceState, now: float, unix_now: float) -> Pace:
        """Return the search as `export` left it."""
        offset_s = now - unix_now
        pace = cls(now, state.began_at + offset_s, state.taken)
        pace._low = state.low
        pace._high = state.high if state.high > 0 else inf
        pace.pace = state.pace if state.pace > 0 else inf
        pace._ask_s = min(state.ask_s, ASK_LAST_S)
        pace._hold_s = state.hold_s
        if state.until_at > 0:
            pace._until = min(state.until_at + offset_s, now + HOLD_LAST_S)
        pace._last_taken, pace._last_trouble_s = state.last_taken, state.last_trouble_s
        if pace._ask_s:
            pace._trouble_at = pace._lowered_at = now
        return pace
