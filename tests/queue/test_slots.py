"""Connection slots, as a peer would count them."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.queue.slots import ConnectionSlots

LINGER_S = 5.0  # after our close (delivery.session)


def test_slot_is_in_use_until_the_peer_must_have_seen_the_close():
    slots = ConnectionSlots()
    assert slots.acquire(1, 0.0)
    assert not slots.acquire(1, 0.0)
    assert slots.next_free_at(1, 0.0) == inf
    slots.release_at(1.0, 1.0 + LINGER_S)
    assert not slots.acquire(1, 5.9)
    assert slots.next_free_at(1, 5.9) == 6.0
    assert slots.acquire(1, 6.0)


def test_slot_is_free_at_the_end_of_file():
    slots = ConnectionSlots()
    assert slots.acquire(1, 0.0)
    slots.release(1.0)
    assert slots.acquire(1, 1.0)


def test_no_connection_before_the_quiet_time_is_over():
    slots = ConnectionSlots(quiet_until=2.0)
    assert not slots.acquire(5, 1.9)
    assert slots.next_free_at(5, 1.0) == 2.0
    assert slots.acquire(5, 2.0)


def test_lowered_limit_waits_until_enough_have_closed():
    slots = ConnectionSlots()
    for _ in range(4):
        assert slots.acquire(4, 0.0)
    for at in (10.0, 11.0, 12.0):
        slots.release_at(0.0, at)
    assert slots.next_free_at(2, 0.0) == 12.0 - 1.0 + 1.0
    assert slots.next_free_at(3, 0.0) == 11.0
    assert slots.next_free_at(1, 0.0) == inf


def test_slot_that_nobody_had_is_a_bug():
    with pytest.raises(AssertionError):
        ConnectionSlots().release(0.0)


@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from(["open", "eof", "close"]), st.floats(0.0, 3.0)), max_size=100),
)
def test_peer_never_sees_one_connection_too_many(limit, steps):
    slots = ConnectionSlots()
    now = 0.0
    open_since: list[float] = []
    seen: list[tuple[float, float]] = []  # from accept to EOF, as the peer sees it at the latest
    for step, wait_s in steps:
        now += wait_s
        if step == "open":
            assert (slots.next_free_at(limit, now) <= now) == (slots.in_use(now) < limit)
            if slots.acquire(limit, now):
                open_since.append(now)
        elif open_since:
            until = now if step == "eof" else now + LINGER_S
            slots.release_at(now, until)
            seen.append((open_since.pop(0), until))
        visible = len(open_since) + sum(begin <= now < end for begin, end in seen)
        assert slots.in_use(now) == visible <= limit
