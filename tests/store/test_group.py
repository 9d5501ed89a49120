"""When commits begin, and what becomes of failed ones."""

from __future__ import annotations

import lmdb
import pytest

from engine.core.errors import StoreFull, StoreUnhealthy


def test_lone_put_waits_for_no_timer(harness, make):
    began = harness.loop.now
    for _ in range(5):
        harness.put(make())
        harness.run_until(harness.are_all_told)
    assert harness.loop.now == began
    assert harness.store.stats.commits == 5


@pytest.mark.parametrize(("puts", "pace_s"), [(4, 0.002), (10, 0.005), (100, 0.005)])
def test_commits_are_paced_by_what_they_make_durable(harness, make, puts, pace_s):
    for _ in range(puts):
        harness.put(make())
    harness.run_until(lambda: len(harness.told) == puts)
    began = harness.loop.now
    harness.put(make())
    harness.run_until(lambda: len(harness.told) == puts + 1)
    assert harness.loop.now - began == pytest.approx(pace_s)


def test_removals_linger_for_company(harness, make):
    deliveries = [make(), make()]
    for delivery in deliveries:
        harness.put(delivery)
    harness.commit()
    began, commits = harness.loop.now, harness.store.stats.commits
    harness.store.remove(deliveries[0])
    harness.loop.now += 0.005
    harness.store.remove(deliveries[1])
    harness.run_until(lambda: harness.store.count() == 0 and harness.store.stats.commits > commits)
    assert harness.loop.now - began == pytest.approx(0.010)
    assert harness.store.stats.commits == commits + 1


def test_put_takes_lingering_removals_along_at_once(harness, make):
    delivery = make()
    harness.put_now(delivery)
    harness.loop.now += 1.0
    began = harness.loop.now
    harness.store.remove(delivery)
    harness.put(make())
    harness.run_until(lambda: len(harness.told) == 2)
    assert harness.loop.now == began
    assert harness.store.count() == 1


def test_batches_are_bounded_in_changes_and_octets(harness, make):
    for _ in range(1200):
        harness.put(make(message=b"m"))
    harness.run_until(lambda: len(harness.told) == 1200)
    assert harness.store.stats.commits == 3
    for _ in range(5):
        harness.put(make(message=b"x" * (3 << 20)))
    harness.run_until(lambda: len(harness.told) == 1205)
    assert harness.store.stats.commits == 5


def test_what_is_staged_while_a_commit_is_under_way_goes_into_the_next(harness, make):
    first, second = make(), make()
    harness.put(first)
    harness.loop.turn()
    harness.put(second)
    harness.store.remove(first)
    harness.commit()
    assert harness.told == [None, None]
    assert harness.stored_keys() == [second.key]


def test_when_durable_covers_everything_before_it_and_is_told_last(harness, make):
    told: list[str] = []
    for number in range(700):
        delivery = make(message=b"m")
        harness.store.put([delivery], b"m", lambda error, number=number: told.append(f"put {number}"))
    harness.store.when_durable(lambda error: told.append("durable"))
    harness.run_until(lambda: "durable" in told)
    assert len(told) == 701
    assert told[-1] == "durable"


class Corrupted:
    """A writer that finds a damaged page."""

    def write(self, txn, batch, unix_now):
        raise lmdb.CorruptedError("mdb_put")


def test_damaged_page_tells_everybody_once_and_nothing_is_promised_any_more(harness, make):
    stored = make()
    harness.put_now(stored)
    harness.store._group._writer = Corrupted()
    harness.put(make())
    harness.store.remove(stored)
    harness.run_until(lambda: len(harness.told) == 2)
    assert isinstance(harness.told[1], StoreUnhealthy)
    assert len(harness.unhealthy) == 1
    assert harness.store.failure is harness.unhealthy[0]
    with pytest.raises(StoreUnhealthy):
        harness.put(make())
    harness.store.close()
    assert len(harness.unhealthy) == 1


def test_bug_while_writing_makes_the_store_unhealthy_not_silent(harness, make):
    harness.store._group._writer = None
    harness.put(make())
    harness.run_until(lambda: len(harness.told) == 1)
    assert isinstance(harness.told[0], StoreUnhealthy)
    assert "NoneType" in str(harness.unhealthy[0])


class NoRoom:
    """A writer that finds no room a number of times."""

    def __init__(self, writer, failures: int, error: Exception) -> None:
        self.writer, self.failures, self.error = writer, failures, error

    def write(self, txn, batch, unix_now):
        self.failures -= 1
        if self.failures >= 0:
            raise self.error
        self.writer.write(txn, batch, unix_now)


def test_removals_that_find_no_room_are_tried_again_every_second(harness, make, monkeypatch):
    delivery = make()
    harness.put_now(delivery)
    group = harness.store._group
    monkeypatch.setattr(harness.store._environment, "grow", lambda: False)
    group._writer = NoRoom(group._writer, 3, lmdb.MapFullError("mdb_del"))
    began = harness.loop.now
    harness.store.remove(delivery)
    assert harness.store.load(delivery.key) is None
    harness.run_until(lambda: harness.store.count() == 0)
    assert harness.loop.now - began == pytest.approx(3.0, abs=0.1)
    assert harness.store.stats.failures == 3


def test_close_without_room_loses_no_delivery(harness, open_harness, make, monkeypatch):
    stored, refused = make(), make()
    harness.put_now(stored)
    group = harness.store._group
    monkeypatch.setattr(harness.store._environment, "grow", lambda: False)
    group._writer = NoRoom(group._writer, 100, lmdb.MapFullError("mdb_put"))
    harness.store.remove(stored)
    harness.put(refused)
    harness.store.close()
    assert isinstance(harness.told[1], StoreFull)
    assert open_harness().stored_keys() == [stored.key], "its removal was not durable: it goes out twice"


def test_async_puts_refused_only_when_unhealthy(open_harness, make):
    harness = open_harness(durability="async")
    harness.store._group._writer = Corrupted()
    harness.put(make())
    harness.loop.turn()
    assert harness.told == [None]
    harness.run_until(lambda: bool(harness.unhealthy))
    with pytest.raises(StoreUnhealthy):
        harness.put(make())
