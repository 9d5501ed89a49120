"""Which vmta belongs to which shard, kept on disk so that a start moves none.

Owns: `assignment.json`.
Never: decides (queue.assignment does).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.queue.assignment import assign, group_by_source
from engine.settings.model import Settings
from engine.supervisor.data_dir import write_file
from engine.telemetry.log import Log

log = Log("assignment")


class _File(msgspec.Struct):
    shards: int
    vmtas: dict[str, int]


def load_assignment(path: Path) -> dict[str, int]:
    """Return the assignment of the last run; empty where there was none or it can't be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).vmtas
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, OSError) as error:
        # Safe to go on: no shard of ours runs yet, so nobody owns a vmta now.
        log.error("assignment unreadable, dealt anew", file=str(path), error=str(error))
        return {}


def store_assignment(path: Path, assignment: dict[str, int], shards: int) -> None:
    """Write the assignment; a crash leaves the old or the new one."""
    write_file(path, msgspec.json.format(msgspec.json.encode(_File(shards, assignment)), indent=1))


def deal_vmtas(settings: Settings, shards: int, previous: dict[str, int]) -> dict[str, int]:
    """Return the owner of every vmta; those that had one keep it where they can."""
    groups = group_by_source(
        {name: [each for each in (vmta.v4, vmta.v6) if each] for name, vmta in settings.vmtas.items()}
    )
    pools = {name: list(pool.members) for name, pool in settings.pools.items()}
    return assign(groups, pools, shards, previous)
