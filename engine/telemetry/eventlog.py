"""The file of event lines: synced with the store's commit, rotated, compressed.

Events are added on the loop and taken when a commit begins; the thread that commits writes and syncs them
before it ends its transaction. So a disposition is on disk before its delivery leaves the store: a crash in
between tells it twice, never not at all. What could not be written is kept and comes first the next time.

The file being written is `events-<shard>.jsonl`. Full or old, it is renamed to `events-<shard>-<utc>.jsonl`
and compressed to `.jsonl.zst` beside the engine's work (eventarchive).

Owns: that file. A line that a crash has torn is cut off at start: its commit had not ended either, so the
store tells it again.
Never: says what happened (events does), decides when to commit (store does).
Fails: StoreFull when the disk is full, StoreUnhealthy when it can't be written otherwise.
After: Postfix's and PowerMTA's accounting files.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from engine.core.errors import StoreError, StoreFull, StoreUnhealthy
from engine.telemetry.eventarchive import EventArchive
from engine.telemetry.events import Event, format_events

FILE_MODE = 0o640  # recipients' addresses: for the engine's group, not for everybody
TORN_TAIL_BYTES = 1 << 20  # a crash tears at most the last write; one write is one commit, bounded at 8 MB
MAX_BYTES = 256 << 20  # a quarter of an hour at 8,000 messages a second; 15 to 20 MB compressed
MAX_AGE_S = 3600.0  # consumers of rotated files see an hour at the latest


class EventLog:
    """The event log of one shard. `add` and `take` on the loop; `write` and `close` on any one thread."""

    def __init__(
        self,
        directory: Path,
        shard: int,
        *,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
        keep_files: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is touched until `open`. `keep_files`: rotated files to keep, 0 for all."""
        self.path = directory / f"events-{shard}.jsonl"
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._archive = EventArchive(directory, shard, keep_files=keep_files)
        self._events: list[Event] = []
        self._unwritten: list[bytes] = []
        self._fd = -1
        self._size_bytes = 0
        self._opened_at = 0.0

    def open(self) -> None:
        """Make the directory, mend a torn end, go on where the last run ended.

        Raises:
            StoreError: the directory or the file can't be made or read.
        """
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._open_file()
        except OSError as error:
            raise _store_error(self.path, error) from error
        self._archive.start()

    def add(self, event: Event) -> None:
        """Have this event written with the next commit. HOT."""
        self._events.append(event)

    def take(self) -> bytes | None:
        """Return the lines of everything added since the last call; None if nothing was."""
        if not self._events and not self._unwritten:
            return None
        events, self._events = self._events, []
        chunk = format_events(events)
        if not self._unwritten:
            return chunk
        failed, self._unwritten = self._unwritten, []
        return b"".join([*failed, chunk])

    def write(self, chunk: bytes | None) -> None:
        """Append and sync what `take` gave; return when it is on disk.

        Raises:
            StoreError: it is not; the next `take` will give it again.
        """
        if not chunk:
            return
        try:
            self._append(chunk)
        except OSError as error:
            self._unwritten.append(chunk)
            self._cut_back()
            raise _store_error(self.path, error) from error
        self._rotate_if_due()

    def flush(self) -> None:
        """Take, write and sync what is left: for the end, and where no commit comes."""
        self.write(self.take())

    def close(self) -> None:
        """Flush, close the file, let a compression that runs come to its end."""
        try:
            if self._fd >= 0:
                self.flush()
        finally:
            self._close_file()
            self._archive.close()

    def _append(self, chunk: bytes) -> None:
        if self._fd < 0:
            self._open_file()
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]
        os.fdatasync(self._fd)
        self._size_bytes += len(chunk)

    def _cut_back(self) -> None:
        """Take off what a failed write has left, so that the chunk does not follow half of itself.

        Where that fails too, the file is opened anew at the next write, which mends its end.
        """
        try:
            os.ftruncate(self._fd, self._size_bytes)
        except OSError:
            self._close_file()

    def _rotate_if_due(self) -> None:
        """Rotate by size or age. A rename that fails is tried again after the next write: no line is lost."""
        now = self._clock()
        if self._size_bytes < self._max_bytes and now - self._opened_at < self._max_age_s:
            return
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        rotated = self.path.with_name(f"{self.path.stem}-{stamp}.jsonl")
        try:
            os.rename(self.path, rotated)
        except OSError:
            return
        self._close_file()
        self._archive.add(rotated)

    def _open_file(self) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        try:
            size = _mend_end(fd)
            _sync_directory(self.path.parent)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._size_bytes = size
        self._opened_at = _first_time(fd) if size else self._clock()

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _mend_end(fd: int) -> int:
    """Cut what follows the last whole line; return the size then.

    Zeros at the end are what some file systems leave for blocks that a power cut kept from the disk.
    """
    size = os.fstat(fd).st_size
    end = size
    while end:
        start = max(0, end - TORN_TAIL_BYTES)
        tail = os.pread(fd, end - start, start)
        whole = _whole_length(tail)
        end = start + whole
        if whole:
            break
    if end < size:
        os.ftruncate(fd, end)
        os.fsync(fd)
    return end


def _whole_length(tail: bytes) -> int:
    """Return how much of `tail` ends with a line that was written whole."""
    end = tail.rfind(b"\n") + 1
    while end and not tail.endswith(b"}\n", 0, end):
        end = tail.rfind(b"\n", 0, end - 1) + 1
    return end


def _first_time(fd: int) -> float:
    """Return the time of the first line, so that a restart does not make a file look young."""
    found = re.search(rb'"time":([0-9.]+)', os.pread(fd, 4096, 0))
    return float(found[1]) if found else os.fstat(fd).st_mtime


def _sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable; fdatasync of a file does not cover its name."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _store_error(path: Path, error: OSError) -> StoreError:
    kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnhealthy
    return kind(f"event log {path}: {error.strerror or error}")
