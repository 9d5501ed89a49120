"""One LMDB environment: its directory, its owner, its tables, its room.

`lock=False`: one process owns the directory (by flock on `owner`), one thread at a time writes, and no read
spans a commit; so a transaction may be begun on the loop and committed by another thread.

Owns: the open environment, and which of lmdb's errors mean that its file is damaged.
Fails: StoreUnhealthy where another process owns it or the disk fails, StoreDamaged where what is in the file
can't be trusted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import msgspec

from engine.core.errors import StoreDamaged, StoreError, StoreFull, StoreUnhealthy
from engine.store.owner import OwnerLock
from engine.store.pages import PageFile

FORMAT = 2  # of keys and tables; records carry versions of their own
READABLE = (b"1", b"2")  # 1 has bare records of claims and of what is remembered; they leave by themselves
FULL_BYTES = 16 << 20  # twice a batch: less than that free, and a write was short for want of room
GROWTH_BYTES = 16 << 20
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Not PanicError or BadTxnError: they follow a write that the disk refused, and a new process is rid of them.
DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
    lmdb.ProblemError,
)

SHORT_BYTES = 1 << 30  # what a file may lack beside its map: pages that were taken and freed unwritten


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can set about a store."""

    map_size_bytes: int = 64 << 30  # sparse: an upper bound, not a reservation
    durability: str = "sync"
    map_watermark: float = 0.9
    min_free_bytes: int = 1 << 30
    min_free_fraction: float = 0.05
    lock_wait_s: float = 5.0


class Room(NamedTuple):
    """How full map and disk are.

    `reusable_bytes` are on the disk in our own file, which never shrinks, and free again: new mail takes
    them first.
    """

    map_used_bytes: int
    map_size_bytes: int
    disk_free_bytes: int
    disk_size_bytes: int
    reusable_bytes: int = 0


class Tables(NamedTuple):
    """Handles of the tables, in the order in which they are opened."""

    bodies: Any
    deliveries: Any
    schedule: Any
    heads: Any
    claims: Any
    seen: Any
    replies: Any
    damaged: Any
    meta: Any

    def remembering(self, kind: str) -> Any:
        """Return the table of what a store remembers: a `claim`, a `seen` id or a `reply`."""
        return {"claim": self.claims, "seen": self.seen, "reply": self.replies}[kind]


def translate(error: Exception, path: Path) -> StoreError:
    """Turn lmdb's and the system's errors into ours; `error` is the cause of what is returned."""
    translated = _translate(error, path)
    translated.__cause__ = error
    return translated


def is_of_the_disk(error: StoreError) -> bool:
    """Say whether the system refused something, rather than LMDB or we finding no sense in what was read."""
    cause = error.__cause__
    return isinstance(cause, OSError) or getattr(cause, "code", 0) > 0  # MDB_... are below zero


def _translate(error: Exception, path: Path) -> StoreError:
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", 0)
    if isinstance(error, lmdb.MapFullError) or code in NO_ROOM or (code == errno.EIO and _is_disk_full(path)):
        return StoreFull(f"{path}: {error}")
    # py-lmdb gives a SystemError where a cursor fails after it has deleted: damage is the cause of that.
    is_damage = isinstance(error, DAMAGE) or isinstance(error.__cause__, DAMAGE)
    return (StoreDamaged if is_damage else StoreUnhealthy)(f"{path}: {error}")


