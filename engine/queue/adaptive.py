"""What one source address has learned of one peer: how fast, and over how many connections, it takes mail.

What a reply is a sign of is said by whoever hears it (delivery.adapting): refusals that concern one message
or one recipient are no sign at all; those that do not say what they concern count by their share alone.

Owns: the two searches (queue.pace, queue.width) of one (source address, destination), and what bounds it now.
Never: reads a clock, is above the policy (ceilings.least), remembers for longer than FORGET_S without news.
"""

from __future__ import annotations

from math import inf

import msgspec

from engine.core.units import Rate
from engine.queue.ceilings import Ceiling
from engine.queue.pace import Pace, PaceState
from engine.queue.width import RAISE_EVERY_S, Width
from engine.queue.window import GUARD_SHARE

KEY = "adaptive"
WHY = "adaptive limits"
WHY_SLOW_OPEN = "slow open"
FORGET_S = 86_400.0
REST_S = 60.0  # nothing delivered for so long: what was taken before says little of a pace
SAMPLES_S = 60.0  # refusals that do not say why are looked at after so long
MIN_SAMPLES = 20  # before a share of refusals that do not say why is a sign
TROUBLE_SHARE = 0.5
MIN_OUTCOMES = 5  # messages taken or refused, before "too fast" is believed

# Few lengths, since a path keeps a window for each (limits.MAX_WINDOWS); the shortest in which a whole number
# of messages is near enough to the pace.
_WINDOWS_S = (1.0, 10.0, 60.0, 600.0, 3600.0)
_ENOUGH = 50


class AdaptiveState(msgspec.Struct, frozen=True, array_like=True):
    """What survives a restart; `at` is Unix UTC, of the last news. No connections: no limit on them."""

    at: float
    pace: PaceState | None = None
    connections: int = 0
    wait_s: float = RAISE_EVERY_S

    def is_over(self, unix_now: float) -> bool:
        """Return whether it is too old to say anything."""
        return not -FORGET_S < unix_now - self.at < FORGET_S


class Adaptive:
    """What is learned of a peer. Without trouble it is two counts."""

    __slots__ = (
        "_began",
        "_fast",
        "_last",
        "_news_at",
        "_sampled_at",
        "_sampled_taken",
        "_taken",
        "_unclear",
        "pace",
        "width",
    )

    def __init__(self, now: float) -> None:
        self.pace: Pace | None = None
        self.width: Width | None = Width()
        self._taken = 0
        self._began = self._last = now
        self._news_at = -inf
        self._fast = 0  # refusals that said "too fast"
        self._unclear = 0
        self._sampled_at = -inf
        self._sampled_taken = 0

    # -- what the peer shows ------------------------------------------------------------------------

    def taken(self, now: float, most: int) -> bool:
        """A message was delivered: return whether the bounds changed. HOT.

        Args: most: connections that the policy allows.
        """
        self._taken += 1
        pace, width = self.pace, self.width
        if pace is None:
            if now > self._last + REST_S:
                self._began, self._taken = now, 1
            self._last = now
            if width is None:
                return False
            is_changed = False
        else:
            is_changed = self._note(pace.taken(now), now)
        if width is not None:
            is_changed = width.taken(now, most) or is_changed
            if not width.limit:
                self.width = None
        return is_changed

    def too_fast(self, now: float) -> bool:
        """A peer said so: return whether the bounds changed."""
        self._fast += 1
        if self.pace is None and self._taken + self._fast < MIN_OUTCOMES:
            return False
        return self._note(self._pace_of(now).refused(now), now)

    def unclear(self, now: float) -> bool:
        """A refusal that may mean anything: return whether the bounds changed."""
        if now > self._sampled_at + 2 * SAMPLES_S:
            self._sampled_at, self._sampled_taken, self._unclear = now, self._taken, 0
        self._unclear += 1
        taken = max(self._taken - self._sampled_taken, 0)
        samples = self._unclear + taken
        pace = self.pace
        if pace is not None and pace.is_asking:
            return self._note(pace.refused(now), now)
        if now < self._sampled_at + SAMPLES_S:
            return False  # a peer that restarts is back by then
        if samples < MIN_SAMPLES or self._unclear < TROUBLE_SHARE * samples:
            return False
        self._sampled_at = -inf
        return self._note(self._pace_of(now).shaken(now, is_all=not taken), now)

    def troubled(self, now: float, others: int) -> bool:
        """A connection failed, or ended with a 421, while so many others were open."""
        if others < 1:
            return False
        width = self.width
        if width is None:
            width = self.width = Width()
        return self._note(width.troubled(now, others), now)

    def opened(self, now: float, count: int) -> bool:
        """A connection was let in; so many are open now."""
        return self.width is not None and self.width.opened(now, count)

    def _pace_of(self, now: float) -> Pace:
        if self.pace is None:
            self.pace = Pace(now, self._began, self._taken)
        return self.pace

    def _note(self, is_changed: bool, now: float) -> bool:
        if is_changed:
            self._news_at = now
        return is_changed

    # -- what is in force ---------------------------------------------------------------------------

    @property
    def ceiling(self) -> Ceiling | None:
        """What bounds every path that shares this."""
        pace, width = self.pace, self.width
        rate = None
        if pace is not None and pace.allowed_per_s < inf:
            rate = Rate(1, 1.0 / pace.allowed_per_s) if pace.is_asking else rate_of(pace.pace)
        if rate is None and width is None:
            return None
        is_slow_open = rate is None and width is not None and width.is_slow_open
        return Ceiling(KEY, WHY_SLOW_OPEN if is_slow_open else WHY, width.limit if width else 0, rate)

    def is_forgotten(self, now: float) -> bool:
        """Return whether nothing was learned that is worth to be kept."""
        return now >= self._news_at + FORGET_S

    # -- restarts -----------------------------------------------------------------------------------

    def export(self, now: float, unix_now: float) -> AdaptiveState | None:
        """Return what the next process goes on from; None where nothing was learned."""
        if self.is_forgotten(now):
            return None
        width = self.width if self.width is not None and not self.width.is_slow_open else None
        return AdaptiveState(
            self._news_at + unix_now - now,
            self.pace.export(now, unix_now) if self.pace is not None else None,
            width.limit if width is not None else 0,
            width.wait_s if width is not None else RAISE_EVERY_S,
        )

    @classmethod
    def restore(cls, state: AdaptiveState, now: float, unix_now: float) -> Adaptive:
        """Return what `export` gave."""
        learned = cls(now)
        learned._news_at = min(state.at + now - unix_now, now)
        learned.pace = Pace.restore(state.pace, now, unix_now) if state.pace is not None else None
        learned.width = Width.restore(state.connections, state.wait_s, now) if state.connections else None
        return learned


def rate_of(per_s: float) -> Rate:
    """Return a rate that lets about that pace through, no more.

    A path keeps a guard of its own between windows (queue.window), which what the peer took did not have.
    """
    for window_s in _WINDOWS_S:
        if per_s * window_s >= _ENOUGH:
            break
    return Rate(max(1, int(per_s * window_s * (1 + GUARD_SHARE))), window_s)
