"""Room for large frames: in order, never more than there is, nobody forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.inject.room import Reservation, Room


def test_who_fits_gets_room_at_once() -> None:
    room = Room(100)
    assert room.reserve(60, lambda: None)
    assert room.reserve(40, lambda: None)
    assert room.reserved_bytes == 100


def test_waiting_are_served_in_order_even_if_a_later_one_would_fit() -> None:
    room, served = Room(100), []
    assert room.reserve(90, lambda: None)
    assert not room.reserve(50, lambda: served.append("large"))
    assert not room.reserve(10, lambda: served.append("small"))
    room.release(90)
    assert served == ["large", "small"]
    assert room.reserved_bytes == 60


def test_who_is_larger_than_the_room_gets_all_of_it() -> None:
    room = Room(100)
    assert room.reserve(1000, lambda: None)
    assert not room.reserve(1, lambda: None)
    room.release(1000)
    assert room.reserved_bytes == 1


def test_who_leaves_the_line_lets_those_behind_in() -> None:
    room, served = Room(100), []

    def first() -> None:
        served.append("first")

    assert room.reserve(50, lambda: None)
    assert not room.reserve(80, first)
    assert not room.reserve(20, lambda: served.append("second"))
    room.forget(first)
    assert served == ["second"]
    assert room.reserved_bytes == 70


@given(st.lists(st.integers(min_value=1, max_value=150), max_size=30))
def test_all_are_served_and_never_more_than_there_is(amounts: list[int]) -> None:
    room = Room(100)
    holding: list[int] = []
    for amount in amounts:

        def granted(amount: int = amount) -> None:
            holding.append(amount)

        if room.reserve(amount, granted):
            granted()
    served = 0
    while holding:
        assert 0 < room.reserved_bytes <= 100
        room.release(holding.pop(0))
        served += 1
    assert served == len(amounts)
    assert room.reserved_bytes == 0


def test_reservation_that_waited_is_told_and_gives_back_what_it_got() -> None:
    room, served = Room(100), []
    first = Reservation(room, 90, lambda: served.append("first"))
    second = Reservation(room, 50, lambda: served.append("second"))
    assert (first.is_waiting, second.is_waiting) == (False, True)
    first.release()
    assert (served, second.is_waiting, room.reserved_bytes) == (["second"], False, 50)
    second.release()
    assert room.reserved_bytes == 0


def test_reservation_that_waits_no_longer_leaves_the_line() -> None:
    room, served = Room(100), []
    first = Reservation(room, 90, lambda: None)
    Reservation(room, 50, lambda: served.append("second")).release()
    first.release()
    assert (served, room.reserved_bytes) == ([], 0)
