"""Which vmta belongs to which shard, kept on disk so that a start moves none.

Peers count addresses, not names: a vmta that gets an address which had an owner goes to that owner, so
that a vmta which is renamed, or two which change places, meet what was spent and what is still open.

Owns: `assignment.json`.
Never: decides (queue.assignment does).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from engine.queue.assignment import assign, counted_addresses, group_by_source
from engine.settings.model import Settings
from engine.supervisor.data_dir import write_file
from engine.telemetry.log import Log

log = Log("assignment")


class Assignment(NamedTuple):
    """Owner of each vmta and of each address; how many shards there were, and since when (Unix UTC).

    0 is unknown.
    """

    vmtas: dict[str, int]
    shards: int
    addresses: Mapping[str, int] = MappingProxyType({})
    recounted_at: float = 0.0


class _File(msgspec.Struct):
    shards: int
    vmtas: dict[str, int]
    addresses: dict[str, int] = {}
    recounted_at: float = 0.0


def deal_vmtas(settings: Settings, shards: int, previous: Assignment) -> Assignment:
    """Return the owner of each vmta of these settings; addresses that are in none now keep theirs."""
    sources = {name: vmta.addresses for name, vmta in settings.vmtas.items()}
    pools = {name: list(pool.members) for name, pool in settings.pools.items()}
    before = dict(previous.vmtas)
    for name, addresses in sources.items():
        owners = [previous.addresses[address] for address in addresses if address in previous.addresses]
        if owners:
            before[name] = owners[0]
    vmtas = assign(group_by_source(sources), pools, shards, before, previous.shards)
    owned = {address: vmtas[name] for name, addresses in sources.items() for address in addresses}
    return Assignment(vmtas, shards, {**previous.addresses, **owned}, previous.recounted_at)


def count_together(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the addresses in which each vmta counts."""
    return counted_addresses({name: vmta.addresses for name, vmta in settings.vmtas.items()})


def load_assignment(path: Path) -> Assignment:
    """Return the assignment of the last run; an empty one where there was none or it can't be read."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=_File)
        return Assignment(read.vmtas, read.shards, read.addresses, read.recounted_at)
    except FileNotFoundError:
        return Assignment({}, 0)
    except (msgspec.DecodeError, OSError) as error:
        # Safe to go on: no shard of ours runs yet, so nobody owns a vmta now.
        log.error("assignment unreadable, dealt anew", file=str(path), error=str(error))
        return Assignment({}, 0)


def store_assignment(path: Path, assignment: Assignment) -> None:
    """Write the assignment; a crash leaves the old or the new one."""
    vmtas, shards, addresses, recounted_at = assignment
    written = _File(shards, vmtas, dict(addresses), recounted_at)
    write_file(path, msgspec.json.format(msgspec.json.encode(written), indent=1))
