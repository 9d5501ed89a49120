"""Deliveries on which shards died: after enough deaths they are held.

Before a step that can kill, a shard writes the delivery's key to its step file; after it, zeros. What
stands there when the shard is found dead is counted here, on disk, before its successor starts.

A shard that was killed from outside (SIGKILL: the operator, or the kernel when memory is short) was
most likely not killed by its delivery, so such a death weighs half; two deaths of its own make poison.

Owns: the counts.
Never: holds a delivery (the shard does, told by `keys`).
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import msgspec

from engine.core.envelope import DELIVERY_KEY_BYTES
from engine.supervisor.data_dir import write_file
from engine.telemetry.log import Log

POISON_WEIGHT = 4
DEATH_WEIGHT = 2  # so that two deaths make poison (design, section 2)
KILLED_WEIGHT = 1  # by SIGKILL or SIGTERM: someone else's hand
SUSPICION_S = 24 * 3600.0  # a first death is forgotten after this
MAX_SUSPECTS = 10_000  # far above what restarts with back-off can reach in SUSPICION_S

_KILLED = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT})

log = Log("poison")


class Suspect(msgspec.Struct):
    """What is known against one delivery; `seen_at` is Unix UTC, of the last death."""

    weight: int
    seen_at: float


class PoisonRecord:
    """Counts deaths by delivery key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._suspects: dict[str, Suspect] = {}

    def load(self) -> None:
        """Read what earlier supervisors counted; a damaged file is begun anew, and said so."""
        try:
            self._suspects = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Suspect])
        except FileNotFoundError:
            self._suspects = {}
        except (msgspec.DecodeError, OSError) as error:
            log.error("poison record unreadable, begun anew", file=str(self._path), error=str(error))

    @property
    def keys(self) -> list[bytes]:
        """Delivery keys to be held as poison."""
        return [bytes.fromhex(key) for key, each in self._suspects.items() if each.weight >= POISON_WEIGHT]

    def note_death(self, step_file: Path, returncode: int, now: float | None = None) -> list[bytes]:
        """Count what a dead shard worked on and clear its step file.

        Args:
            returncode: as subprocess gives it, negative for signals.
            now: Unix UTC seconds.

        Returns:
            Keys that are poison from now on.
        """
        keys = take_step(step_file)
        if not keys:
            return []
        now = time.time() if now is None else now
        self._forget_old(now)
        found = [key for key in keys if self._count(key.hex(), returncode, now)]
        write_file(self._path, msgspec.json.encode(self._suspects))
        return found

    def forget(self, key: bytes) -> bool:
        """Clear a delivery, or all of a message, as an operator asks; return whether any was known."""
        known = [each for each in self._suspects if each.startswith(key.hex())]
        if not known:
            return False
        for each in known:
            del self._suspects[each]
        write_file(self._path, msgspec.json.encode(self._suspects))
        return True

    def _count(self, key: str, returncode: int, now: float) -> bool:
        """Add one death; return whether that made it poison."""
        suspect = self._suspects.setdefault(key, Suspect(0, now))
        before = suspect.weight
        suspect.weight += KILLED_WEIGHT if returncode in _KILLED else DEATH_WEIGHT
        suspect.seen_at = now
        log.warning("shard died on a delivery", delivery=key, weight=suspect.weight, returncode=returncode)
        return before < POISON_WEIGHT <= suspect.weight

    def _forget_old(self, now: float) -> None:
        old = [
            key
            for key, each in self._suspects.items()
            if each.weight < POISON_WEIGHT and now - each.seen_at > SUSPICION_S
        ]
        by_age = sorted(self._suspects, key=lambda key: self._suspects[key].seen_at)
        for key in {*old, *by_age[: max(0, len(by_age) - MAX_SUSPECTS)]}:
            del self._suspects[key]


def read_step(step_file: Path) -> list[bytes]:
    """Return the delivery keys in a step file."""
    try:
        octets = step_file.read_bytes()
    except OSError:
        return []
    nothing = bytes(DELIVERY_KEY_BYTES)
    starts = range(0, len(octets) - DELIVERY_KEY_BYTES + 1, DELIVERY_KEY_BYTES)
    return [key for start in starts if (key := octets[start : start + DELIVERY_KEY_BYTES]) != nothing]


def take_step(step_file: Path) -> list[bytes]:
    """Return the delivery keys in a step file, and overwrite them with zeros."""
    keys = read_step(step_file)
    if keys:
        # In place, not truncated: the successor may have it mapped before we are done.
        descriptor = os.open(step_file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        finally:
            os.close(descriptor)
    return keys
