"""What is known for 24 hours longer than it is stored: ids from other shards, replies to injectors.

A handed-over delivery whose copy could come twice is refused by its id; an injector that repeats an `id`
gets the reply it got before. Expired records leave as new ones come: each commit looks at a few, in a
circle, so there is no index by expiry and no timer.

A damaged record may be another id's, whose key was altered. So it proves nothing: a delivery's id is taken
for new, which may send it twice, and an injector's id is answered with a 4xx until the circle takes its
record out.

Owns: the record's expiry, and where the circle stands.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from engine.store.records import MAX_KEY_BYTES, DamagedRecord, seal, unseal

REMEMBERED_S = 24 * 3600  # design section 2: longer than any shard or injector keeps a copy to repeat
EXPIRY_BYTES = 5  # Unix seconds in front of a record
LOOKS_PER_RECORD = 4  # with 4 looks for each new record, expired ones are at most a third of the table


def encode_remembered(key: bytes, expires_at: float, record: bytes = b"") -> bytes:
    """Return the record with its expiry (Unix seconds) in front."""
    return seal(key, int(expires_at).to_bytes(EXPIRY_BYTES, "big") + record)


def open_remembered(key: bytes, raw: bytes) -> tuple[int, bytes]:
    """Return expiry (Unix seconds) and record; those of format 1 are bare, and begin with 0 until 2106.

    Raises:
        DamagedRecord: the record is altered.
    """
    rest = unseal(key, raw, "remembered") if raw[:1] != b"\0" else raw
    if len(rest) < EXPIRY_BYTES:
        raise DamagedRecord(f"remembered: {len(rest)} octets")
    return int.from_bytes(rest[:EXPIRY_BYTES], "big"), rest[EXPIRY_BYTES:]


def decode_remembered(key: bytes, raw: bytes | None, unix_now: float) -> bytes | None:
    """Return the record, or None if there is none or its time is over.

    Raises:
        DamagedRecord: the record is altered.
    """
    if raw is None:
        return None
    expires_at, record = open_remembered(key, raw)
    return record if expires_at > unix_now else None


def is_remembered(key: bytes, raw: bytes | None, unix_now: float) -> bool:
    """Say whether there is a record that can be read, and whose time is not over."""
    try:
        return decode_remembered(key, raw, unix_now) is not None
    except DamagedRecord:
        return False


def _has_ended(key: bytes, raw: bytes, unix_now: float) -> bool:
    """Say whether a record is of no use any more; a damaged one is of little, and would never end."""
    try:
        return open_remembered(key, raw)[0] <= unix_now
    except DamagedRecord:
        return True


def reply_key(customer: str, given_id: str) -> bytes:
    """Return the key of an injector's id."""
    return _bounded(f"{customer}\0{given_id}")


def claim_key(name: str) -> bytes:
    """Return the key of a spool file's claim."""
    return _bounded(name)


def _bounded(text: str) -> bytes:
    """Encode; what is too long for a key, or empty, is replaced by its hash."""
    key = text.encode("utf-8", "surrogateescape")
    return key if 0 < len(key) <= MAX_KEY_BYTES else blake2b(key, digest_size=32).digest()


class Circle:
    """Looks at a few records of one table at each call and takes out the expired, around and around."""

    def __init__(self, table: object) -> None:
        self._table = table
        self._after = b""

    def sweep(self, txn: Any, looks: int, unix_now: float) -> None:
        """Look at the next `looks` records of the table."""
        cursor = txn.cursor(db=self._table)
        more = cursor.set_range(self._after) if self._after else cursor.first()
        while more and looks > 0:
            looks -= 1
            if not _has_ended(cursor.key(), cursor.value(), unix_now):
                more = cursor.next()
            else:
                cursor.delete()
                more = bool(cursor.key())
        self._after = cursor.key() if more else b""
