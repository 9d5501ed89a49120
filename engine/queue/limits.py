"""The message rate of one path, exact as the peer counts (and its connection rate).

`RateLimit` gives permits to write an end-of-message (or to open a connection: redeem at connect).
A transaction reserves when it starts, redeems when it is about to write its end-of-message, and does
not write before the time that `redeem` returns; where that is later, it asks `confirm` once that time
has come. These two make the limit hold; `ready_at` merely starts transactions early enough.

Why the limit N/T holds. Permit j is written at w_j and read by the peer at r_j, w_j <= r_j <= e_j,
where e_j = w_j + guard + what `observe` and `postpone` added. Count both in ascending order, so that
x_(k) is the k-th smallest x. `redeem` and `confirm` see to it that w_(k+N) >= e_(k) + T for every k.
At least k permits have r <= e_(k), so r_(k) <= e_(k), even if sessions are read in another order than
they were written in; every r >= its w, so r_(k+N) >= w_(k+N). Hence r_(k+N) - r_(k) >= T, and a half-open
window of T holds at most N. Lateness of the later permit only helps; lateness of the earlier one is
what the guard pays for, and it shows in its reply before permit k+N is due.

Two things are coarser than that, each to the safe side: permits within T/256 share the time of the
last of them (queue.window); a permit whose reply comes after it was forgotten is counted again.

Pace: one permit each (T+guard)/N, `burst` at once after idleness; who wakes late catches up, the
window above permitting. Before `since` nothing is known, so the first permit waits `burst` intervals
(one, as a rule) and none burst until T has passed: the permits of whoever came before kept to the
same pace, so in y seconds at most burst + (y + catch-up)/interval, and the two together keep the
window if the shard was down for as long as the catch-up is more than the guard: 0.18 s, and it
is quiet for 2 s.

Owns: what was spent of one limit, by whom ever shares it.
Never: reads a clock, knows a session; whose threshold it is comes with every call.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from math import inf

import msgspec

from engine.core.units import Rate
from engine.queue.window import PermitWindow

CATCH_UP_S = 0.025  # a timer that is late by less does not lose its turn
AWAITED_CATCH_UP_S = 0.2  # nor by less than this where somebody waits: a loaded host wakes 80 ms late
EARLY_S = 0.010  # transactions start so much before they need, since timers and loops are late
STALE_S = 1.0  # a reservation overdue by this much no longer makes others wait
MAX_LEAD_S = 60.0  # no transaction starts earlier than this before its permit
BANK_PERMITS = 64  # widening that may be saved up for a stall, in guards; N=1, T=1 s: 1.3 s
BANK_WINDOWS = 10  # the same for large N, in guards of a whole window: spent, it costs a fifth of one
LATE_SHARE = 0.75  # of the guard is for lateness that shows; the rest for what does not (timers, ways)
FIRST_REPLIES = 32  # as many must have been seen before a peer's least latency is believed
FLOOR_REPLIES = 500  # the least latency of the last 500 to 1,000 replies is what a peer takes at least
HISTORY_S = 60.0  # permits are known for at least so long: a reload may ask for a longer window
MAX_WINDOWS = 8  # thresholds with different T on one counter; the least recently used goes


class WindowState(msgspec.Struct, frozen=True, array_like=True):
    """What one window remembers; `ends` are Unix UTC seconds, ascending."""

    window_s: float
    ends: list[float]
    counts: list[int]


class RateState(msgspec.Struct, frozen=True, array_like=True):
    """An exported `RateLimit`: `paced_at` is Unix UTC, the next permit by pace alone."""

    paced_at: float
    windows: list[WindowState]


class RateLimit:
    """Permits for one source address at one destination, at most N in any window of T.

    Thresholds (`rate`, `burst`) come with each call, since vmtas that share an address share what
    is spent but may have thresholds of their own; None is no limit, but is counted.
    """

    __slots__ = (
        "_bank_max_s",
        "_bank_s",
        "_burst",
        "_catch_up_s",
        "_count",
        "_deviation_s",
        "_floor_s",
        "_interval_s",
        "_is_awaited",
        "_last_at",
        "_lead_s",
        "_mean_s",
        "_next_floor_s",
        "_paced_at",
        "_rate",
        "_replies",
        "_since",
        "_slack_s",
        "_starts",
        "_window",
        "_windows",
    )

    def __init__(self, since: float) -> None:
        """Args: since: monotonic; what was spent before is unknown (the start of the shard, a move)."""
        self._since = since
        self._rate: Rate | None = None
        self._burst = 1
        self._count = 0
        self._interval_s = 0.0
        self._slack_s = 0.0
        self._catch_up_s = CATCH_UP_S
        self._paced_at = -inf  # the next permit by pace alone
        self._last_at = -inf  # the last permit
        self._starts: list[float] = []  # of reservations, ascending
        self._is_awaited = False  # somebody was told to come back for the next permit
        self._lead_s = 0.0  # a transaction takes so long from reservation to redemption, nearly always
        self._mean_s = -1.0
        self._deviation_s = 0.0
        self._floor_s = 0.0  # the least time from permit to reply
        self._next_floor_s = inf  # the same, of the replies since the last change
        self._replies = FLOOR_REPLIES - FIRST_REPLIES
        self._bank_max_s = inf
        self._bank_s = inf  # what `observe` may still widen by
        self._windows: list[PermitWindow] = []
        self._window: PermitWindow | None = None

    def ready_at(self, rate: Rate | None, burst: int, now: float) -> float:
        """Return when one more transaction may start; not after `now` means at once.

        The answer stands until the next reserve, cancel or redeem; ask again after those.
        """
        if rate is None:
            return now
        if rate is not self._rate or burst != self._burst:
            if self._is_fresh(rate, now):
                return now
            self._adopt(rate, burst)
        window = self._window
        assert window is not None
        window.forget(now)
        starts = self._starts
        if starts and starts[0] < now:
            self._drop_stale(now)
        ahead = len(starts)
        interval_s = self._interval_s
        at = self._paced_at + ahead * interval_s - self._lead_s
        if now >= window.since + window.period_s:
            at -= self._slack_s
        if starts:
            paced = starts[0] + (ahead + 1 - self._burst) * interval_s - self._catch_up_s
            at = max(at, paced)
        if window.total + ahead >= self._count:
            free = window.free_at(self._count, ahead) - self._lead_s
            at = max(at, free)
        if at > now:
            self._is_awaited = True
        return at

    def reserve(self, now: float) -> float:
        """Count a transaction that starts; returns what `redeem` or `cancel` must be given."""
        starts = self._starts
        if starts and starts[-1] > now:
            insort(starts, now)
        else:
            starts.append(now)
        return now

    def cancel(self, started: float) -> None:
        """A transaction ends that never came to its end-of-message."""
        starts = self._starts
        i = bisect_left(starts, started)
        if i < len(starts) and starts[i] == started:
            del starts[i]  # else it was stale, and is forgotten already

    def redeem(self, rate: Rate | None, burst: int, now: float, started: float) -> float:
        """Turn a reservation into a permit: return when the end-of-message may be written.

        Args:
            now: monotonic; the transaction could write now.
            started: what `reserve` returned.

        Returns:
            A time not before `now`; the permit is spent, and counted at that time. It names the
            permit to `postpone` and `observe`.
        """
        self.cancel(started)
        self._learn_lead(now - started)
        return self.spend(rate, burst, now)

    def spend(self, rate: Rate | None, burst: int, now: float) -> float:
        """As `redeem`, without a reservation (a connection that is about to be opened)."""
        at = now if now > self._last_at else self._last_at
        for window in self._windows:
            window.forget(now)  # by the clock, not by `at`: permits that are planned still need what is older
        if rate is not None:
            at = self._permit_at(rate, burst, at)
        self._last_at = at
        for window in self._windows:
            window.add(at)
        return at if rate is not None else now

    def confirm(self, rate: Rate | None, at: float, now: float) -> float:
        """The time of a permit in the future has come: return when to write.

        Permits before it may have been written or read later than was planned, so that this one
        must wait. Returns `now`: write now, the permit is counted and named by that. Else a later
        time: confirm again then, with that as `at`.
        """
        due = now
        if rate is not None:
            window = self._window
            if window is None or window.window_s != rate.window_s:
                window = self._window_of(rate.window_s)
            window.forget(now)
            due = max(now, window.due_at(rate.count, now))
        self.postpone(at, due)
        return due

    def postpone(self, at: float, written_at: float) -> None:
        """The end-of-message of the permit `at` left later than that (a full buffer)."""
        for window in self._windows:
            window.move(at, written_at)

    def observe(self, at: float, replied_at: float) -> None:
        """The reply to the permit `at` came: a late one may mean that it was read late.

        Call it for each permit; where the session was lost, with the time of that. What a peer
        takes at least is not lateness, and neither is what the guard covers. The rest widens the
        guard of this permit, on average by no more than half of it: a peer whose latency varies
        widely keeps 95 % of its allowance, and a rare stall is covered whole.
        """
        late_s = self._lateness(replied_at - at)
        window = self._window
        if window is None or late_s <= window.guard_s * LATE_SHARE:
            return
        extra_s = min(late_s - window.guard_s * LATE_SHARE, self._bank_s)
        self._bank_s -= extra_s
        for each in self._windows:
            each.move(at, at + extra_s)

    def is_unspent(self, now: float) -> bool:
        """Return whether nothing that was spent holds anybody back any more."""
        for window in self._windows:
            window.forget(now)
        return not self._starts and self._paced_at <= now and not any(w.total for w in self._windows)

    def export(self, now: float, unix_now: float, *, ahead: int = 0, over_s: float = 0.0) -> RateState:
        """Return what was spent in windows longer than `over_s`.

        Reservations, and `ahead` permits that may follow before the next export, count as spent now:
        whoever writes the state to disk again before there were more loses nothing to a crash.
        """
        offset_s = unix_now - now
        more = ahead + len(self._starts) if ahead else 0
        windows = [w for w in self._windows if w.window_s > over_s]
        states = []
        for window in windows:
            window.forget(now)
            ends = [end + offset_s for end in window.ends[window.head :]]
            counts = window.counts[window.head :]
            if more:
                ends.append(max(unix_now, ends[-1] if ends else unix_now))
                counts.append(more)
            states.append(WindowState(window.window_s, ends, counts))
        return RateState((self._paced_at if self._windows else now) + offset_s, states)

    def restore(self, state: RateState, now: float, unix_now: float) -> None:
        """Take over what another incarnation spent; its windows need no wait after the start.

        Before use; more than once where addresses that had limits of their own share them from now on.
        """
        assert self._rate is None, "restore comes before use"
        offset_s = now - unix_now
        for kept in state.windows:
            window = next((each for each in self._windows if each.window_s == kept.window_s), None)
            if window is None:
                window = PermitWindow(kept.window_s, -inf)
                self._windows.append(window)
            latest = now + window.period_s  # a wall clock that was set back holds nobody up for longer
            cells = [(min(end + offset_s, latest), n) for end, n in zip(kept.ends, kept.counts, strict=True)]
            cells = sorted([*cells, *zip(window.ends, window.counts, strict=True)])
            window.ends = [end for end, _ in cells]
            window.counts = [count for _, count in cells]
            window.total = sum(window.counts)
            if cells:
                self._last_at = max(self._last_at, min(cells[-1][0], now))
        self._paced_at = max(self._paced_at, state.paced_at + offset_s)

    def _adopt(self, rate: Rate, burst: int) -> None:
        """Make `rate` and `burst` the thresholds in force."""
        window = self._window_of(rate.window_s)
        self._window = window
        self._rate = rate
        self._count = rate.count
        self._burst = burst = max(1, min(burst, rate.count))
        self._interval_s = window.period_s / rate.count
        self._slack_s = (burst - 1) * self._interval_s
        self._catch_up_s = max(CATCH_UP_S, min(self._interval_s, window.guard_s) / 2)
        self._bank_max_s = window.guard_s * max(BANK_PERMITS, BANK_WINDOWS * rate.count)
        self._bank_s = min(self._bank_s, self._bank_max_s)
        paced = min(self._paced_at, self._last_at + burst * self._interval_s)
        self._paced_at = max(paced, window.since + burst * self._interval_s)

    def _window_of(self, window_s: float) -> PermitWindow:
        """Return the window of that length; a new one knows what the next longer one knew."""
        windows = self._windows
        for window in windows:
            if window.window_s == window_s:
                windows.remove(window)
                windows.insert(0, window)
                return window
        new = PermitWindow(window_s, self._since)
        longer = [w for w in windows if w.window_s > window_s]
        source = (
            min(longer, key=lambda w: w.window_s)
            if longer
            else max(windows, key=lambda w: w.window_s, default=None)
        )
        if source is not None:
            new.ends = source.ends[source.head :]
            new.counts = source.counts[source.head :]
            new.total = source.total
            new.since = source.since
        windows.insert(0, new)
        if len(windows) == 1 and window_s < HISTORY_S:
            windows.append(PermitWindow(HISTORY_S, self._since))
        if len(windows) > MAX_WINDOWS:
            longest = max(windows, key=lambda w: w.window_s)
            windows.remove(next(w for w in reversed(windows) if w is not longest))
        return new

    def _permit_at(self, rate: Rate, burst: int, at: float) -> float:
        """Return the time of the next permit, not before `at`, and pace the one after it."""
        if rate is not self._rate or burst != self._burst:
            self._adopt(rate, burst)
        window = self._window
        assert window is not None
        paced = self._paced_at
        earliest = paced
        if at >= window.since + window.period_s:
            earliest -= self._slack_s
        at = max(at, earliest)
        if window.total >= self._count:
            at = max(at, window.free_at(self._count, 0))
        # Late while somebody waited is the host's lateness; late after idleness would be a burst.
        if at - paced > (AWAITED_CATCH_UP_S if self._is_awaited else self._catch_up_s):
            paced = at
        self._is_awaited = False
        self._paced_at = paced + self._interval_s
        self._bank_s = min(self._bank_s + window.guard_s / 2, self._bank_max_s)
        return at

    def _lateness(self, latency_s: float) -> float:
        """Return by how much a reply took longer than the fastest of late."""
        self._replies += 1
        if self._replies >= FLOOR_REPLIES:
            self._replies = 0
            self._floor_s = self._next_floor_s
            self._next_floor_s = inf
        self._next_floor_s = min(self._next_floor_s, latency_s)
        self._floor_s = min(self._floor_s, latency_s)
        return latency_s - self._floor_s

    def _is_fresh(self, rate: Rate, now: float) -> bool:
        """Return whether nothing was ever spent here, and what others may have spent before is forgotten.

        Paths to destinations that take no connection stay so: their windows, 0.8 kB, are never made.
        """
        if self._windows or self._starts:
            return False
        return now >= self._since + PermitWindow(rate.window_s, self._since).period_s

    def _drop_stale(self, now: float) -> None:
        """Forget reservations that hold others up for too long (a session that stalls)."""
        starts = self._starts
        oldest = now - 2 * self._lead_s - max(STALE_S, self._interval_s)
        while starts and starts[0] < oldest:
            del starts[0]

    def _learn_lead(self, lead_s: float) -> None:
        """Learn how long transactions take to come to their end-of-message (as RFC 6298 does)."""
        mean_s = self._mean_s
        if mean_s < 0:
            self._mean_s = lead_s
            self._deviation_s = lead_s / 2
        else:
            off_s = lead_s - mean_s
            self._mean_s = mean_s + off_s / 8
            self._deviation_s += ((off_s if off_s > 0 else -off_s) - self._deviation_s) / 4
        lead_s = self._mean_s + 2 * self._deviation_s + EARLY_S
        self._lead_s = lead_s if lead_s < MAX_LEAD_S else MAX_LEAD_S
