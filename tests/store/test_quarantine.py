"""Quarantine: only damage is moved aside, in steps between which a crash is safe."""

import errno

import pytest

from engine.core.errors import StoreDamaged, StoreUnhealthy
from engine.store import quarantine as module
from engine.store.environment import Environment, StoreOptions
from engine.store.owner import OwnerLock
from engine.store.quarantine import (
    finish_salvage,
    list_quarantined,
    mark_damaged,
    mark_suspect,
    open_trusted,
    quarantine,
    read_mark,
)

OPTIONS = StoreOptions(map_size_bytes=64 << 20, lock_wait_s=0.0, min_free_bytes=0, min_free_fraction=0.0)
NOW = 1_764_000_000.5


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(module, "OWNER_WAIT_S", 0.0)


def open_it(path):
    environment = Environment(path, OPTIONS)
    try:
        return open_trusted(path, environment.open, NOW)
    finally:
        environment.close()


def test_healthy_store_stays_where_it_is(fill):
    store = fill()
    assert open_it(store.path) is None
    assert list_quarantined(store.path.parent) == []


@pytest.mark.parametrize("damage", ["meta", "tables", "text", "root"])
def test_damaged_store_is_moved_aside_and_a_fresh_one_opened(fill, damage):
    store = fill()
    (store.path / "limits").write_text("spent")
    if damage == "meta":
        store.zero(0)
    elif damage == "text":
        store.data.write_bytes(b"no store" * 4096)
    elif damage == "tables":
        store.zero(2, 4000)
    else:
        mark_damaged(store.path, "a page was damaged")
    before = store.data.read_bytes()
    moved = open_it(store.path)
    assert moved == store.path.parent / "quarantine" / "shard-0-1764000000"
    assert (moved / "data.mdb").read_bytes() == before
    assert (store.path / "limits").read_text() == "spent"
    assert read_mark(store.path) == ""
    (found,) = list_quarantined(store.path.parent)
    assert (found.path, found.shard, found.at, found.report) == (moved, 0, 1764000000, None)
    assert found.reason
    assert open_it(store.path) is None, "the fresh one is healthy"


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "i/o"), OSError(errno.ENOSPC, "full"), PermissionError(errno.EACCES, "no")]
)
def test_what_the_disk_refuses_is_not_damage(fill, monkeypatch, error):
    store = fill()

    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("lmdb.open", refuse)
    with pytest.raises(StoreUnhealthy) as caught:
        open_it(store.path)
    assert not isinstance(caught.value, StoreDamaged)
    assert store.data.exists()


def test_store_of_a_later_format_is_not_damage(fill):
    store = fill()
    environment = Environment(store.path, OPTIONS)
    environment.open()
    with environment.lmdb.begin(write=True) as txn:
        txn.put(b"format", b"3", db=environment.tables.meta)
    environment.close()
    with pytest.raises(StoreUnhealthy, match="format 3"):
        open_it(store.path)
    assert store.data.exists()


def test_store_that_somebody_has_open_is_not_moved(fill):
    store = fill()
    lock = OwnerLock(store.path)
    lock.take(0.0)
    store.zero(0)
    with pytest.raises(StoreUnhealthy, match="another process owns"):
        open_it(store.path)
    assert store.data.exists()
    lock.release()


def test_suspect_store_is_looked_at_once_and_kept_where_it_is_whole(fill):
    store = fill()
    mark_suspect(store.path, "a commit made no sense")
    assert open_it(store.path) is None
    assert not (store.path / "suspect").exists()
    store.flip(store.page_of("bodies"), 0)
    mark_suspect(store.path, "a commit made no sense")
    moved = open_it(store.path)
    assert moved is not None
    assert (moved / "reason").read_text().startswith("a commit made no sense; bodies, page")


def test_crash_before_the_rename_leaves_store_and_mark(fill, monkeypatch):
    store = fill()
    mark_damaged(store.path, "why")
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quarantine(store.path, "why", NOW)
    assert (store.data.exists(), read_mark(store.path)) == (True, "why")
    assert list_quarantined(store.path.parent) == []
    assert open_it(store.path) is not None


def test_crash_before_the_mark_is_gone_moves_nothing_twice(fill):
    store = fill()
    mark_damaged(store.path, "why")
    store.data.rename(store.path.parent / "data.mdb")
    assert open_it(store.path) is None
    assert (read_mark(store.path), list_quarantined(store.path.parent)) == ("", [])


def test_two_of_one_second_have_names_of_their_own(fill):
    store = fill(10, 0)
    for _ in range(3):
        mark_damaged(store.path, "why")
        open_it(store.path)
    names = sorted(each.path.name for each in list_quarantined(store.path.parent))
    assert names == ["shard-0-1764000000", "shard-0-1764000000-1"][: len(names)] + names[2:]
    assert len(names) == 3


def test_report_of_the_salvage_is_kept_with_it(fill):
    store = fill(10, 0)
    place = quarantine(store.path, "why", NOW)
    finish_salvage(place, {"lost": 1}, [{"delivery": "00"}])
    (found,) = list_quarantined(store.path.parent)
    assert found.report == {"lost": 1}
    assert (place / "lost.jsonl").read_text() == '{"delivery":"00"}\n'
