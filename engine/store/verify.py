"""Is a store whole? Every page, every checksum, and each index against what it is an index of.

Owns: what counts as damage, in words.
Never: writes, repairs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.core.envelope import DELIVERY_KEY_BYTES
from engine.store.environment import FORMAT, READABLE, Tables
from engine.store.image import MAX_DAMAGE, StoreImage
from engine.store.joined import Message, join_messages
from engine.store.keylist import KeyList
from engine.store.records import (
    POSITION_BYTES,
    DamagedRecord,
    decode_aside,
    decode_claim,
    head_key,
    parse_schedule_key,
    schedule_key_of,
)
from engine.store.remembered import open_remembered

TICK_EVERY = 2000  # messages or entries between two calls of `tick`

Tick = Callable[[int, int], None]  # pages read, pages of the file


class Findings(msgspec.Struct):
    """What verification found; `problems` are the first of `problem_count`, in words."""

    store: str
    is_whole: bool = True
    entries: dict[str, int] = {}
    pages: int = 0
    size_bytes: int = 0
    problem_count: int = 0
    problems: list[str] = []

    def note(self, what: str) -> None:
        """Add a problem."""
        self.is_whole = False
        self.problem_count += 1
        if len(self.problems) < MAX_DAMAGE:
            self.problems.append(what)


def _ignore(*_: int) -> None:
    pass


def verify_store(directory: Path, tick: Tick = _ignore) -> Findings:
    """Read everything in the store of a directory.

    Raises:
        OSError: its file can't be opened.
    """
    image = StoreImage(directory / "data.mdb")
    try:
        return _Verification(image, directory, tick).run()
    finally:
        image.close()


class _Verification:
    def __init__(self, image: StoreImage, directory: Path, tick: Tick) -> None:
        self._image = image
        self._tick = tick
        self._read = 0
        self._keys = KeyList(DELIVERY_KEY_BYTES)
        self._places = array("q")  # hash of the schedule key that each delivery should have
        self.findings = Findings(str(directory), pages=image.file.pages, size_bytes=image.file.size_bytes)

    def run(self) -> Findings:
        self._check_format()
        self._check_messages()
        self._check_schedule()
        self._check_remembered()
        image, findings = self._image, self.findings
        for name in Tables._fields:
            findings.entries.setdefault(name, sum(1 for _ in image.entries(name)))
        damage = image.damage
        findings.problems[:0] = damage[: MAX_DAMAGE - len(findings.problems)]
        findings.problem_count += image.damage_count
        findings.is_whole = not findings.problem_count
        return findings

    def _check_format(self) -> None:
        formats = {value for key, value in self._image.entries("meta") if key == b"format"}
        if not formats <= set(READABLE):
            self.findings.note(
                f"format {b','.join(sorted(formats)).decode('ascii', 'replace')}, not {FORMAT}"
            )

    def _check_messages(self) -> None:
        bodies = 0
        for message in join_messages(self._image):
            self._count()
            bodies += bool(message.raw)
            self._check_message(message)
        self.findings.entries["bodies"] = bodies
        self.findings.entries["deliveries"] = len(self._keys)

    def _check_message(self, message: Message) -> None:
        note = self.findings.note
        for key, _ in message.displaced:
            note(f"delivery {key.hex()} stands under another key")
        if message.raw and not message.deliveries and not message.unreadable:
            note(f"body {message.id.hex()} has no delivery")
        for key, why in message.unreadable:
            note(f"delivery {key.hex()}: {why}")
        for delivery in message.deliveries:
            if message.why:
                note(f"delivery {delivery.key.hex()}: {message.why}")
            self._keys.append(delivery.key)
            self._places.append(hash(schedule_key_of(delivery)) if message.raw else 0)

    def _check_schedule(self) -> None:
        """Each delivery has its place in the schedule, each queue its head, and nothing else has."""
        scheduled = bytearray(len(self._keys))
        heads: set[bytes] = set()
        queue, count = b"", 0
        for entry, _ in self._image.entries("schedule"):
            self._count()
            count += 1
            if len(entry) <= POSITION_BYTES:
                self.findings.note(f"schedule entry {entry.hex()} is none")
                continue
            of_queue, due, key = parse_schedule_key(entry)
            if of_queue != queue:
                queue = of_queue
                heads.add(head_key(due, queue))
            self._check_entry(entry, key, scheduled)
        self.findings.entries["schedule"] = count
        for at, is_scheduled in enumerate(scheduled):
            if not is_scheduled:
                self.findings.note(
                    f"delivery {self._keys.at(at).hex()} is not in the schedule: it is never due"
                )
        self._check_heads(heads)

    def _check_entry(self, entry: bytes, key: bytes, scheduled: bytearray) -> None:
        at = self._keys.index(key)
        if at < 0:
            self.findings.note(f"schedule entry of {key.hex()}, which is not stored")
        elif self._places[at] and self._places[at] != hash(entry):
            self.findings.note(f"delivery {key.hex()} is in the schedule where it should not be")
        else:
            scheduled[at] = 1

    def _check_heads(self, expected: set[bytes]) -> None:
        count = 0
        for key, _ in self._image.entries("heads"):
            count += 1
            if key not in expected:
                self.findings.note(f"head {_name(key)} is not the first of its queue")
            expected.discard(key)
        self.findings.entries["heads"] = count
        for key in sorted(expected):
            self.findings.note(f"queue {_name(key)} has no head: it is never due")

    def _check_remembered(self) -> None:
        checks: dict[str, Callable[[bytes, bytes], object]] = {
            "claims": decode_claim,
            "seen": open_remembered,
            "replies": open_remembered,
            "damaged": decode_aside,
        }
        for table, check in checks.items():
            count = 0
            for key, record in self._image.entries(table):
                self._count()
                count += 1
                try:
                    check(key, record)
                except DamagedRecord as error:
                    self.findings.note(f"{table}, {key.hex()}: {error}")
            self.findings.entries[table] = count

    def _count(self) -> None:
        self._read += 1
        if self._read % TICK_EVERY == 0:
            self._tick(self._image.file.pages_read, self._image.file.pages)


def _name(head: bytes) -> str:
    return "/".join(part.decode("utf-8", "replace") for part in head[8:].split(b"\0") if part)
