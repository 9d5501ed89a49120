"""Keys and records of the store, as octets.

A record is a version octet, a CRC-32 and the rest, of which and of whose key that is; what does not fit is
`DamagedRecord`. The key counts, for one flipped bit makes it a neighbor's: a delivery's record would send
another message to its recipients, a claim would have a spool file unlinked that nobody took.

Format 1 had no keys in its checksums, and claims, what is remembered and what is set aside were bare. Such
records are still read: the version, or for bare ones their looks, tells them apart.

Keys sort by what is read first:

    bodies      message id                                -> envelope and message
    deliveries  delivery key                              -> what changes from attempt to attempt
    schedule    queue, due (8 octets of ms), delivery key -> nothing
    heads       due, queue                                -> nothing; the earliest of each queue

A queue's name is `customer NUL domain NUL`, so no name is the beginning of another.

Never: opens a file, reads a clock.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from zlib import crc32

import msgspec

from engine.core.envelope import DELIVERY_KEY_BYTES, MESSAGE_ID_BYTES, Delivery, Envelope
from engine.core.errors import StoreError

RECORD_VERSION = 2
KEYLESS_VERSION = 1  # of format 1: its checksum does not cover the key
SEALED_VERSION = 3  # two flipped bits away from the 0 that bare records of what is remembered begin with
POSITION_BYTES = 8 + DELIVERY_KEY_BYTES  # due and delivery key, what a schedule key holds behind its queue
MAX_KEY_BYTES = 511  # LMDB's own bound, built into it
MAX_QUEUE_BYTES = MAX_KEY_BYTES - POSITION_BYTES  # of 489, a domain takes at most 255
MAX_DUE_MS = (1 << 63) - 1

_BODY_HEAD = struct.Struct(">BII")  # version, CRC-32 of key, envelope and message, octets of the envelope
_HEAD = struct.Struct(">BI")  # version, CRC-32 of key and rest
SEAL_BYTES = _HEAD.size
_DUE = struct.Struct(">Q")

_encode = msgspec.msgpack.Encoder().encode
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode


class DamagedRecord(StoreError):
    """A record whose checksum, version or shape is wrong; `str()` says which."""


class Duplicate(StoreError):
    """A forwarded message that is stored already, or has left within the last 24 hours."""


class _DeliveryRecord(msgspec.Struct, array_like=True, gc=False):
    domain: str
    recipients: list[str]
    due_at: float
    attempts: int = 0
    last_reply: str = ""
    held: str = ""
    is_remembered: bool = False
    told: int = 0
    customer: str = ""  # so that its place in the schedule is known without the body; "" before format 2
    avoid: str = ""


_decode_record = msgspec.msgpack.Decoder(_DeliveryRecord).decode
_decode_aside = msgspec.msgpack.Decoder(tuple[str, float, bytes | None, bytes | None]).decode
_BARE_ASIDE = b"\x94"  # msgpack's array of four, which bare records begin with
_RECORD_VERSION_OCTET = bytes([RECORD_VERSION])
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError)  # the latter for text that is no UTF-8


def due_ms(due_at: float) -> int:
    """Turn Unix seconds into the schedule's milliseconds; far future and far past are clamped."""
    if due_at <= 0.0:
        return 0
    return int(due_at * 1000) if due_at < MAX_DUE_MS // 1000 else MAX_DUE_MS


def queue_name(customer: str, domain: str) -> bytes:
    """Return the name of the queue (customer, domain)."""
    name = f"{customer}\0{domain}\0".encode()
    assert len(name) <= MAX_QUEUE_BYTES, f"queue name of {len(name)} octets"
    return name


def parse_queue(queue: bytes) -> tuple[str, str]:
    """Return customer and domain of a queue name.

    Raises:
        ValueError: it is none.
    """
    customer, domain, _ = queue.decode().split("\0")
    return customer, domain


def is_queue(name: bytes) -> bool:
    """Say whether this is a queue's name. HOT in a pass over what is due."""
    if name.count(0) == 2 and name.isascii() and name.endswith(b"\0"):
        return True
    try:
        parse_queue(name)
    except ValueError:
        return False
    return name.endswith(b"\0")


def position(due: int, delivery_key: bytes) -> bytes:
    """Return the place of a delivery within its queue; `due` in ms."""
    return _DUE.pack(due) + delivery_key


