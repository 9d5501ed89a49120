"""What a disk holds after a power cut, made from a trace of what was written and synced.

A write is on the disk for certain once a sync that began after it has ended, or at its own end where the
descriptor was opened with O_DSYNC. Of any other, each sector may be there or not. So may a length.

Owns: that rule. Draws chance only from what it is given.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.e2e.crash.trace import Call

SECTOR_BYTES = 512
NEVER = 1 << 60
_WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")
_SYNCS = ("fsync", "fdatasync")


class Change(NamedTuple):
    """A write at `offset`, or (data None) a length of `offset`; on the disk for certain from `safe_at` on."""

    begin: int
    end: int
    safe_at: int
    offset: int
    data: bytes | None
    is_dsync: bool


def collect_changes(calls: Sequence[Call], paths: Iterable[str]) -> dict[str, list[Change]]:
    """Return the changes of each of these files, in order."""
    wanted = set(paths)
    of_file: dict[str, list[Call]] = defaultdict(list)
    dsync = {
        (each.opened, each.result) for each in calls if each.name == "openat" and "O_DSYNC" in each.arguments
    }
    for call in calls:
        if call.path in wanted:
            assert call.name != "mmap" or "PROT_WRITE" not in call.arguments, "written through a mapping"
            of_file[call.path].append(call)
    return {path: _changes(own, dsync) for path, own in of_file.items()}


def _changes(calls: list[Call], dsync: set[tuple[str, int]]) -> list[Change]:
    syncs = [call for call in calls if call.name in _SYNCS]
    found: list[Change] = []
    length = 0
    positions: dict[
        int, int
    ] = {}  # by descriptor, where lseek has set one (LMDB); else it appends (event logs)
    for call in calls:
        if call.name == "lseek":
            positions[call.descriptor] = call.result
            continue
        if call.name not in (*_WRITES, "ftruncate"):
            continue
        is_dsync = (call.path, call.descriptor) in dsync
        covered = min((sync.end for sync in syncs if sync.begin > call.end), default=NEVER)
        safe_at = call.end if is_dsync else covered
        if call.name == "ftruncate":
            length = call.last_number
            found.append(Change(call.begin, call.end, safe_at, length, None, is_dsync))
            continue
        data = call.data
        if call.name.startswith("pwrite"):
            offset = call.last_number
        else:
            offset = positions.get(call.descriptor, length)
            if call.descriptor in positions:
                positions[call.descriptor] += len(data)
        length = max(length, offset + len(data))
        found.append(Change(call.begin, call.end, safe_at, offset, data, is_dsync))
    return found


def content_after_cut(changes: Sequence[Change], cut: int, chance: random.Random) -> bytes:
    """Return a content that the file may have after a power cut at that position."""
    content = bytearray()
    for change in changes:
        if change.begin >= cut:
            break
        is_safe = change.safe_at <= cut
        if change.data is None:
            if is_safe or chance.random() < 0.5:
                _set_length(content, change.offset)
        elif is_safe:
            _write(content, change.offset, change.data)
        else:
            _tear(content, change.offset, change.data, chance)
    return bytes(content)


def _tear(content: bytearray, offset: int, data: bytes, chance: random.Random) -> None:
    """Let some sectors of a write reach the disk: mostly, hardly or half of them."""
    share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    at = 0
    while at < len(data):
        room = SECTOR_BYTES - (offset + at) % SECTOR_BYTES
        if chance.random() < share:
            _write(content, offset + at, data[at : at + room])
        at += room


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        _set_length(content, offset)
    content[offset : offset + len(data)] = data


def _set_length(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))
