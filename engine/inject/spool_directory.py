"""The directories of a spool, as one shard sees them.

    tmp/              writers write here, and rename into new/
    new/              what is to be sent
    claimed/<shard>/  what a shard has taken: `rename` from new/, so one shard wins
    failed/           what can't be sent, with NAME.reason beside it

Nothing is ever overwritten: renames go through renameat2(RENAME_NOREPLACE), for a name may be used again
while its first file is still here. Names keep their octets (os.fsdecode); those that begin with a dot are
being written by somebody and are left alone, as in a maildir.

Owns: the files, from new/ to their unlinking or to failed/.
Never: reads a message (message.pickup does), decides what becomes of it.
Fails: ConfigError at `open`; Unreadable for a file that must go to failed/; OSError otherwise.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from engine.core.errors import ConfigError, MailrailError, Origin

SPOOL_MODE = 0o770  # writers are the group's members
CLAIMED_MODE = 0o700
REASON_MODE = 0o640
MAX_NAME_BYTES = 255  # NAME_MAX of every file system of note
REASON_SUFFIX = ".reason"

_AT_FDCWD = -100
_NOREPLACE = 1  # RENAME_NOREPLACE, linux/fs.h
_NOT_OFFERED = (errno.EINVAL, errno.ENOSYS)  # by this file system, or this kernel
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FAULTS_OF_FILE = {
    errno.ELOOP: "a symbolic link",
    errno.EACCES: "can't be read: permission denied",
    errno.EPERM: "can't be read: not permitted",
    errno.ENXIO: "not a regular file",
    errno.ENODEV: "not a regular file",
    errno.EIO: "can't be read: the disk fails",
}
_libc = ctypes.CDLL(None, use_errno=True)


class Unreadable(MailrailError):
    """A file that can't be a message; `str()` says why."""


class OpenFile(NamedTuple):
    """A claimed file, opened. `identity` is the same as long as the file and its content are."""

    descriptor: int
    size_bytes: int
    identity: str


class SpoolDirectory:
    """One spool, for one shard."""

    def __init__(self, path: Path, shard: int) -> None:
        self.path = path
        self._shard = shard
        self._new = self._claimed = self._failed = -1

    # -- life -------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make what is missing and open the directories; may be called again.

        Raises:
            ConfigError: they can't be made or used.
        """
        self.close()
        try:
            for name in ("", "tmp", "new", "failed"):
                _make(self.path / name, SPOOL_MODE)
            for name in ("claimed", f"claimed/{self._shard}"):
                _make(self.path / name, CLAIMED_MODE)
            self._new = _open_directory(self.path / "new")
            self._claimed = _open_directory(self.path / "claimed" / str(self._shard))
            self._failed = _open_directory(self.path / "failed")
            self._check_file_systems()
        except OSError as error:
            detail = f"spool: {error.filename or self.path}: {error.strerror}"
            raise ConfigError(Origin(str(self.path), 0), detail) from error

    def close(self) -> None:
        """Close the directories."""
        for descriptor in (self._new, self._claimed, self._failed):
            if descriptor >= 0:
                os.close(descriptor)
        self._new = self._claimed = self._failed = -1

    @property
    def new_path(self) -> Path:
        return self.path / "new"

    @property
    def suspect_path(self) -> Path:
        """Where it stands on record which file this shard is taking."""
        return self.path / f".taking-{self._shard}"

    @property
    def is_gone(self) -> bool:
        """Was new/, claimed/ or failed/ removed or replaced since it was opened?"""
        claimed, failed = self.path / "claimed" / str(self._shard), self.path / "failed"
        opened = ((self.new_path, self._new), (claimed, self._claimed), (failed, self._failed))
        return not all(_is_open(path, descriptor) for path, descriptor in opened)

    def _check_file_systems(self) -> None:
        devices = {os.fstat(each).st_dev for each in (self._new, self._claimed, self._failed)}
        if len(devices) > 1:
            detail = "spool: new/, claimed/ and failed/ must be on one file system: files are renamed"
            raise ConfigError(Origin(str(self.path), 0), detail)

    # -- what is there ----------------------------------------------------------------------------

    def new_files(self) -> Iterator[os.DirEntry[str]]:
        """Yield what is in new/, in no order; names with a leading dot are left out."""
        with os.scandir(self._new) as entries:
            for entry in entries:
                if entry.name[0] != ".":
                    yield entry

    def claimed_files(self) -> list[str]:
        """Return what this shard had taken and not finished when it ended."""
        return sorted(os.listdir(self._claimed))

    def left_claims(self, shards: int) -> list[tuple[int, list[str]]]:
        """Return (shard, names) of shards that exist no more, where this one is their heir."""
        found = []
        for name in os.listdir(self.path / "claimed"):
            number = int(name) if name.isascii() and name.isdigit() else -1
            if number >= shards and number % shards == self._shard:
                found.append((number, sorted(os.listdir(self.path / "claimed" / name))))
        return sorted(found)

    def is_new(self, name: str) -> bool:
        """Is there a file of this name in new/?"""
        return _exists(name, self._new)

    def is_claimed(self, name: str) -> bool:
        """Has this shard a claimed file of this name?"""
        return _exists(name, self._claimed)

    # -- one file ---------------------------------------------------------------------------------

    def claim(self, name: str) -> bool:
        """Take a file; False if another shard was faster. HOT."""
        try:
            _rename(name, self._new, name, self._claimed)
        except FileNotFoundError:
            return False
        return True

    def inherit(self, shard: int, name: str) -> None:
        """Take what another shard, which exists no more, had taken."""
        _rename(os.fspath(self.path / "claimed" / str(shard) / name), _AT_FDCWD, name, self._claimed)

    def put_back(self, name: str) -> None:
        """Give a claimed file back to new/, for any shard to take."""
        _rename(name, self._claimed, name, self._new)

    def open_claimed(self, name: str, max_bytes: int) -> OpenFile:
        """Open a claimed file. HOT.

        Raises:
            Unreadable: it is no regular file, empty, too large or closed to us.
            OSError: it is not the file's fault.
        """
        try:
            descriptor = os.open(name, _OPEN_FLAGS, dir_fd=self._claimed)
        except OSError as error:
            if error.errno not in _FAULTS_OF_FILE:
                raise
            raise Unreadable(_FAULTS_OF_FILE[error.errno]) from None
        facts = os.fstat(descriptor)
        fault = _fault(facts, max_bytes)
        if fault:
            os.close(descriptor)
            raise Unreadable(fault)
        return OpenFile(descriptor, facts.st_size, format_identity(facts))

    def unlink(self, name: str) -> None:
        """Remove a claimed file whose message is stored; gone already is as good."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._claimed)

    def fail(self, name: str, reason: str) -> str:
        """Move a claimed file to failed/, the reason first; return its name there."""
        target = self._failed_name(name)
        with contextlib.suppress(OSError):  # a full disk: the log has the reason, and the file must go
            self._write_reason(target + REASON_SUFFIX, reason)
        try:
            _rename(name, self._claimed, target, self._failed)
        except OSError:
            with contextlib.suppress(OSError):  # nothing failed yet: the next try has this name again
                os.unlink(target + REASON_SUFFIX, dir_fd=self._failed)
            raise
        return target

    def _write_reason(self, name: str, reason: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, REASON_MODE, dir_fd=self._failed), "wb") as file:
            os.fchmod(file.fileno(), REASON_MODE)
            file.write(reason.rstrip().encode("utf-8", "replace") + b"\n")

    def sync(self) -> None:
        """Wait until the unlinking of claimed files is on disk; for a thread."""
        try:
            os.fsync(self._claimed)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise

    def _failed_name(self, name: str) -> str:
        """Return a free name that leaves room for its reason's."""
        room = MAX_NAME_BYTES - len(REASON_SUFFIX)
        octets = os.fsencode(name)
        if len(octets) <= room and self._is_free(name):
            return name
        digest = blake2b(octets, digest_size=4).hexdigest()
        number = 2
        while True:
            tail = f".{digest}.{number}" if len(octets) > room else f".{number}"
            candidate = os.fsdecode(octets[: room - len(tail)]) + tail
            if self._is_free(candidate):
                return candidate
            number += 1

    def _is_free(self, name: str) -> bool:
        return not _exists(name, self._failed) and not _exists(name + REASON_SUFFIX, self._failed)


