"""Keys and records of the store, as octets.

A record is a version octet, a CRC-32 of the rest and the rest; what does not fit is `DamagedRecord`.
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
from zlib import crc32

import msgspec

from engine.core.envelope import DELIVERY_KEY_BYTES, MESSAGE_ID_BYTES, Delivery, Envelope
from engine.core.errors import StoreError

RECORD_VERSION = 1
POSITION_BYTES = 8 + DELIVERY_KEY_BYTES  # due and delivery key, what a schedule key holds behind its queue
MAX_KEY_BYTES = 511  # LMDB's own bound, built into it
MAX_QUEUE_BYTES = MAX_KEY_BYTES - POSITION_BYTES  # of 489, a domain takes at most 255
MAX_DUE_MS = (1 << 63) - 1

_BODY_HEAD = struct.Struct(">BII")  # version, CRC-32 of envelope and message, octets of the envelope
_HEAD = struct.Struct(">BI")  # version, CRC-32 of the rest
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
    avoid: str = ""


_decode_record = msgspec.msgpack.Decoder(_DeliveryRecord).decode


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


def encode_body(envelope: Envelope, message: bytes) -> bytes:
    """Return the record of what never changes."""
    facts = _encode_text(envelope)
    checksum = crc32(message, crc32(facts, len(facts)))  # the length seeds it: the one field in front of it
    return b"".join((_BODY_HEAD.pack(RECORD_VERSION, checksum, len(facts)), facts, message))


def decode_body(raw: bytes | memoryview) -> tuple[Envelope, bytes]:
    """Return envelope and message, checked against their checksum.

    Raises:
        DamagedRecord: the record is short, altered or of another version.
    """
    facts_bytes = _check_body_head(raw)
    view = memoryview(raw)
    if crc32(view[_BODY_HEAD.size :], facts_bytes) != _BODY_HEAD.unpack_from(raw)[1]:
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


def encode_delivery(delivery: Delivery) -> bytes:
    """Return the record of what changes from attempt to attempt."""
    d = delivery
    facts = _encode_text(
        (d.domain, d.recipients, d.due_at, d.attempts, d.last_reply, d.held, d.is_remembered, d.told, d.avoid)
    )
    return _HEAD.pack(RECORD_VERSION, crc32(facts)) + facts


def decode_delivery(key: bytes, raw: bytes | memoryview, envelope: Envelope, message: bytes) -> Delivery:
    """Return the delivery of `key`, checked against its checksum.

    Raises:
        DamagedRecord: the record is short, altered or of another version.
    """
    record = _parse_delivery(raw)
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


def peek_due_ms(raw: bytes | memoryview) -> int:
    """Return when the delivery of this record is due.

    Raises:
        DamagedRecord: the record is short, altered or of another version.
    """
    return due_ms(_parse_delivery(raw).due_at)


def _parse_delivery(raw: bytes | memoryview) -> _DeliveryRecord:
    if len(raw) < _HEAD.size:
        raise DamagedRecord(f"delivery: {len(raw)} octets")
    version, checksum = _HEAD.unpack_from(raw)
    if version != RECORD_VERSION:
        raise DamagedRecord(f"delivery: version {version}, not {RECORD_VERSION}")
    facts = memoryview(raw)[_HEAD.size :]
    if crc32(facts) != checksum:
        raise DamagedRecord("delivery: checksum does not match")
    try:
        return _decode_record(facts)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedRecord(f"delivery: {error}") from error


def _check_body_head(raw: bytes | memoryview) -> int:
    if len(raw) < _BODY_HEAD.size:
        raise DamagedRecord(f"body: {len(raw)} octets")
    version, _, facts_bytes = _BODY_HEAD.unpack_from(raw)
    if version != RECORD_VERSION:
        raise DamagedRecord(f"body: version {version}, not {RECORD_VERSION}")
    return int(facts_bytes)


def _parse_envelope(facts: memoryview) -> Envelope:
    try:
        return _decode_envelope(facts)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
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
