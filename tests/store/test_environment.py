"""Opening a store: its owner, its health, its room."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from engine.core.errors import StoreDamaged, StoreFull, StoreUnhealthy
from engine.store.environment import Environment, Room, StoreOptions, is_of_the_disk, translate
from engine.store.pages import PageFile

OPTIONS = StoreOptions(map_size_bytes=64 << 20, lock_wait_s=0.5, min_free_bytes=0, min_free_fraction=0.0)


def opened(path: Path) -> Environment:
    environment = Environment(path, OPTIONS)
    environment.open()
    return environment


def test_directory_is_private(tmp_path):
    environment = opened(tmp_path / "a" / "store")
    assert (tmp_path / "a" / "store").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "store" / "data.mdb").stat().st_mode & 0o777 == 0o600
    environment.close()
    environment.close()


def test_second_owner_waits_and_is_then_refused_by_the_name_of_the_file(tmp_path):
    first = opened(tmp_path)
    waits: list[float] = []
    second = Environment(tmp_path, OPTIONS)
    with pytest.raises(StoreUnhealthy, match=f"{tmp_path}/owner: another process"):
        second.open(waits.append)
    assert sum(waits) == pytest.approx(0.5)
    first.close()


def test_second_owner_gets_the_store_when_the_first_ends_meanwhile(tmp_path):
    first = opened(tmp_path)
    second = Environment(tmp_path, OPTIONS)
    second.open(lambda seconds: first.close())
    assert (tmp_path / "owner").read_text() == f"{os.getpid()}\n"
    second.close()


def test_lock_ends_with_its_process(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from engine.store.environment import *;"
        "Environment(Path(sys.argv[1]), StoreOptions(map_size_bytes=1 << 20)).open();"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -signal.SIGKILL
    opened(tmp_path).close()


def test_store_of_a_later_format_is_refused(tmp_path):
    environment = opened(tmp_path)
    with environment.lmdb.begin(write=True) as txn:
        txn.put(b"format", b"3", db=environment.tables.meta)
    environment.close()
    with pytest.raises(StoreUnhealthy, match="format 3, and this Mailrail reads 2"):
        opened(tmp_path)
    with pytest.raises(StoreUnhealthy, match="format 3"):
        opened(tmp_path)


def test_store_of_format_1_is_opened_and_says_so_to_an_earlier_mailrail(tmp_path):
    environment = opened(tmp_path)
    with environment.lmdb.begin(write=True) as txn:
        txn.put(b"format", b"1", db=environment.tables.meta)
    environment.close()
    environment = opened(tmp_path)
    with environment.lmdb.begin() as txn:
        assert txn.get(b"format", db=environment.tables.meta) == b"2"
    environment.close()


def write_meta(path: Path, slot: int, at: int, octets: bytes) -> None:
    with (path / "data.mdb").open("r+b") as file:
        file.seek(slot * 4096 + at)
        file.write(octets)


TRANSACTION_AT, LAST_PAGE_AT = 144, 136  # in a meta page, its header included


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (TRANSACTION_AT, 1 << 20, "meta pages of the transactions"),
        (LAST_PAGE_AT, 1, "meta pages whose last pages are"),
        (LAST_PAGE_AT, 1 << 40, "a meta page promises"),
        (LAST_PAGE_AT, 1 << 20, "a meta page promises"),
        (LAST_PAGE_AT, (1 << 64) - 1, "a meta page promises"),
    ],
)
@pytest.mark.parametrize("is_newer", [True, False])
def test_meta_pages_that_can_not_be_true_are_damage(harness, make, at, value, why, is_newer):
    """A flipped bit there would take back the last commits, or have pages in use written over."""
    put_many(harness, make, 10)
    harness.store.close()
    file = PageFile(harness.path / "data.mdb")
    newest = file.metas.index(file.newest)
    file.close()
    write_meta(harness.path, newest if is_newer else 1 - newest, at, value.to_bytes(8, "little"))
    if at == LAST_PAGE_AT and not is_newer:
        if value == 1:
            opened(harness.path).close()  # nothing is promised by the older one
            return
        why = "meta pages whose last pages are"
    before = (harness.path / "data.mdb").stat().st_size
    with pytest.raises(StoreDamaged, match=why):
        opened(harness.path)
    assert (harness.path / "data.mdb").stat().st_size == before


@pytest.mark.parametrize(
    "octets", [b"not a store", bytes(10_000), b"\xff" * 100_000], ids=["text", "zeros", "ones"]
)
def test_file_that_is_no_store_is_refused(tmp_path, octets):
    (tmp_path / "data.mdb").write_bytes(octets)
    with pytest.raises(StoreUnhealthy, match=str(tmp_path)):
        opened(tmp_path)
    assert (tmp_path / "data.mdb").read_bytes() == octets, "left as it was found"


@pytest.mark.parametrize("octets", [b"", bytes(4096), bytes(8192)], ids=["empty", "a page", "two pages"])
def test_file_that_a_power_cut_left_before_its_first_commit_is_begun_anew(tmp_path, octets):
    (tmp_path / "data.mdb").write_bytes(octets)
    opened(tmp_path).close()


def test_unwritable_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnhealthy, match=str(tmp_path / "file")):
        opened(tmp_path / "file" / "store")


def put_many(harness, make, count: int = 60) -> list:
    deliveries = [make(f"d{n}.example", message=b"x" * 9000) for n in range(count)]
    for delivery in deliveries:
        harness.put(delivery)
    harness.commit()
    return deliveries


def run_reader(path: Path) -> subprocess.CompletedProcess:
    """Open the store in a process of its own and load everything: what kills it must not kill the tests."""
    script = Path(__file__).with_name("read_all.py")
    return subprocess.run([sys.executable, script, str(path)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.995])
def test_truncated_file_is_reported_not_a_crash(harness, make, kept):
    put_many(harness, make)
    harness.store.close()
    data = harness.path / "data.mdb"
    os.truncate(data, int(data.stat().st_size * kept))
    result = run_reader(harness.path)
    assert result.returncode == 0, (result.returncode, result.stderr)
    words = result.stdout.split()
    assert words[0] in {"unhealthy", "read"}
    if words[0] == "read":
        assert int(words[1]) + int(words[2]) == 60, "each delivery is either loaded or set aside"


@pytest.mark.parametrize("seed", range(6))
def test_zeroed_page_is_reported_not_a_crash(harness, make, seed):
    put_many(harness, make)
    harness.store.close()
    data = harness.path / "data.mdb"
    page = random.Random(seed).randrange(2, data.stat().st_size // 4096)
    with data.open("r+b") as file:
        file.seek(page * 4096)
        file.write(bytes(4096))
    result = run_reader(harness.path)
    assert result.returncode == 0, (result.returncode, result.stderr)


def test_flipped_octets_of_a_message_set_that_one_aside(harness, make):
    deliveries = put_many(harness, make)
    harness.store.close()
    data = harness.path / "data.mdb"
    octets = bytearray(data.read_bytes())
    at = octets.rindex(b"x" * 8000) + 4000
    octets[at] ^= 0x40
    data.write_bytes(octets)
    result = run_reader(harness.path)
    assert result.stdout.split() == ["read", str(len(deliveries) - 1), "1"], result.stderr


def test_short_but_healthy_file_opens(harness, open_harness, make):
    put_many(harness, make, 3)
    harness.store.close()
    data = harness.path / "data.mdb"
    size = data.stat().st_size
    os.truncate(data, size + 8192)
    again = open_harness()
    assert len(again.stored_keys()) == 3


def test_room_counts_what_is_used_and_sees_the_disk(harness, make):
    before = harness.store.room
    put_many(harness, make)
    after = harness.store.room
    assert 60 * 9000 < after.map_used_bytes - before.map_used_bytes < 60 * 14_000
    assert after.map_size_bytes == 64 << 20
    assert 0 < after.disk_free_bytes <= after.disk_size_bytes


@pytest.mark.parametrize(
    ("room", "reason"),
    [
        (Room(89, 100, 50, 100), ""),
        (Room(91, 100, 50, 100), "91 of 100 octets of the map"),
        (Room(10, 100, 19, 100), "19 octets are free on the disk, 20 must be"),
        (Room(10, 100, 20, 100), ""),
        (Room(10, 100, 40, 1000), "40 octets are free on the disk, 50 must be"),
    ],
)
def test_watermarks(tmp_path, room, reason):
    options = StoreOptions(map_watermark=0.9, min_free_bytes=20, min_free_fraction=0.05)
    found = Environment(tmp_path, options).why_full(room)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lmdb.MapFullError("put"), StoreFull),
        (OSError(errno.ENOSPC, "no space"), StoreFull),
        (OSError(errno.EDQUOT, "quota"), StoreFull),
        (OSError(errno.EIO, "i/o"), StoreUnhealthy),
        (lmdb.CorruptedError("get"), StoreDamaged),
        (lmdb.PageNotFoundError("get"), StoreDamaged),
        (lmdb.InvalidError("open"), StoreDamaged),
        (lmdb.PanicError("begin"), StoreUnhealthy),
        (AssertionError("bug"), StoreUnhealthy),
    ],
)
def test_foreign_errors_become_ours_and_name_the_store(tmp_path, error, kind):
    translated = translate(error, tmp_path)
    assert type(translated) is kind
    assert str(tmp_path) in str(translated)


def coded(error: lmdb.Error, code: int) -> lmdb.Error:
    """Return an error as py-lmdb raises it."""
    error.code = code
    return error


def test_damage_behind_a_failed_cursor_is_damage(tmp_path):
    error = SystemError("returned a result with an exception set")
    error.__cause__ = lmdb.CorruptedError("get")
    assert type(translate(error, tmp_path)) is StoreDamaged
    assert type(translate(SystemError("x"), tmp_path)) is StoreUnhealthy


@pytest.mark.parametrize(
    ("error", "is_disk"),
    [
        (OSError(errno.EIO, "i/o"), True),
        (coded(lmdb.Error("commit"), errno.EIO), True),
        (coded(lmdb.BadTxnError("get"), -30782), False),
        (SystemError("x"), False),
        (coded(lmdb.CorruptedError("get"), -30796), False),
    ],
)
def test_what_the_disk_refuses_is_told_from_what_makes_no_sense(tmp_path, error, is_disk):
    assert is_of_the_disk(translate(error, tmp_path)) == is_disk


def test_map_grows_for_removals_within_bounds(tmp_path):
    environment = opened(tmp_path)
    grown = sum(environment.grow() for _ in range(100))
    assert grown == 4, "64 MB: a tenth of the map, or four steps"
    with environment.lmdb.begin() as txn:
        assert txn.get(b"format", db=environment.tables.meta) == b"2"
    environment.close()