def _is_disk_full(path: Path) -> bool:
    """Say whether a short write, which LMDB reports as EIO, is explained by the disk."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize < FULL_BYTES


class Environment:
    """The open LMDB environment of one directory."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.path = path
        self._options = options
        self._owner = OwnerLock(path)
        self._map_size_bytes = options.map_size_bytes
        self.lmdb: Any = None
        self.tables: Tables = Tables(*[None] * len(Tables._fields))
        self.on_damaged: Callable[[StoreDamaged], None] = lambda _: None  # told of each, before it is raised

    def open(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the directory, check its file and open it.

        Raises:
            StoreUnhealthy: another process owns it, or the disk fails.
            StoreDamaged: the file can't be trusted.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._owner.take(self._options.lock_wait_s, sleep)
            data = self.path / "data.mdb"
            _drop_unborn_file(data)
            is_short = _extend_short_file(data, self._most_bytes)
            self._open_tables()
            sync_directory(self.path)
            sync_directory(self.path.parent)
            if is_short:
                self._walk()
        except (lmdb.Error, OSError) as error:
            self.close()
            kind = StoreDamaged if isinstance(error, DAMAGE) else StoreUnhealthy
            raise kind(f"{self.path}: {error}") from error
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close the environment and give the directory free; may be called twice."""
        if self.lmdb is not None:
            self.lmdb.close()
            self.lmdb = None
        self._owner.release()

    def grow(self) -> bool:
        """Widen the map for removals, which take pages before they give any; False at a tenth over its size.

        No transaction may be open.
        """
        if self._map_size_bytes + GROWTH_BYTES > self._most_bytes:
            return False
        self._map_size_bytes += GROWTH_BYTES
        self.lmdb.set_mapsize(self._map_size_bytes)
        return True

    @property
    def _most_bytes(self) -> int:
        """How far the map may grow."""
        return self._options.map_size_bytes + max(self._options.map_size_bytes // 10, 4 * GROWTH_BYTES)

    def nudge(self) -> None:
        """Let a transaction pass: what one freed serves those after the next, and aborted ones don't count.

        Else a store whose last removals made room would refuse for good: each refused put is an aborted one.
        """
        with contextlib.suppress(lmdb.Error), self.lmdb.begin(write=True) as txn:
            count = int(txn.get(b"nudges", b"0", db=self.tables.meta)) + 1
            txn.put(b"nudges", str(count).encode(), db=self.tables.meta)

    def room(self) -> Room:
        """Measure; some 15 system and LMDB calls, none of which walks anything.

        Raises:
            StoreUnhealthy: LMDB can't say.
        """
        try:
            with self.lmdb.begin() as txn:
                stats = [txn.stat(db=table) for table in self.tables]
        except lmdb.Error as error:
            raise translate(error, self.path) from error
        pages = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats)
        used_bytes = pages * stats[0]["psize"]
        disk = os.statvfs(self.path)
        allocated_bytes = (self.path / "data.mdb").stat().st_blocks * 512
        return Room(
            map_used_bytes=used_bytes,
            map_size_bytes=self._options.map_size_bytes,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            disk_size_bytes=disk.f_blocks * disk.f_frsize,
            reusable_bytes=max(0, allocated_bytes - used_bytes),
        )

    def why_full(self, room: Room) -> str:
        """Say which watermark is passed; "" if none is."""
        options = self._options
        if room.map_used_bytes > room.map_size_bytes * options.map_watermark:
            return f"{self.path}: {room.map_used_bytes} of {room.map_size_bytes} octets of the map are used"
        floor = max(options.min_free_bytes, int(room.disk_size_bytes * options.min_free_fraction))
        free_bytes = room.disk_free_bytes + room.reusable_bytes
        if free_bytes < floor or room.disk_free_bytes < floor // 2:  # event lines find no room in our file
            return f"{self.path}: {room.disk_free_bytes} octets are free on the disk, {floor} must be"
        return ""

    def _open_tables(self) -> None:
        names = Tables._fields
        self.lmdb = lmdb.open(
            str(self.path),
            map_size=self._options.map_size_bytes,
            max_dbs=len(names),
            mode=0o700,
            readahead=False,
            lock=False,
            max_spare_txns=1,
            lib_version=0,
        )
        self.tables = Tables(*[self.lmdb.open_db(name.encode()) for name in names])
        with self.lmdb.begin() as txn:
            found = txn.get(b"format", db=self.tables.meta)
        current = str(FORMAT).encode()
        if found is not None and found not in READABLE:
            if not found.isdigit():
                raise StoreDamaged(f"{self.path}: no format but {found[:20]!r}")
            raise StoreUnhealthy(f"{self.path}: format {found.decode()}, and this Mailrail reads {FORMAT}")
        if found != current:  # from now on an earlier Mailrail can't read it
            with self.lmdb.begin(write=True) as txn:
                txn.put(b"format", current, db=self.tables.meta)

    def _walk(self) -> None:
        """Read every key: a page that is not there raises; a lost message shows when it is loaded."""
        with self.lmdb.begin(buffers=True) as txn:
            for table in self.tables:
                for _ in txn.cursor(db=table).iternext(values=False):
                    pass


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: a synced file whose name is lost is lost."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _drop_unborn_file(path: Path) -> None:
    """Remove a file that a power cut left empty before its first commit, when it has held nothing yet."""
    if path.exists() and path.stat().st_size <= 2 * os.sysconf("SC_PAGE_SIZE") and not any(path.read_bytes()):
        path.unlink()


def _extend_short_file(path: Path, most_bytes: int) -> bool:
    """Give a data file that ends before its last page its length back; True if it was short.

    Reading past the end of a mapped file is SIGBUS, which kills; a hole reads as zeros, which LMDB and our
    checksums report. A healthy file may be short: LMDB does not write pages that it took and freed in one
    transaction.

    Raises:
        StoreDamaged: its meta pages can't be true.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    promised_bytes = _promised_bytes(path, most_bytes)
    if path.stat().st_size >= promised_bytes:
        return False
    os.truncate(path, promised_bytes)
    return True


def _promised_bytes(path: Path, most_bytes: int) -> int:
    with contextlib.closing(PageFile(path)) as file:
        newest = file.newest
        if file.doubt or newest is None:
            raise StoreDamaged(f"{path}: {file.doubt}")
        promised_bytes = newest.page_bytes * (newest.last_page + 1)
        if promised_bytes > max(most_bytes, file.size_bytes + SHORT_BYTES):  # no map was ever that large
            raise StoreDamaged(f"{path}: a meta page promises {promised_bytes} octets")
        return promised_bytes
