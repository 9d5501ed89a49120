"""Rate limits and connection slots, judged by a peer that only counts."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.core.units import Rate
from engine.queue.limits import RateLimit, RateState

LONG_AGO = -1e6


class Peer:
    """Counts what it reads."""

    def __init__(self) -> None:
        self.reads: list[float] = []

    def most_in_window(self, window_s: float) -> int:
        """Return the highest count in any half-open window; a window may begin at any read."""
        reads = sorted(self.reads)
        return max((bisect_left(reads, at + window_s) - i for i, at in enumerate(reads)), default=0)


class Backlog:
    """Sessions with no end of messages, polled with jitter, on a clock of their own."""

    def __init__(self, limit: RateLimit, rate: Rate, burst: int, seed: int) -> None:
        self.limit = limit
        self.rate = rate
        self.burst = burst
        self.chance = random.Random(seed)
        self.peer = Peer()
        self.written: list[float] = []
        self.poll_s = (0.001, 0.020)
        self.start_s = (0.01, 0.05)  # from reservation to end-of-message
        self.timer_s = (0.0, 0.002)  # how late a timer is
        self.read_s = (0.0, 0.0)
        self.process_s = (0.01, 0.012)
        self.stalls: list[tuple[float, float]] = []  # the peer reads nothing from .. to
        self.sessions = 5_000

    def run(self, start: float, end: float) -> None:
        """Run from `start`; what is not written at `end` is lost."""
        draw = self.chance.uniform
        todo: list[tuple[float, int, str, float]] = [(start, 0, "poll", 0.0)]
        busy = steps = 0
        while todo and todo[0][0] < end:
            now, _, step, about = heapq.heappop(todo)
            after: list[tuple[float, str, float]] = []
            if step == "poll":
                while busy < self.sessions and self.limit.ready_at(self.rate, self.burst, now) <= now:
                    busy += 1
                    after.append((now + draw(*self.start_s), "content", self.limit.reserve(now)))
                    self.push(todo, after, steps := steps + 1)
                    after.clear()
                after.append((now + draw(*self.poll_s), "poll", 0.0))
            elif step == "content":
                at = self.limit.redeem(self.rate, self.burst, now, about)
                assert at >= now
                after.append((at if at == now else at + draw(*self.timer_s), "write", at))
            elif step == "write":
                at = self.limit.confirm(self.rate, about, now)
                if at > now:
                    after.append((at + draw(*self.timer_s), "write", at))
                    self.push(todo, after, steps := steps + 1)
                    continue
                about = at
                self.written.append(now)
                read = now + draw(*self.read_s)
                read = next((until for begin, until in self.stalls if begin <= read < until), read)
                self.peer.reads.append(read)
                after.append((read + draw(*self.process_s), "reply", about))
            else:
                self.limit.observe(about, now)
                busy -= 1
            self.push(todo, after, steps := steps + 1)

    @staticmethod
    def push(
        todo: list[tuple[float, int, str, float]], after: list[tuple[float, str, float]], serial: int
    ) -> None:
        for at, step, about in after:
            heapq.heappush(todo, (at, serial, step, about))


rates = st.builds(Rate, st.integers(1, 300), st.sampled_from([0.25, 1.0, 2.0, 10.0, 60.0]))


# -- the limit holds ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    rate=rates,
    burst=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    start_s=st.sampled_from([(0.0, 0.0), (0.0, 0.3), (0.4, 0.5), (0.0, 3.0)]),
    late_share=st.floats(0.0, 0.75),
    timer_s=st.sampled_from([0.0, 0.002, 0.1]),
)
@example(rate=Rate(16, 2.0), burst=16, seed=13, start_s=(0.0, 3.0), late_share=0.0, timer_s=0.1)
def test_peer_never_counts_one_too_many(rate, burst, seed, start_s, late_share, timer_s):
    backlog = Backlog(RateLimit(LONG_AGO), rate, burst, seed)
    backlog.start_s = start_s
    backlog.timer_s = (0.0, timer_s)
    backlog.read_s = (0.0, late_share * max(rate.window_s * 0.02, 0.02))
    backlog.run(0.0, min(3.5 * rate.window_s, 20 * rate.window_s / rate.count + 3.5 * rate.window_s))
    assert backlog.peer.most_in_window(rate.window_s) <= rate.count


@given(
    rate=rates,
    burst=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0.0, 0.5), st.booleans()), min_size=1, max_size=300),
)
def test_permits_hold_the_window_whenever_they_are_asked_for(rate, burst, steps):
    """Without ever asking `ready_at`: redemption alone makes it hold."""
    limit = RateLimit(LONG_AGO)
    peer = Peer()
    now = 0.0
    for wait_s, is_late in steps:
        now += wait_s * rate.window_s / rate.count
        at = limit.redeem(rate, burst, now, limit.reserve(now))
        assert at >= now
        if is_late:
            limit.postpone(at, at + wait_s)
            at += wait_s
        peer.reads.append(at)
    assert peer.most_in_window(rate.window_s) <= rate.count


@given(rate=rates, steps=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200))
def test_permits_are_paced(rate, steps):
    limit = RateLimit(LONG_AGO)
    interval_s = rate.window_s / rate.count
    now = last = 0.0
    for i, wait_s in enumerate(steps):
        now += wait_s * interval_s
        at = limit.spend(rate, 1, now)
        assert i == 0 or at - last >= interval_s - max(0.025, interval_s / 2) - 1e-9
        last = at


def test_burst_goes_at_once_and_the_window_still_holds():
    rate = Rate(20, 1.0)
    limit = RateLimit(LONG_AGO)
    assert [limit.spend(rate, 5, 10.0) for _ in range(5)] == [10.0] * 5
    at = limit.spend(rate, 5, 10.0)
    assert at == pytest.approx(10.0 + 1.02 / 20)
    times = [10.0] * 5 + [at] + [limit.spend(rate, 5, at) for _ in range(200)]
    assert all(later - at >= 1.0 for at, later in zip(times, times[20:], strict=False))


def test_burst_is_not_more_than_the_window_holds():
    rate = Rate(3, 1.0)
    limit = RateLimit(LONG_AGO)
    assert [limit.spend(rate, 100, 10.0) for _ in range(4)] == pytest.approx([10.0, 10.0, 10.0, 11.02])


def test_no_rate_is_no_limit_and_still_counted_for_others():
    limit = RateLimit(LONG_AGO)
    tight = Rate(3, 60.0)
    limit.spend(tight, 3, 0.0)
    assert limit.ready_at(None, 1, 1.0) == 1.0
    assert limit.redeem(None, 1, 1.0, limit.reserve(1.0)) == 1.0
    limit.spend(None, 1, 2.0)
    assert limit.spend(tight, 3, 3.0) == pytest.approx(61.2)


@settings(max_examples=100)
@given(
    tight=st.builds(Rate, st.integers(1, 10), st.sampled_from([1.0, 2.0, 60.0])),
    wide=st.builds(Rate, st.integers(5, 50), st.sampled_from([1.0, 10.0])),
    steps=st.lists(st.tuples(st.booleans(), st.floats(0.0, 1.0)), max_size=120),
)
def test_vmtas_of_one_address_share_what_is_spent_each_with_its_own_threshold(tight, wide, steps):
    limit = RateLimit(LONG_AGO)
    spent: list[float] = []
    now = 0.0
    for is_tight, wait_s in steps:
        now += wait_s
        rate = tight if is_tight else wide
        at = limit.spend(rate, 2, now)
        assert sum(at - rate.window_s < other <= at for other in spent) < rate.count
        spent.append(at)


def test_shorter_windows_learn_from_longer_ones():
    limit = RateLimit(LONG_AGO)
    for now in range(10):
        limit.spend(Rate(10, 60.0), 10, float(now) / 10)
    assert limit.spend(Rate(10, 1.0), 10, 0.9) > 1.0


# -- the peer reads late --------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.sampled_from([1, 5, 20, 100]),
    begins=st.lists(st.floats(5.0, 25.0), max_size=2),
    stall_s=st.floats(0.02, 0.3),
)
def test_stalls_of_the_peer_are_waited_out(seed, count, begins, stall_s):
    backlog = Backlog(RateLimit(LONG_AGO), Rate(count, 1.0), 1, seed)
    backlog.stalls = [(begin, begin + stall_s) for begin in begins]
    backlog.run(0.0, 30.0)
    assert backlog.peer.most_in_window(1.0) <= count


@pytest.mark.parametrize("seed", range(5))
def test_reading_up_to_twice_the_guard_late_keeps_the_limit(seed):
    backlog = Backlog(RateLimit(LONG_AGO), Rate(20, 1.0), 1, seed)
    backlog.read_s = (0.0, 0.040)
    backlog.run(0.0, 60.0)
    assert backlog.peer.most_in_window(1.0) <= 20


def test_late_reply_to_a_forgotten_permit_counts_again():
    rate = Rate(1, 1.0)
    limit = RateLimit(LONG_AGO)
    first = limit.spend(rate, 1, 0.0)
    second = limit.spend(rate, 1, 1.03)
    limit.observe(second, 1.04)
    limit.observe(first, 1.2)
    assert limit.spend(rate, 1, 2.06) > 2.2


def test_permit_planned_behind_one_that_was_written_late_waits():
    rate = Rate(1, 1.0)
    limit = RateLimit(LONG_AGO)
    first = limit.spend(rate, 1, 0.0)
    second = limit.spend(rate, 1, 0.5)
    limit.postpone(first, 0.3)
    later = limit.confirm(rate, second, second)
    assert later == pytest.approx(0.3 + 1.02)
    assert limit.confirm(rate, later, later) == later
    assert limit.spend(rate, 1, 1.5) == pytest.approx(later + 1.02)


# -- the allowance is used ------------------------------------------------------------------------


@pytest.mark.parametrize("start_s", [(0.0, 0.0), (0.01, 0.05), (0.2, 0.4), (1.0, 1.2)])
@pytest.mark.parametrize("process_s", [(0.0, 0.002), (1.0, 1.01), (0.0, 1.0)])
@pytest.mark.parametrize("rate", [Rate(1, 1.0), Rate(3, 1.0), Rate(20, 1.0), Rate(100, 1.0), Rate(20, 60.0)])
def test_backlog_uses_the_allowance(rate, process_s, start_s):
    backlog = Backlog(RateLimit(LONG_AGO), rate, 1, 1)
    backlog.start_s = start_s
    backlog.process_s = process_s
    warm_s = 5 * rate.window_s
    end = warm_s + (40 if rate.count < 50 else 15) * rate.window_s
    backlog.run(0.0, end)
    used = sum(at >= warm_s for at in backlog.written)
    assert used >= 0.94 * rate.count * (end - warm_s) / rate.window_s
    assert backlog.peer.most_in_window(rate.window_s) <= rate.count


def test_stalled_session_does_not_stop_the_others():
    rate = Rate(2, 1.0)
    limit = RateLimit(LONG_AGO)
    limit.reserve(0.0)
    backlog = Backlog(limit, rate, 1, 1)
    backlog.run(0.0, 60.0)
    assert len(backlog.written) >= 0.95 * 2 * 60


def test_cancelled_reservation_gives_its_place_back():
    rate = Rate(1, 10.0)
    limit = RateLimit(LONG_AGO)
    started = limit.reserve(0.0)
    assert limit.ready_at(rate, 1, 0.0) > 0.0
    limit.cancel(started)
    assert limit.ready_at(rate, 1, 0.0) <= 0.0


def test_memory_is_bounded_for_any_rate():
    rate = Rate(1_000_000, 60.0)
    limit = RateLimit(LONG_AGO)
    for i in range(20_000):
        at = limit.spend(rate, 1_000, i * 0.006)
        limit.observe(at, at + 0.1 * (i % 7))
    assert len(limit.export(120.0, 120.0).windows[0].ends) < 1_000


# -- starts, moves, crashes -----------------------------------------------------------------------


def test_first_permit_after_a_start_waits_one_interval():
    limit = RateLimit(100.0)
    assert limit.ready_at(Rate(4, 1.0), 1, 100.1) == pytest.approx(100.0 + 1.02 / 4)
    assert limit.spend(Rate(4, 1.0), 1, 100.1) == pytest.approx(100.0 + 1.02 / 4)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.builds(Rate, st.integers(1, 60), st.sampled_from([0.25, 1.0, 5.0])),
    burst=st.integers(1, 20),
    seed=st.integers(0, 10_000),
    killed_after=st.lists(st.floats(0.05, 3.0), min_size=1, max_size=4),
    down_s=st.floats(0.06, 0.5),
)
def test_kills_and_restarts_keep_the_limit(rate, burst, seed, killed_after, down_s):
    peer = Peer()
    now = 0.0
    for i, life in enumerate([*killed_after, 3.0]):
        backlog = Backlog(RateLimit(now if i else LONG_AGO), rate, burst, seed + i)
        backlog.run(now, now + life * rate.window_s)
        peer.reads += backlog.peer.reads
        now += life * rate.window_s + down_s
    assert peer.most_in_window(rate.window_s) <= rate.count


@settings(max_examples=40, deadline=None)
@given(
    rate=rates,
    burst=st.integers(1, 20),
    seed=st.integers(0, 10_000),
    moved_after=st.floats(0.1, 3.0),
    wall=st.floats(1e9, 2e9),
)
def test_move_to_another_clock_keeps_the_limit_without_a_pause(rate, burst, seed, moved_after, wall):
    first = Backlog(RateLimit(LONG_AGO), rate, burst, seed)
    end = moved_after * rate.window_s
    first.run(0.0, end)
    state = msgspec.msgpack.encode(first.limit.export(end, wall + end))
    heir = RateLimit(5_000.0 + end)
    heir.restore(msgspec.msgpack.decode(state, type=RateState), 5_000.0 + end, wall + end)
    assert heir.ready_at(rate, burst, 5_000.0 + end) <= 5_000.0 + end + 2 * rate.window_s
    second = Backlog(heir, rate, burst, seed + 1)
    second.run(5_000.0 + end, 5_000.0 + end + 2 * rate.window_s)
    first.peer.reads += [at - 5_000.0 for at in second.peer.reads]
    assert first.peer.most_in_window(rate.window_s - 1e-5) <= rate.count


def test_state_on_disk_covers_what_follows_until_the_next():
    rate = Rate(10, 3600.0)
    limit = RateLimit(LONG_AGO)
    limit.spend(rate, 10, 0.0)
    state = limit.export(1.0, 1e9 + 1.0, ahead=5, over_s=60.0)
    for _ in range(5):
        limit.spend(rate, 10, 2.0)
    heir = RateLimit(0.0)
    heir.restore(state, 10.0, 1e9 + 10.0)
    permits = [heir.spend(rate, 10, 10.0) for _ in range(5)]
    assert max(permits[:4]) < 3600.0 < permits[4]


def test_short_windows_are_left_out_of_what_goes_to_disk():
    limit = RateLimit(LONG_AGO)
    limit.spend(Rate(5, 1.0), 1, 0.0)
    limit.spend(Rate(5, 3600.0), 1, 0.0)
    state = limit.export(0.0, 1e9, over_s=60.0)
    assert [window.window_s for window in state.windows] == [3600.0]


def test_wall_clock_set_back_holds_nobody_up_for_longer_than_the_window():
    rate = Rate(1, 10.0)
    limit = RateLimit(LONG_AGO)
    limit.spend(rate, 1, 0.0)
    heir = RateLimit(0.0)
    heir.restore(limit.export(0.0, 1e9), 0.0, 1e9 - 86_400)
    assert heir.ready_at(rate, 1, 0.0) <= 2 * 10.2


def test_a_limit_of_which_nothing_was_spent_makes_no_window() -> None:
    limit = RateLimit(1000.0)
    rate = Rate(10, 1.0)
    late = 1005.0
    assert limit.ready_at(rate, 1, late) == late
    assert limit.is_unspent(late)
    assert not limit._windows  # 0.8 kB each, for 40,000 paths that take no connection
    started = limit.reserve(late)
    assert limit.redeem(rate, 1, late, started) == late
    assert limit.ready_at(rate, 1, late) > late
