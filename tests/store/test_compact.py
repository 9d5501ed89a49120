"""Compacting: the same entries in fewer octets, or the file as it was."""

import pytest

from engine.core.errors import StoreDamaged, StoreUnhealthy
from engine.store.compact import COPY, compact_store
from engine.store.environment import StoreOptions
from engine.store.owner import OwnerLock
from engine.store.verify import verify_store

OPTIONS = StoreOptions(map_size_bytes=64 << 20, lock_wait_s=0.0, min_free_bytes=0, min_free_fraction=0.0)


def test_free_pages_go_and_entries_stay(fill):
    store = fill(600, 550)
    before = verify_store(store.path)
    result = compact_store(store.path, OPTIONS)
    after = verify_store(store.path)
    assert after.is_whole, after.problems
    assert after.entries == before.entries
    assert result.after_bytes < result.before_bytes / 3
    assert after.size_bytes < before.size_bytes / 3
    assert not (store.path / COPY).exists()
    assert store.data.stat().st_mode & 0o777 == 0o600


def test_damaged_store_is_refused_and_left_as_it_was(fill):
    store = fill()
    store.zero(store.page_of("bodies", "leaf"))
    before = store.data.read_bytes()
    with pytest.raises(StoreDamaged, match="salvage it first"):
        compact_store(store.path, OPTIONS)
    assert store.data.read_bytes() == before


def test_store_in_use_is_refused_by_name(fill):
    store = fill(10, 0)
    lock = OwnerLock(store.path)
    lock.take(0.0)
    with pytest.raises(StoreUnhealthy, match=f"{store.path}/owner"):
        compact_store(store.path, OPTIONS)
    lock.release()


def test_copy_that_a_crash_left_is_replaced(fill):
    store = fill(600, 550)
    (store.path / COPY).mkdir()
    (store.path / COPY / "data.mdb").write_bytes(b"half a copy")
    compact_store(store.path, OPTIONS)
    assert verify_store(store.path).is_whole


def test_directory_without_a_store_is_refused(tmp_path):
    with pytest.raises(StoreUnhealthy, match="there is no store"):
        compact_store(tmp_path, OPTIONS)
    assert list(tmp_path.iterdir()) == []