def read_file(file: OpenFile) -> bytes:
    """Read an open file to its end and close it; a file of another size than it had is being written.

    Raises:
        BlockingIOError: it changes; take it later.
        Unreadable: the disk fails.
    """
    try:
        octets = os.read(file.descriptor, file.size_bytes + 1)
        while 0 < len(octets) < file.size_bytes:
            more = os.read(file.descriptor, file.size_bytes + 1 - len(octets))
            if not more:
                break
            octets += more
    except OSError as error:
        raise Unreadable(f"can't be read: {error.strerror}") from None
    finally:
        os.close(file.descriptor)
    if len(octets) != file.size_bytes:
        raise BlockingIOError(errno.EAGAIN, "the file is being written")
    return octets


def format_identity(facts: os.stat_result) -> str:
    """Return what tells this file, with this content, from any other of its name."""
    return f"{facts.st_ino:x}.{facts.st_mtime_ns:x}.{facts.st_size:x}"


def _fault(facts: os.stat_result, max_bytes: int) -> str:
    if not stat.S_ISREG(facts.st_mode):
        return "a directory" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
    if not facts.st_size:
        return "the file is empty"
    if facts.st_size > max_bytes:
        return f"larger than {max_bytes} octets"
    return ""


def _make(path: Path, mode: int) -> None:
    """Make a directory with exactly this mode; one that is there keeps its own."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    os.chmod(path, mode)  # the umask took some of it


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _is_open(path: Path, descriptor: int) -> bool:
    try:
        there, ours = os.stat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _rename(old: str, old_directory: int, new: str, new_directory: int) -> None:
    """Rename; FileExistsError where the new name is taken."""
    old_octets, new_octets = os.fsencode(old), os.fsencode(new)
    if not _libc.renameat2(old_directory, old_octets, new_directory, new_octets, _NOREPLACE):
        return
    number = ctypes.get_errno()
    if number not in _NOT_OFFERED:
        raise OSError(number, os.strerror(number), old)
    if _exists(new, new_directory):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    source = {} if old_directory == _AT_FDCWD else {"src_dir_fd": old_directory}
    os.rename(old, new, dst_dir_fd=new_directory, **source)