def schedule_key(queue: bytes, due: int, delivery_key: bytes) -> bytes:
    """Return the key of the schedule; `due` in ms."""
    return queue + _DUE.pack(due) + delivery_key


def schedule_key_of(delivery: Delivery) -> bytes:
    """Return the key under which `delivery` stands in the schedule by its own `due_at`."""
    queue = f"{delivery.envelope.customer}\0{delivery.domain}\0".encode()
    return queue + _DUE.pack(due_ms(delivery.due_at)) + delivery.key


def parse_schedule_key(key: bytes) -> tuple[bytes, int, bytes]:
    """Return queue, due in ms and delivery key."""
    due = int.from_bytes(key[-POSITION_BYTES:-DELIVERY_KEY_BYTES], "big")
    return key[:-POSITION_BYTES], due, key[-DELIVERY_KEY_BYTES:]


def head_key(due: int, queue: bytes) -> bytes:
    """Return the key of the heads; `due` in ms."""
    return _DUE.pack(due) + queue


def parse_head_key(key: bytes) -> tuple[int, bytes]:
    """Return due in ms and queue."""
    return int.from_bytes(key[:8], "big"), key[8:]


def encode_body(message_id: bytes, envelope: Envelope, message: bytes) -> bytes:
    """Return the record of what never changes."""
    facts = _encode_text(envelope)
    # The length seeds it: the one field in front of it.
    checksum = crc32(message, crc32(facts, crc32(message_id, len(facts))))
    return b"".join((_BODY_HEAD.pack(RECORD_VERSION, checksum, len(facts)), facts, message))


def decode_body(message_id: bytes, raw: bytes | memoryview) -> tuple[Envelope, bytes]:
    """Return envelope and message, checked against their checksum.

    Raises:
        DamagedRecord: the record is short, altered or of another version.
    """
    facts_bytes = _check_body_head(raw)
    view = memoryview(raw)
    seed = facts_bytes if raw[0] == KEYLESS_VERSION else crc32(message_id, facts_bytes)
    if crc32(view[_BODY_HEAD.size :], seed) != _BODY_HEAD.unpack_from(raw)[1]:
        raise DamagedRecord("body: checksum does not match")
    end = _BODY_HEAD.size + facts_bytes
    return _parse_envelope(view[_BODY_HEAD.size : end]), bytes(view[end:])


def peek_envelope(raw: bytes | memoryview) -> Envelope:
    """Return the envelope of a body record without reading, or checking, its message.

    Raises:
        DamagedRecord: the record is short or of another version.
    """
    facts_bytes = _check_body_head(raw)
    return _parse_envelope(memoryview(raw)[_BODY_HEAD.size : _BODY_HEAD.size + facts_bytes])


def seal(key: bytes, rest: bytes) -> bytes:
    """Return the record of plain octets."""
    return _HEAD.pack(SEALED_VERSION, crc32(rest, crc32(key))) + rest


def unseal(key: bytes, raw: bytes, what: str) -> bytes:
    """Return what was sealed, checked against its checksum.

    Raises:
        DamagedRecord: the record is short, altered or of another version; `what` it is.
    """
    if len(raw) < _HEAD.size:
        raise DamagedRecord(f"{what}: {len(raw)} octets")
    version, checksum = _HEAD.unpack_from(raw)
    if version != SEALED_VERSION:
        raise DamagedRecord(f"{what}: version {version}, not {SEALED_VERSION}")
    rest = raw[_HEAD.size :]
    if crc32(rest, crc32(key)) != checksum:
        raise DamagedRecord(f"{what}: checksum does not match")
    return rest


def encode_claim(key: bytes, message_id: bytes) -> bytes:
    """Return the record of a claim: which message came of it."""
    return seal(key, message_id)


def decode_claim(key: bytes, raw: bytes) -> bytes:
    """Return the message id of a claim; those of format 1 are bare.

    Raises:
        DamagedRecord: the record is altered.
    """
    return raw if len(raw) == MESSAGE_ID_BYTES else unseal(key, raw, "claim")


def encode_aside(key: bytes, detail: str, at: float, record: bytes | None, body: bytes | None) -> bytes:
    """Return the record of what is set aside: why, when (Unix seconds), and what there was."""
    return seal(key, _encode((detail, at, record, body)))


