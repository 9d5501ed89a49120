"""Messages of a store image: each id with what can be read of its body and of its deliveries.

Bodies and deliveries are both in the order of message ids, so that they are joined as they are read and a
store of any size needs no more memory than its largest message.

Owns: which of several copies of a record counts: the first whose checksum is right; of deliveries, the one
that was tried most often.
Never: writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from engine.core.envelope import DELIVERY_KEY_BYTES, MESSAGE_ID_BYTES, Delivery, Envelope
from engine.store.image import StoreImage
from engine.store.records import DamagedRecord, decode_body, decode_delivery, find_own_key, peek_envelope

NOBODY = Envelope("", "", "", 0.0, 0, "")


class Message(NamedTuple):
    """One message id; `deliveries` and `records` go together, in the order of keys.

    `raw` is the body's record, b"" if there is none that can be read; `why` says what is wrong with it then.
    `unreadable` are keys of deliveries whose records are damaged, and why. `displaced` are records that stand
    here under an altered key, with their own.
    """

    id: bytes
    raw: bytes
    why: str
    envelope: Envelope
    content: bytes
    deliveries: list[Delivery]
    records: list[bytes]
    unreadable: list[tuple[bytes, str]]
    displaced: list[tuple[bytes, bytes]]


def join_messages(image: StoreImage) -> Iterator[Message]:
    """Yield every message of which anything is there, in the order of ids."""
    bodies = groupby(image.entries("bodies"), key=_id_of)
    deliveries = groupby(image.entries("deliveries"), key=_id_of)
    body, delivery = next(bodies, None), next(deliveries, None)
    while body is not None or delivery is not None:
        message_id = min(group[0] for group in (body, delivery) if group is not None)
        raws: list[bytes] = []
        records: list[tuple[bytes, bytes]] = []
        if body is not None and body[0] == message_id:
            raws = [raw for key, raw in body[1] if len(key) == MESSAGE_ID_BYTES]
            body = next(bodies, None)
        if delivery is not None and delivery[0] == message_id:
            records = [row for row in delivery[1] if len(row[0]) == DELIVERY_KEY_BYTES]
            delivery = next(deliveries, None)
        if len(message_id) == MESSAGE_ID_BYTES and (raws or records):
            yield make_message(message_id, raws, records)


def make_message(message_id: bytes, raws: list[bytes], records: list[tuple[bytes, bytes]]) -> Message:
    """Return a message from the copies of its body and its delivery records."""
    raw, why, envelope, content = b"", "it has no body", NOBODY, b""
    for each in raws:
        try:
            envelope, content = decode_body(message_id, each)
        except DamagedRecord as error:
            why = str(error)
            envelope = _peek(each, envelope)
            continue
        raw, why = each, ""
        break
    message = Message(message_id, raw, why, envelope, content, [], [], [], [])
    for key, group in groupby(sorted(records), key=lambda row: row[0]):
        _take_delivery(message, key, [record for _, record in group])
    return message


def _peek(raw: bytes, otherwise: Envelope) -> Envelope:
    """Return the envelope of a damaged body, as it seems: for people, not for sending."""
    try:
        return peek_envelope(raw)
    except DamagedRecord:
        return otherwise


def _take_delivery(message: Message, key: bytes, records: list[bytes]) -> None:
    best: tuple[Delivery, bytes] | None = None
    why = ""
    for record in records:
        try:
            delivery = decode_delivery(key, record, message.envelope, message.content)
        except DamagedRecord as error:
            if own := find_own_key(key, record):
                message.displaced.append((own, record))
            else:
                why = str(error)
            continue
        if best is None or delivery.attempts > best[0].attempts:
            best = delivery, record
    if best is None:
        if why:
            message.unreadable.append((key, why))
        return
    message.deliveries.append(best[0])
    message.records.append(best[1])


def _id_of(row: tuple[bytes, bytes]) -> bytes:
    return row[0][:MESSAGE_ID_BYTES]
