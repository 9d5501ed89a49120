"""Linux's inotify: what happens in a directory, as a descriptor that becomes readable.

Python has no binding of its own; three calls of libc are all there is to it.

Owns: one inotify descriptor and the shape of its events.
Never: lists the directory; the caller does, for events may be lost (`OVERFLOW`).
Fails: OSError, as the calls do.
Source: inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

CLOSE_WRITE = 0x00000008
MOVED_TO = 0x00000080
OVERFLOW = 0x00004000  # the kernel's queue was full: events are missing
IGNORED = 0x00008000  # the watch is gone, with its directory
ONLYDIR = 0x01000000

_READ_BYTES = 64 << 10  # some 1,500 events with names of 25 octets
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, octets of the name
_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryEvent(NamedTuple):
    """What happened, and to which name in the directory; "" where it is about the directory."""

    mask: int
    name: str


class Inotify:
    """Watches directories. `fileno` is readable when there are events."""

    def __init__(self) -> None:
        """Raises: OSError: the user has too many instances (fs.inotify.max_user_instances)."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """Return the descriptor, for `loop.add_reader`."""
        return self._fd

    def watch(self, path: str | bytes, mask: int) -> None:
        """Report these events of a directory from now on."""
        _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask | ONLYDIR)))

    def read(self) -> list[DirectoryEvent]:
        """Return what has happened since the last call; never waits."""
        try:
            return parse_events(os.read(self._fd, _READ_BYTES))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def parse_events(octets: bytes) -> list[DirectoryEvent]:
    """Parse what the kernel wrote: whole events, names padded with NULs."""
    events: list[DirectoryEvent] = []
    at, end = 0, len(octets)
    while at < end:
        _watch, mask, _cookie, length = _EVENT.unpack_from(octets, at)
        at += _EVENT.size
        name = octets[at : at + length].rstrip(b"\0")
        events.append(DirectoryEvent(mask, os.fsdecode(name)))
        at += length
    return events


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
