"""Which vmta belongs to which shard, kept on disk so that a start moves none.

Owns: `assignment.json`.
Never: decides (queue.assignment does).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.queue.assignment import assign, group_by_source
from engine.settings.model import Settings
from engine.supervisor.data_dir import write_file
from engine.telemetry.log import Log

log = Log("assignment")


class Assignment(NamedTuple):
    """Owner of each vmta, and how many shards there were; 0 where unknown."""

    vmtas: dict[str, int]
    shards: int


class _File(msgspec.Struct):
    shards: int
    vmtas: dict[str, int]


def deal_vmtas(settings: Settings, shards: int, previous: Assignment) -> dict[str, int]:
    """Return the owner of each vmta of these settings."""
    sources = {name: [each for each in (vmta.v4, vmta.v6) if each] for name, vmta in settings.vmtas.items()}
    pools = {name: list(pool.members) for name, pool in settings.pools.items()}
    return assign(group_by_source(sources), pools, shards, previous.vmtas, previous.shards)


def load_assignment(path: Path) -> Assignment:
    """Return the assignment of the last run; an empty one where there was none or it can't be read."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=_File)
        return Assignment(read.vmtas, read.shards)
    except FileNotFoundError:
        return Assignment({}, 0)
    except (msgspec.DecodeError, OSError) as error:
        # Safe to go on: no shard of ours runs yet, so nobody owns a vmta now.
        log.error("assignment unreadable, dealt anew", file=str(path), error=str(error))
        return Assignment({}, 0)


def store_assignment(path: Path, assignment: Assignment) -> None:
    """Write the assignment; a crash leaves the old or the new one."""
    written = _File(assignment.shards, assignment.vmtas)
    write_file(path, msgspec.json.format(msgspec.json.encode(written), indent=1))
