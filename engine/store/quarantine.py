"""Damaged environments, moved aside: what they are called, why they are there, what became of their mail.

    data_dir/shard-N/damaged                   a mark: the next to open this store must not trust it
    data_dir/shard-N/suspect                   a mark: ... must look at every page of it first
    data_dir/quarantine/shard-N-TIME/
        data.mdb                               as it was found
        reason                                 why
        salvaged.json                          that everything readable was salvaged, and how much was lost
        lost.jsonl                             what was lost, one delivery a line

Only the environment moves: spent limits and the rest of the shard's directory stay. Each step is a rename
that is durable before the next, so a crash leaves either the environment where it was, with its mark, or a
directory in quarantine that is salvaged at the next start. Salvaging again what has been salvaged puts
nothing twice, for ids are remembered.

Owns: these names.
Never: deletes mail.
Fails: StoreUnhealthy where the directory can't be written.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.core.errors import StoreDamaged, StoreUnhealthy
from engine.store.environment import sync_directory
from engine.store.image import StoreImage
from engine.store.owner import OwnerLock

MARK = "damaged"
SUSPECT = "suspect"
DATA = "data.mdb"
REASON = "reason"
REPORT = "salvaged.json"
LOST = "lost.jsonl"
MAX_REASON_BYTES = 2000
OWNER_WAIT_S = 5.0

_match_name = re.compile(r"shard-(\d+)-(\d+)(?:-\d+)?").fullmatch


class Quarantined(NamedTuple):
    """One directory in quarantine; `report` is None until its mail is salvaged."""

    path: Path
    shard: int
    at: int
    reason: str
    report: dict[str, Any] | None


def mark_damaged(directory: Path, why: str) -> None:
    """Put on record that the store in `directory` can't be trusted."""
    _write(directory / MARK, why.encode()[:MAX_REASON_BYTES])


def mark_suspect(directory: Path, why: str) -> None:
    """Put on record that the store in `directory` has to be looked at before it is opened."""
    _write(directory / SUSPECT, why.encode()[:MAX_REASON_BYTES])


def read_mark(directory: Path, mark: str = MARK) -> str:
    """Return why the store must not be trusted; "" if it may."""
    try:
        return (directory / mark).read_text(errors="replace") or f"marked as {mark}"
    except FileNotFoundError:
        return ""


def open_trusted(directory: Path, open_store: Callable[[], None], unix_now: float) -> Path | None:
    """Open the store in `directory`, moving a damaged environment aside first.

    Returns:
        Where the damaged one is now; None if there was none.

    Raises:
        StoreUnhealthy: the store can't be opened for another reason than damage.
    """
    moved = None
    if why := read_mark(directory) or _look(directory):
        moved = quarantine(directory, why, unix_now)
    try:
        open_store()
    except StoreDamaged as error:
        moved = quarantine(directory, str(error), unix_now)
        open_store()
    return moved


def _look(directory: Path) -> str:
    """Return why a suspect store is damaged; "" if it is not, or is not suspect.

    Looked at once for each mark: a store too large to be looked at within the time of a start must not keep
    its shard from starting for ever.
    """
    why = read_mark(directory, SUSPECT)
    if not why:
        return ""
    try:
        (directory / SUSPECT).unlink()
        image = StoreImage(directory / DATA)
    except OSError as error:
        raise StoreUnhealthy(f"{directory}: {error}") from error
    image.close()
    return f"{why}; {image.damage[0]}" if image.damage_count else ""


def quarantine(directory: Path, why: str, unix_now: float) -> Path | None:
    """Move the environment of `directory` aside; return where to, None if there is none.

    Raises:
        StoreUnhealthy: it can't be moved, or somebody has it open.
    """
    owner = OwnerLock(directory)
    try:
        owner.take(OWNER_WAIT_S)
        moved = _move(directory, why, unix_now) if (directory / DATA).exists() else None
        (directory / MARK).unlink(missing_ok=True)
        sync_directory(directory)
    except OSError as error:
        raise StoreUnhealthy(f"{directory}: can't be quarantined: {error}") from error
    finally:
        owner.release()
    return moved


def _move(directory: Path, why: str, unix_now: float) -> Path:
    room = directory.parent / "quarantine"
    room.mkdir(mode=0o700, exist_ok=True)
    name = f"{directory.name}-{int(unix_now)}"
    taken = 0
    while (place := room / (f"{name}-{taken}" if taken else name)).exists() and (place / DATA).exists():
        taken += 1
    place.mkdir(mode=0o700, exist_ok=True)
    _write(place / REASON, why.encode()[:MAX_REASON_BYTES])
    sync_directory(room)
    sync_directory(directory.parent)
    (directory / DATA).rename(place / DATA)
    sync_directory(place)
    return place


def list_quarantined(data_dir: Path) -> list[Quarantined]:
    """Return what is in quarantine, oldest first."""
    found = []
    for path in (data_dir / "quarantine").glob("shard-*"):
        match = _match_name(path.name)
        if match is None or not (path / DATA).exists():
            continue
        reason = ""
        with contextlib.suppress(OSError):
            reason = (path / REASON).read_text(errors="replace")
        found.append(Quarantined(path, int(match[1]), int(match[2]), reason, _read_report(path)))
    return sorted(found, key=lambda each: (each.at, each.path.name))


def _read_report(path: Path) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode((path / REPORT).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return None


def finish_salvage(place: Path, report: dict[str, Any], lost: Iterable[dict[str, Any]]) -> None:
    """Put on record that all that could be salvaged of `place` was, and what could not."""
    _write(place / LOST, b"".join(msgspec.json.encode(each) + b"\n" for each in lost))
    _write(place / REPORT, msgspec.json.encode(report) + b"\n")


def _write(path: Path, octets: bytes) -> None:
    """Replace a file, whole and durable."""
    partial = path.with_name(path.name + ".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)
