"""The permits of the last T."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from engine.queue.window import PermitWindow


def kept(window: PermitWindow) -> int:
    return sum(window.counts[window.head :])


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "move", "forget"]), st.floats(0.0, 0.3), st.floats(0.0, 0.6)),
        max_size=200,
    )
)
def test_never_holds_less_than_a_plain_list_of_ends(steps):
    window = PermitWindow(1.0, -inf)
    ends: list[float] = []  # of each permit
    names: list[float] = []
    now = 0.0
    for step, wait_s, late_s in steps:
        now += wait_s
        if step == "add":
            window.add(now)
            ends.append(now)
            names.append(now)
        elif step == "move" and names:
            i = int(late_s * 1000) % len(names)
            window.move(names[i], names[i] + late_s)
            ends[i] = max(ends[i], names[i] + late_s)
        else:
            window.forget(now)
        window.forget(now)
        assert window.total == kept(window)
        assert window.ends[window.head :] == sorted(window.ends[window.head :])
        live = sorted(end for end in ends if end + window.period_s > now)
        assert window.total >= len(live)
        for back in range(1, len(live) + 1):
            assert window.free_at(back, 0) >= live[-back] + window.period_s


def test_free_at_behind_more_than_the_limit_counts_whole_windows():
    window = PermitWindow(1.0, -inf)
    for at in (0.0, 0.3, 0.6):
        window.add(at)
    assert window.free_at(3, 0) == 1.02
    assert window.free_at(3, 2) == 1.62
    assert window.free_at(3, 4) == 1.32 + 1.02
    assert window.free_at(4, 0) == -inf


def test_permits_close_together_share_a_cell_at_the_time_of_the_last():
    window = PermitWindow(256.0, -inf)
    for at in (0.0, 0.4, 0.9, 1.1):
        window.add(at)
    assert window.ends == [0.9, 1.1]
    assert window.counts == [3, 1]
