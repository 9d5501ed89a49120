"""The data directory: one engine at a time, one directory for each shard.

    data_dir/
        lock                held by the supervisor for as long as it lives
        assignment.json     which vmta belongs to which shard
        poison.json         deliveries on which shards died
        run/shard-N.sock    where shards find each other
        run/admin           where the engine that runs answers, for the commands
        shard-N/            store of a shard, and `step`: the delivery that it works on
        quarantine/         damaged stores, moved aside (engine.store.quarantine)
        events/             event log, where not configured elsewhere

Owns: the lock, the names above.
Never: opens a store.
Fails: ConfigError naming the directory when it can't be used or another engine has it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

from engine.control.peers import make_run_dir, peer_path
from engine.core.errors import ConfigError, Origin
from engine.settings.model import ADMIN_RECORD
from engine.telemetry.log import Log

LOCK_WAIT_S = 10.0  # a killed engine's shards are gone within milliseconds; a stopping one may take its grace
LOCK_RETRY_S = 0.1
MAX_UNIX_PATH_BYTES = 107  # sun_path of unix(7), without its final zero

_STORE_PREFIX = "shard-"

log = Log("supervisor")


class DataDir:
    """Paths in the data directory, and the lock on it."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.run_dir = self.path / "run"
        self.assignment_file = self.path / "assignment.json"
        self.poison_file = self.path / "poison.json"
        self.admin_file = self.path / ADMIN_RECORD
        self._lock_fd = -1

    def shard_dir(self, shard: int) -> Path:
        """Return the directory of one shard's store."""
        return self.path / f"{_STORE_PREFIX}{shard}"

    def step_file(self, shard: int) -> Path:
        """Return where a shard notes the delivery that it works on."""
        return self.shard_dir(shard) / "step"

    async def open(self, shards: int, wait_s: float = LOCK_WAIT_S) -> None:
        """Create what is missing and take the lock, waiting briefly for an engine on its way out.

        Raises:
            ConfigError: not ours to write, too long for sockets, or another engine has it.
        """
        self._check_length(shards)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_run_dir(self.run_dir)
            self._lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            place = str(error.filename or self.path)
            where = "" if place == str(self.path) else f"{place}: "
            raise self._refusal(f"{where}{error.strerror}") from None
        await self._lock(time.monotonic() + wait_s)

    def close(self) -> None:
        """Give the lock back; nobody answers any more."""
        if self._lock_fd >= 0:
            self.admin_file.unlink(missing_ok=True)
            os.close(self._lock_fd)
            self._lock_fd = -1

    def record_admin(self, key: str) -> None:
        """Note where the admin API answers now. Without that, commands go by the configuration alone."""
        try:
            write_file(self.admin_file, f"{key}\n".encode())
        except OSError as error:
            log.warning("address of the admin API not recorded", file=str(self.admin_file), error=str(error))

    def leftover_stores(self, shards: int) -> list[int]:
        """Return the numbers of stores without a shard, left by a larger shard count."""
        numbers = [each.name[len(_STORE_PREFIX) :] for each in self.path.glob(f"{_STORE_PREFIX}*")]
        return sorted(int(number) for number in numbers if number.isdigit() and int(number) >= shards)

    async def _lock(self, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise self._refusal(f"another engine uses it ({self._owner()})") from None
            await asyncio.sleep(LOCK_RETRY_S)
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)

    def _owner(self) -> str:
        pid = os.pread(self._lock_fd, 20, 0).decode("ascii", "replace").strip()
        return f"process {pid}" if pid else "process unknown"

    def _check_length(self, shards: int) -> None:
        longest = os.fsencode(peer_path(self.run_dir, max(shards - 1, 0)))
        if len(longest) > MAX_UNIX_PATH_BYTES:
            raise self._refusal(
                f"its sockets need paths of at most {MAX_UNIX_PATH_BYTES} bytes, {os.fsdecode(longest)} has"
                f" {len(longest)}: choose a shorter data_dir"
            )

    def _refusal(self, detail: str) -> ConfigError:
        return ConfigError(Origin(str(self.path), 0), detail)


def write_file(path: Path, octets: bytes) -> None:
    """Replace a file so that a crash leaves the old or the new one, whole."""
    partial = path.with_name(path.name + ".new")
    with open(partial, "wb", opener=_open_private) as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
