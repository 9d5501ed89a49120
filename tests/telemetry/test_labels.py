"""Which destinations get a label of their own."""

from __future__ import annotations

from engine.telemetry import labels
from engine.telemetry.labels import KEEP_HELD_S, OTHER, DestinationLabels, HeldLabels


def test_providers_always_have_their_name() -> None:
    names = DestinationLabels(frozenset({"gmail"}), max_labels=4)
    for n in range(50_000):
        names.label(f"d{n}.example")
    assert names.label("gmail") == "gmail"


def test_labels_are_bounded() -> None:
    names = DestinationLabels(max_labels=20)
    seen = {names.label(f"d{n % 300}.example") for n in range(200_000)}
    assert OTHER in seen
    assert len(seen) <= 21


def test_label_once_given_stays() -> None:
    names = DestinationLabels(max_labels=4)
    assert names.label("first.example") == "first.example"
    for n in range(100_000):
        names.label(f"d{n % 50}.example")
    assert names.label("first.example") == "first.example"


def test_heavy_destination_gets_its_name_though_it_comes_late() -> None:
    names = DestinationLabels(max_labels=4)
    for n in range(1000):
        names.label(f"d{n}.example")
    given = [names.label("heavy.example") for _ in range(200)]
    assert given[0] == OTHER
    assert given[-1] == "heavy.example"


def test_candidates_are_bounded() -> None:
    names = DestinationLabels(max_labels=4)
    for n in range(3 * labels.CANDIDATES):
        names.label(f"d{n}.example")
    assert len(names._candidates) <= labels.CANDIDATES


def test_peek_gives_no_label() -> None:
    names = DestinationLabels(max_labels=4)
    assert names.peek("new.example") == OTHER
    assert names.label("new.example") == "new.example"
    assert names.peek("new.example") == "new.example"


def test_provider_of_a_reload_gets_its_name() -> None:
    names = DestinationLabels(max_labels=0)
    assert names.label("gmail") == OTHER
    names.name_providers(frozenset({"gmail"}))
    assert names.label("gmail") == "gmail"


def test_what_is_held_has_its_name_without_any_traffic() -> None:
    names = DestinationLabels(max_labels=1)
    names.label("busy.example")
    held = HeldLabels(names)
    assert names.peek("dead.example") == OTHER
    assert held.label("dead.example", 0.0) == "dead.example"
    assert held.label("busy.example", 0.0) == "busy.example"


def test_labels_of_what_is_held_are_bounded_at_a_time_and_by_the_hour() -> None:
    held = HeldLabels(DestinationLabels(), max_labels=10)
    first = [f"d{n}.example" for n in range(10)]
    named = {held.label(f"d{n % 200}.example", second) for second in range(3000) for n in range(second, 200)}
    assert named == {*first, OTHER}
    for name in first[1:]:
        held.label(name, 5000.0)
    assert held.label("d0.example", 5000.0) == "d0.example"  # keeps its place though another one asked
    now = 5000.0 + KEEP_HELD_S
    assert held.label("new.example", now) == "new.example"


def test_what_is_still_held_keeps_its_label() -> None:
    held = HeldLabels(DestinationLabels(), max_labels=2)
    for hour in range(5):
        assert held.label("long.example", hour * KEEP_HELD_S) == "long.example"
        assert held.label(f"short-{hour}.example", hour * KEEP_HELD_S) == f"short-{hour}.example"
        assert held.label("late.example", hour * KEEP_HELD_S) == OTHER
