"""Which destinations get a label of their own."""

from __future__ import annotations

from engine.telemetry import labels
from engine.telemetry.labels import OTHER, DestinationLabels


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
