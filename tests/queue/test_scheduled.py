"""Retry times, expiry, and the window of what is read ahead."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.envelope import Envelope
from engine.core.terms import Terms
from engine.queue.scheduled import Window, expires_at, retry_at

CURVE = (300.0, 900.0, 3600.0)


@pytest.mark.parametrize(("attempts", "wait_s"), [(1, 300.0), (2, 900.0), (3, 3600.0), (99, 3600.0)])
def test_curve_is_followed_and_its_last_value_repeats(attempts, wait_s):
    assert retry_at(1_000.0, attempts, 0.5, CURVE) == 1_000.0 + wait_s


def test_message_never_tried_waits_as_after_one_failure():
    assert retry_at(0.0, 0, 0.5, CURVE) == 300.0


@given(st.integers(1, 10), st.floats(0, 1, exclude_max=True))
def test_jitter_is_a_tenth_at_most(attempts, jitter):
    wait_s = CURVE[min(attempts, 3) - 1]
    assert wait_s * 0.9 <= retry_at(0.0, attempts, jitter, CURVE) <= wait_s * 1.1


def make_envelope(terms=None):
    return Envelope("a@b.example", "acme", "pool", 1_000.0, 1, "smtp", terms=terms)


def test_expiry_is_counted_from_acceptance():
    assert expires_at(make_envelope(), 60.0) == 1_060.0
    assert expires_at(make_envelope(Terms(envid="7")), 60.0) == 1_060.0


def test_time_held_does_not_count():
    """RFC 4865 4."""
    assert expires_at(make_envelope(Terms(hold_until=5_000.0)), 60.0) == 5_060.0


def test_deadline_with_return_comes_first_if_it_is_earlier():
    """RFC 2852 4: R returns the message at that time, N does not."""
    assert expires_at(make_envelope(Terms(deliver_by_at=1_030.0, by_mode="RT")), 60.0) == 1_030.0
    assert expires_at(make_envelope(Terms(deliver_by_at=1_090.0, by_mode="R")), 60.0) == 1_060.0
    assert expires_at(make_envelope(Terms(deliver_by_at=1_030.0, by_mode="N")), 60.0) == 1_060.0


def test_one_customer_gets_half_of_the_window():
    window = Window(100, 10**9)
    assert sum(window.admit("blast", 1_000) for _ in range(1_000)) in (50, 51)
    assert window.has_room
    assert window.held_by("blast") in (50, 51)


def test_one_customer_gets_half_of_the_octets():
    window = Window(10_000, 1_000_000)
    assert sum(window.admit("blast", 10_000) for _ in range(1_000)) == 50


def test_large_message_comes_in_alone():
    window = Window(100, 1_000)
    assert window.admit("a", 5_000)
    assert not window.admit("b", 1)
    window.leave("a", 5_000)
    assert window.admit("b", 1)


def test_leaving_what_never_came_in_is_a_bug():
    with pytest.raises(AssertionError):
        Window(10, 10).leave("a", 1)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["in", "in", "in", "out"]), st.sampled_from("abc"), st.integers(0, 300)),
        max_size=300,
    )
)
def test_bounds_hold_and_there_is_room_for_a_newcomer(steps):
    window = Window(20, 1_000)
    inside: list[tuple[str, int]] = []
    for step, customer, size_bytes in steps:
        if step == "in":
            if window.admit(customer, size_bytes):
                inside.append((customer, size_bytes))
        elif inside:
            window.leave(*inside.pop(0))
        counts = Counter(customer for customer, _ in inside)
        assert window.count == len(inside) <= 20
        assert window.size_bytes == sum(size for _, size in inside) <= 1_000 + 300
        assert all(window.held_by(name) == counts[name] for name in "abc")
        if window.size_bytes < 1_000:
            assert window.count < 20  # three customers can't fill what four could share
            assert window.admit("newcomer", 10)
            window.leave("newcomer", 10)
