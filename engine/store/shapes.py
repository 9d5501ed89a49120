"""Which table an entry is of, by its looks: for leaves of a damaged store that no tree leads to any more.

Never: takes what is doubtful; a wrong guess would make mail of something else.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.core.envelope import DELIVERY_KEY_BYTES, MESSAGE_ID_BYTES
from engine.store.records import (
    POSITION_BYTES,
    SEAL_BYTES,
    DamagedRecord,
    decode_claim,
    peek_envelope,
    peek_place,
)
from engine.store.remembered import EXPIRY_BYTES, open_remembered


def guess_table(entries: list[tuple[bytes, bytes]]) -> str:
    """Return the table of most of these entries; "" if none is likely, or the table is of no use."""
    guesses = [guess for key, value in entries if (guess := _guess(key, value))]
    return max(set(guesses), key=guesses.count) if guesses else ""


def _guess(key: bytes, value: bytes) -> str:
    if not value:
        queue = key[:-POSITION_BYTES]
        return "schedule" if queue.endswith(b"\0") and queue.count(b"\0") == 2 else ""
    if len(key) == MESSAGE_ID_BYTES and _is(_peek_body, key, value):
        return "bodies"
    if len(key) == DELIVERY_KEY_BYTES and _is(peek_place, key, value):
        return "deliveries"
    if len(key) == DELIVERY_KEY_BYTES and len(value) in (EXPIRY_BYTES, SEAL_BYTES + EXPIRY_BYTES):
        return "seen" if _is(open_remembered, key, value) else ""
    if len(value) in (MESSAGE_ID_BYTES, SEAL_BYTES + MESSAGE_ID_BYTES) and b"\0" not in key:
        return "claims" if _is(decode_claim, key, value) else ""
    return "replies" if b"\0" in key and len(key) != 8 and _is(open_remembered, key, value) else ""


def _peek_body(_key: bytes, value: bytes) -> object:
    """Read the envelope only: of a large body no more may be there."""
    return peek_envelope(value)


def _is(decode: Callable[[bytes, bytes], object], key: bytes, value: bytes) -> bool:
    try:
        decode(key, value)
    except DamagedRecord:
        return False
    return True
