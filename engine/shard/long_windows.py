"""What was spent of windows over a minute, on disk: it must hold across a crash.

Each shard writes a file of what its vmtas have spent. It reads those of all shards, since the vmtas of one
may have been another's: with another number of shards, or when their last owner was killed. Of what
several files tell of an address the latest holds, so nothing is taken away from a file but by time.

Owns: the file `limits` of one shard.
Never: decides what was spent (delivery.paths does).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from engine.delivery.paths import Addresses, Spent, decode_spent, encode_spent
from engine.queue.window import GUARD_SHARE
from engine.telemetry.log import Log

NAME = "limits"

log = Log("upkeep")


class LongWindows:
    """The long windows of one shard on disk."""

    def __init__(self, data_dir: Path, shard: int) -> None:
        self._data_dir = data_dir
        self._file = data_dir / f"shard-{shard}" / NAME
        self._kept: dict[tuple[Addresses, str], Spent] = {}
        self._written: list[Spent] | None = None

    def open(self) -> None:
        """Take up what the last process of this number has written, for whoever needs it."""
        self._kept = {(row.addresses, row.destination): row for row in _read(self._file)}

    def read(self) -> list[Spent]:
        """Return what all shards have written, and those that are no more."""
        files = [*self._data_dir.glob(f"shard-*/{NAME}"), *self._data_dir.glob(f"drained-*/{NAME}")]
        return [row for file in files for row in _read(file)]

    def write(self, rows: Iterable[Spent], unix_now: float) -> None:
        """Write what the vmtas here have spent, and what is known of others, whole or not at all."""
        fresh = {(row.addresses, row.destination): row for row in rows}
        for key, row in self._kept.items():
            if key in fresh:
                is_same = row.states == fresh[key].states and row.learned == fresh[key].learned
                fresh[key] = row if is_same else fresh[key]
            elif not is_over(row, unix_now):
                fresh[key] = row
        self._kept = fresh
        kept = list(self._kept.values())
        if kept == self._written:
            return
        temporary = self._file.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, encode_spent(kept))
            finally:
                os.close(descriptor)
            temporary.replace(self._file)
        except OSError as error:
            log.error("limits not kept", file=str(self._file), error=str(error))
            return
        self._written = kept


def is_over(row: Spent, unix_now: float) -> bool:
    """Return whether nothing of this holds anybody back any more: the same as if it had never been."""
    if row.learned is not None and not row.learned.is_over(unix_now):
        return False
    return all(
        state.paced_at <= unix_now
        and all(
            not window.ends or window.ends[-1] + window.window_s * (1 + GUARD_SHARE) <= unix_now
            for window in state.windows
        )
        for state in row.states
    )


def _read(file: Path) -> list[Spent]:
    try:
        return decode_spent(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        log.error("kept limits unreadable, windows begin anew", file=str(file), error=str(error))
        return []
