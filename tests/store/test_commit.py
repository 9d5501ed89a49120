"""Event lines first, then the transaction."""

from __future__ import annotations

import sys

import pytest

from engine.core.errors import StoreFull, StoreUnhealthy


class Journal:
    """Lines in a list; `written` is what a crash would leave."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.written: list[str] = []
        self.error: Exception | None = None
        self.harness = None

    def take(self) -> list[str] | None:
        taken, self.lines = self.lines, []
        return taken or None

    def write(self, chunk: list[str]) -> None:
        if self.error is not None:
            self.lines = chunk + self.lines
            raise self.error
        with self.harness.store._environment.lmdb.begin() as txn:
            entries = txn.stat(db=self.harness.store._tables.deliveries)["entries"]
        self.written += [f"{line} with {entries} stored" for line in chunk]


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def harness(open_harness, journal):
    journal.harness = open_harness(journal=journal)
    return journal.harness


def test_lines_are_on_disk_before_the_removal_they_tell_of(harness, journal, make):
    delivery = make()
    harness.put_now(delivery)
    journal.lines.append("delivered")
    harness.store.remove(delivery)
    harness.commit()
    assert journal.written == ["delivered with 1 stored"]
    assert harness.store.count() == 0


def test_lines_without_changes_are_written_too(harness, journal):
    journal.lines.append("accepted")
    harness.commit()
    assert journal.written == ["accepted with 0 stored"]


def test_full_disk_under_the_journal_refuses_puts_and_keeps_removals(harness, journal, make):
    stored = make()
    harness.put_now(stored)
    journal.error = StoreFull("events.jsonl: no space")
    journal.lines.append("delivered")
    harness.store.remove(stored)
    harness.put(make())
    harness.run_until(lambda: len(harness.told) == 2)
    assert harness.told[1] is journal.error
    assert harness.store.count() == 1
    journal.error = None
    harness.commit()
    assert journal.written == ["delivered with 1 stored"]
    assert harness.store.count() == 0


def test_journal_that_fails_otherwise_makes_the_store_unhealthy(harness, journal, make):
    journal.error = OSError(5, "i/o")
    journal.lines.append("accepted")
    harness.put(make())
    harness.put(make())
    harness.run_until(lambda: len(harness.told) == 2)
    assert [type(error) for error in harness.told] == [StoreUnhealthy, StoreUnhealthy]
    assert harness.unhealthy == [harness.store.failure]
    with pytest.raises(StoreUnhealthy):
        harness.put(make())
    assert harness.store.count() == 0


def test_interpreter_switches_faster_than_a_turn_of_a_busy_loop(harness):
    assert sys.getswitchinterval() == pytest.approx(0.00002)
