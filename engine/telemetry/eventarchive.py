"""Rotated event logs: compressed beside the engine's work, the oldest removed where a number is set.

Owns: `events-<shard>-<utc>.jsonl` and `.jsonl.zst` of one shard, and one thread while there is work.
A file appears compressed only when it is whole: it is written under another name, synced, renamed; then the
plain one goes. So at every instant each line is in a file that a reader may open.
Never: touches the file being written.
Fails: never loudly: a file that can't be compressed stays plain and is tried again at the next start.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
from pathlib import Path

import zstandard

LEVEL = 3  # zstd's default: 300 MB/s a core on JSON lines, a fifteenth of the size
NICE = 19  # mail first; the thread alone is nice, not the process


class EventArchive:
    """Compresses the rotated files of one shard, one after the other."""

    def __init__(self, directory: Path, shard: int, *, keep_files: int = 0) -> None:
        """`keep_files`: how many rotated files stay; 0 keeps all."""
        self._directory = directory
        self._keep_files = keep_files
        self._rotated = re.compile(rf"events-{shard}-\d{{8}}T\d{{6}}\.\d{{6}}Z\.jsonl(\.zst)?(\.tmp)?")
        self._files: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take up what an earlier run has left."""
        left = self._own_files()
        for path in left:  # all of them first: the thread makes names like these
            if path.suffix == ".tmp":
                path.unlink(missing_ok=True)
        for path in left:
            if path.suffix == ".jsonl":
                self.add(path)

    def add(self, path: Path) -> None:
        """Have one rotated file compressed."""
        self._files.put(path)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="event-archive", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Finish what was added."""
        if self._thread is not None:
            self._files.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while (path := self._files.get()) is not None:
            with contextlib.suppress(OSError, zstandard.ZstdError):
                compress_file(path)
                self._remove_old()

    def _remove_old(self) -> None:
        if self._keep_files:
            for path in self._own_files()[: -self._keep_files]:
                path.unlink(missing_ok=True)

    def _own_files(self) -> list[Path]:
        """Return this shard's rotated files, oldest first: their names are their times."""
        names = sorted(os.listdir(self._directory))
        return [self._directory / name for name in names if self._rotated.fullmatch(name)]


def compress_file(path: Path) -> Path:
    """Replace a file by its compressed form; return the new path.

    Raises:
        OSError: it could not be read or written; the plain file is still there.
    """
    compressed = path.with_name(path.name + ".zst")
    scratch = compressed.with_name(compressed.name + ".tmp")
    with path.open("rb") as source, scratch.open("wb") as target:
        os.fchmod(target.fileno(), os.fstat(source.fileno()).st_mode & 0o777)
        zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).copy_stream(source, target)
        target.flush()
        os.fsync(target.fileno())
    scratch.rename(compressed)
    path.unlink()
    return compressed