def decode_aside(key: bytes, raw: bytes) -> tuple[str, float, bytes | None, bytes | None]:
    """Return what was set aside; records of format 1 are bare.

    Raises:
        DamagedRecord: the record is altered.
    """
    try:
        return _decode_aside(raw if raw[:1] == _BARE_ASIDE else unseal(key, raw, "set aside"))
    except _UNDECODABLE as error:
        raise DamagedRecord(f"set aside: {error}") from error


def encode_delivery(delivery: Delivery) -> bytes:
    """Return the record of what changes from attempt to attempt."""
    d = delivery
    facts = _encode_text(
        (
            d.domain,
            d.recipients,
            d.due_at,
            d.attempts,
            d.last_reply,
            d.held,
            d.is_remembered,
            d.told,
            d.envelope.customer,
            d.avoid,
        )
    )
    return _HEAD.pack(RECORD_VERSION, crc32(facts, crc32(d.key))) + facts


def decode_delivery(key: bytes, raw: bytes | memoryview, envelope: Envelope, message: bytes) -> Delivery:
    """Return the delivery of `key`, checked against its checksum.

    Raises:
        DamagedRecord: the record is short, altered or of another version.
    """
    record = _parse_delivery(key, raw)
    return Delivery(
        message_id=bytes(key[:MESSAGE_ID_BYTES]),
        index=int.from_bytes(key[MESSAGE_ID_BYTES:], "big"),
        envelope=envelope,
        domain=record.domain,
        recipients=record.recipients,
        due_at=record.due_at,
        message=message,
        attempts=record.attempts,
        last_reply=record.last_reply,
        held=record.held,
        is_remembered=record.is_remembered,
        told=record.told,
        avoid=record.avoid,
    )


def peek_place(key: bytes, raw: bytes | memoryview) -> tuple[str, str, int]:
    """Return customer ("" where an earlier version wrote it), domain and due in ms.

    Raises:
        DamagedRecord: the record is short, altered or of another version.
    """
    record = _parse_delivery(key, raw)
    return record.customer, record.domain, due_ms(record.due_at)


def is_record_of(key: bytes, raw: bytes | memoryview) -> bool:
    """Say whether a delivery's record is of `key` for certain; one of format 1 does not tell."""
    if raw[:1] != _RECORD_VERSION_OCTET:
        return False
    try:
        _parse_delivery(key, raw)
    except DamagedRecord:
        return False
    return True


def one_bit_away(key: bytes) -> Iterator[bytes]:
    """Yield the keys that one flipped bit makes of `key`, and that may have been made into it."""
    number = int.from_bytes(key, "big")
    for bit in range(8 * len(key)):
        yield (number ^ 1 << bit).to_bytes(len(key), "big")


def find_own_key(key: bytes, raw: bytes | memoryview) -> bytes:
    """Return the key whose record stands under `key`, one flipped bit away; b"" if none fits."""
    return next((other for other in one_bit_away(key) if is_record_of(other, raw)), b"")


def _parse_delivery(key: bytes, raw: bytes | memoryview) -> _DeliveryRecord:
    if len(raw) < _HEAD.size:
        raise DamagedRecord(f"delivery: {len(raw)} octets")
    version, checksum = _HEAD.unpack_from(raw)
    if version == RECORD_VERSION:
        seed = crc32(key)
    elif version == KEYLESS_VERSION:
        seed = 0
    else:
        raise DamagedRecord(f"delivery: version {version}, not {RECORD_VERSION}")
    facts = memoryview(raw)[_HEAD.size :]
    if crc32(facts, seed) != checksum:
        raise DamagedRecord("delivery: checksum does not match")
    try:
        return _decode_record(facts)
    except _UNDECODABLE as error:
        raise DamagedRecord(f"delivery: {error}") from error


def _check_body_head(raw: bytes | memoryview) -> int:
    if len(raw) < _BODY_HEAD.size:
        raise DamagedRecord(f"body: {len(raw)} octets")
    version, _, facts_bytes = _BODY_HEAD.unpack_from(raw)
    if version not in (RECORD_VERSION, KEYLESS_VERSION):
        raise DamagedRecord(f"body: version {version}, not {RECORD_VERSION}")
    return int(facts_bytes)


def _parse_envelope(facts: memoryview) -> Envelope:
    try:
        return _decode_envelope(facts)
    except _UNDECODABLE as error:
        raise DamagedRecord(f"envelope: {error}") from error


def _encode_text(value: object) -> bytes:
    """Encode; text that a peer made unencodable (lone surrogates) is written with question marks."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value)
        return _encode(_replace_surrogates(plain))


def _replace_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return value
