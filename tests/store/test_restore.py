"""Salvaged items into another store: all of them, never twice."""

import pytest

from engine.store.environment import Environment, StoreOptions
from engine.store.restore import Restorer
from engine.store.salvage import salvage
from engine.store.verify import verify_store

OPTIONS = StoreOptions(map_size_bytes=64 << 20, lock_wait_s=0.0)
NOW = 1_700_000_100.0


def restore(path, items, now=NOW):
    environment = Environment(path, OPTIONS)
    environment.open()
    result = Restorer(environment, now).run(items)
    environment.close()
    return result


def test_everything_goes_into_a_whole_store(fill, tmp_path):
    store = fill()
    result = restore(tmp_path / "new", salvage(store.path))
    assert (result.deliveries, result.known, result.lost, result.is_complete) == (300, 0, [], True)
    assert result.remembered == 108
    found = verify_store(tmp_path / "new")
    assert found.is_whole, found.problems
    assert (found.entries["deliveries"], found.entries["heads"], found.entries["seen"]) == (300, 20, 100)


def test_again_puts_nothing(fill, tmp_path):
    store = fill()
    restore(tmp_path / "new", salvage(store.path))
    result = restore(tmp_path / "new", salvage(store.path))
    assert (result.deliveries, result.known, result.remembered) == (0, 300, 0)


def test_cut_short_and_begun_again_is_whole(fill, tmp_path):
    store = fill()
    items = list(salvage(store.path))
    assert not restore(tmp_path / "new", items[:200]).is_complete
    result = restore(tmp_path / "new", items)
    assert result.deliveries + result.known == 300
    assert verify_store(tmp_path / "new").is_whole


def test_what_left_since_is_remembered_for_a_day(fill, open_harness):
    store = fill()
    restore(store.path.parent / "new", salvage(store.path))
    harness = open_harness("new")
    harness.unix_now = NOW
    for key in harness.stored_keys()[:50]:
        harness.store.remove(harness.store.load(key))
    harness.commit()
    harness.store.close()
    result = restore(store.path.parent / "new", salvage(store.path))
    assert (result.deliveries, result.known) == (0, 300)
    late = restore(store.path.parent / "new", salvage(store.path), NOW + 25 * 3600)
    assert late.deliveries == 50


@pytest.mark.parametrize("page", ["leaf", "big", "root"])
def test_store_made_of_a_damaged_one_is_whole(fill, tmp_path, page):
    store = fill()
    store.zero(store.page_of("bodies", page))
    result = restore(tmp_path / "new", salvage(store.path))
    assert result.deliveries + len(result.lost) == 300
    assert verify_store(tmp_path / "new").is_whole
