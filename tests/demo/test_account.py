from __future__ import annotations

from engine.demo.account import Account, Line
from tests.demo.conftest import FAST, SOURCE, GoodRun


def test_connections_are_counted_from_open_to_close(run: GoodRun) -> None:
    account = Account(run.scenario)
    for at, kind in ((1.0, "open"), (2.0, "open"), (3.0, "close"), (4.0, "open"), (5.0, "close")):
        account.add(Line(at, kind, FAST, SOURCE))
    path = account.path(SOURCE, "fast.example")
    assert (path.now_open, path.peak_open) == (1, 2)
    assert path.edges == [(1.0, 1), (2.0, 2), (3.0, 1), (4.0, 2), (5.0, 1)]


def test_each_recipient_of_a_message_has_its_copies(run: GoodRun) -> None:
    account = Account(run.scenario)
    line = Line(1.0, "message", FAST, SOURCE, "e", ["a@fast.example", "b@fast.example"], "acme-1", True)
    account.add(line)
    account.add(line)
    assert {key: len(found) for key, found in account.copies.items()} == {
        ("acme-1", "a@fast.example"): 2,
        ("acme-1", "b@fast.example"): 2,
    }
    assert account.seen == {(SOURCE, "e"): 2}


def test_refused_message_has_no_copy_but_an_instant(run: GoodRun) -> None:
    account = Account(run.scenario)
    account.add(Line(1.0, "message", FAST, SOURCE, "e", ["a@fast.example"], "acme-1", False))
    assert account.copies == {}
    assert account.refused == 1
    assert list(account.path(SOURCE, "fast.example").instants) == [1.0]
