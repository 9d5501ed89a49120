"""Reactions in force, on disk: a restart goes on with them, and so does whoever takes a vmta over.

Each shard writes a file of what is in force with it. It reads those of all shards, as with long windows
(shard.long_windows): the vmtas of one may have been another's. Of what several files tell of one key the
latest holds; so what ended before its time (an operator cancelled it) stays in the file until then, as over.

Owns: the file `reactions` of one shard.
Never: decides what is in force (queue.reactions does).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from engine.queue.reactions import MAX_REACTIONS, Reaction, shifted
from engine.telemetry.log import Log

NAME = "reactions"

log = Log("rules")


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A reaction in Unix UTC seconds; `is_over`: it ended before its time."""

    written_at: float
    reaction: Reaction
    is_over: bool = False


_decode = msgspec.msgpack.Decoder(list[Kept]).decode
_encode = msgspec.msgpack.Encoder().encode


class KeptReactions:
    """The reactions of one shard on disk."""

    def __init__(self, data_dir: Path, shard: int, clock: Callable[[], float]) -> None:
        """Args: clock: of the reactions in memory."""
        self._data_dir = data_dir
        self._file = data_dir / f"shard-{shard}" / NAME
        self._clock = clock
        self._kept: dict[str, Kept] = {}

    def open(self) -> None:
        """Take up what the last process of this number has written, for whoever needs it."""
        self._kept = {each.reaction.key: each for each in _read(self._file)}

    def read(self, unix_now: float) -> list[Reaction]:
        """Return what is in force by any shard's word, those that are no more included."""
        files = [*self._data_dir.glob(f"shard-*/{NAME}"), *self._data_dir.glob(f"drained-*/{NAME}")]
        latest: dict[str, Kept] = {}
        for each in sorted((row for file in files for row in _read(file)), key=lambda row: row.written_at):
            latest[each.reaction.key] = each
        by_s = self._clock() - unix_now
        return [
            shifted(each.reaction, by_s)
            for each in latest.values()
            if not each.is_over and each.reaction.until > unix_now
        ]

    def write(
        self, in_force: Iterable[Reaction], is_ours: Callable[[Reaction], bool], unix_now: float
    ) -> None:
        """Write what is in force here, whole or not at all.

        Args:
            is_ours: whether what is not in force here any more is over; else it is another shard's to end.
        """
        by_s = unix_now - self._clock()
        fresh = {each.key: Kept(unix_now, shifted(each, by_s)) for each in in_force}
        for key, known in self._kept.items():
            if key in fresh or known.reaction.until <= unix_now or len(fresh) >= 2 * MAX_REACTIONS:
                continue
            is_over = known.is_over or is_ours(known.reaction)
            fresh[key] = known if is_over == known.is_over else Kept(unix_now, known.reaction, True)
        self._kept = fresh
        temporary = self._file.with_suffix(".new")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as written:
                written.write(_encode(list(fresh.values())))
            temporary.replace(self._file)
        except OSError as error:
            log.error("reactions not kept", file=str(self._file), error=str(error))


def _read(file: Path) -> list[Kept]:
    try:
        return _decode(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        log.error("kept reactions unreadable", file=str(file), error=str(error))
        return []
