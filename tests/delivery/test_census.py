"""census: whose the stored deliveries are, as the sweep last saw it."""

from __future__ import annotations

import pytest

from engine.delivery.census import UNKNOWN, Census


def make_census(**deliveries: int) -> Census:
    census = Census()
    for customer, number in deliveries.items():
        census.count(customer, number)
    census.end_round()
    return census


def test_a_round_tells_whose_deliveries_are_there() -> None:
    assert make_census(acme=3, globex=2).split(5) == {"acme": 3, "globex": 2}


def test_the_last_round_holds_until_the_next_has_ended() -> None:
    census = make_census(acme=3)
    census.count("globex", 3)
    assert census.split(3) == {"acme": 3}
    census.end_round()
    assert census.split(3) == {"globex": 3}


@pytest.mark.parametrize("total", [0, 1, 7, 1001])
def test_the_total_is_the_stores_whatever_the_round_has_counted(total: int) -> None:
    parts = make_census(acme=20, globex=10, initech=5).split(total)
    assert sum(parts.values()) == total
    assert parts["acme"] >= parts["globex"] >= parts["initech"] >= 0


def test_the_first_round_tells_before_its_end() -> None:
    """A large backlog takes it two minutes."""
    census = Census()
    assert census.split(9) == {UNKNOWN: 9}
    census.count("acme", 1)
    census.count("globex", 2)
    assert census.split(9) == {"acme": 3, "globex": 6}


def test_an_empty_store_has_nobodys_deliveries() -> None:
    assert Census().split(0) == {}
    assert Census().split(2) == {UNKNOWN: 2}
    assert make_census().split(2) == {UNKNOWN: 2}
