"""What can still be read of a store, as a stream of items, from a process of its own.

    [claim | seen | reply, key, record]    what is remembered, first of all
    [memory]                               that was all of it
    [message, body record, [[key, delivery record], ...]]
    [lost, facts]                          a delivery that was known and can't be read
    [end, facts]                           nothing follows

The file is read without liblmdb, so damage can't kill the reader; the process of its own keeps a long read
away from an event loop. A frame is 4 octets of length (big-endian) and msgpack.

A claim is kept only where its message can be read, or where nothing is damaged: a spool file without its
claim is taken again, which may send it twice, while one whose message is gone would be lost.

A body whose delivery can't be read is not lost where our own Received field, the first with its id, names its
only recipient; it is due at once then.

Owns: what is salvaged and what is told as lost.
Never: writes to a store.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from engine.core.envelope import DELIVERY_KEY_BYTES, MESSAGE_ID_BYTES, accepted_at
from engine.store.image import StoreImage
from engine.store.joined import Message, join_messages, make_message
from engine.store.keylist import KeyList
from engine.store.rebuild import rebuild_delivery
from engine.store.records import (
    MAX_KEY_BYTES,
    POSITION_BYTES,
    DamagedRecord,
    decode_claim,
    encode_delivery,
    parse_queue,
    parse_schedule_key,
)
from engine.store.remembered import open_remembered

HEAD_BYTES = 4
NICENESS = 10  # mail that is whole goes first
MAX_LATE = (
    1000  # messages without a delivery that are told at the end: their record may come under another key
)

Item = list[Any]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


def salvage(directory: Path) -> Iterator[Item]:
    """Yield everything that can be read of the store in `directory`.

    Raises:
        OSError: its file can't be opened.
    """
    image = StoreImage(directory / "data.mdb")
    try:
        yield from _Salvage(image).run()
    finally:
        image.close()


class _Salvage:
    def __init__(self, image: StoreImage) -> None:
        self._image = image
        self._told = KeyList(DELIVERY_KEY_BYTES)  # deliveries that were read, or told as lost
        self._bodies = KeyList(MESSAGE_ID_BYTES)  # messages that were told as lost without a delivery
        self._displaced: set[bytes] = set()  # deliveries that were read, or told, out of their turn
        self._late: list[tuple[bytes, dict[str, Any]]] = []  # without a delivery, as far as it was read
        self._counts = {"messages": 0, "deliveries": 0, "lost": 0}

    def run(self) -> Iterator[Item]:
        yield from self._memory()
        yield ["memory"]
        for message in join_messages(self._image):
            yield from self._message(message)
        for message_id, facts in self._late:
            if not self._is_elsewhere(message_id):
                yield self._lose(message_id, facts)
        if not self._image.has_past:
            yield from self._scheduled()
        facts = {**self._counts, "damage": self._image.damage_count, "has_past": self._image.has_past}
        yield ["end", facts]

    def _memory(self) -> Iterator[Item]:
        for key, record in self._remembered("claims", decode_claim):
            if self._may_keep_claim(decode_claim(key, record)):
                yield ["claim", key, record]
        for kind, table in (("seen", "seen"), ("reply", "replies")):
            for key, record in self._remembered(table, open_remembered):
                yield [kind, key, record]

    def _remembered(
        self, table: str, check: Callable[[bytes, bytes], object]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries of a table that are whole, and that a store can take."""
        for key, record in self._image.entries(table):
            try:
                check(key, record)
            except DamagedRecord as error:
                self._image.note(f"{table}, {key.hex()}: {error}")
                continue
            if len(key) <= MAX_KEY_BYTES:
                yield key, record

    def _may_keep_claim(self, message_id: bytes) -> bool:
        records = self._image.find("deliveries", message_id)
        if not records:
            return not self._image.damage_count
        bodies = [raw for _, raw in self._image.find("bodies", message_id)]
        message = make_message(message_id, bodies, records)
        return bool(message.raw) and not message.unreadable

    def _message(self, message: Message) -> Iterator[Item]:
        for key, record in message.displaced:
            yield from self._take_displaced(key, record)
        is_elsewhere = False
        if not message.deliveries and not message.unreadable:
            is_elsewhere = self._is_elsewhere(message.id) or bool(message.displaced and not message.raw)
            message = message if is_elsewhere else self._rebuild(message)
        if message.raw and message.deliveries:
            yield self._give(message)
        lost: dict[bytes, dict[str, Any]] = {}
        customer, sender = message.envelope.customer, message.envelope.sender
        for key, why in message.unreadable:
            lost[key] = {"customer": customer, "sender": sender, "why": why}
        for each in message.deliveries if not message.raw else ():
            lost[each.key] = {"domain": each.domain, "recipients": each.recipients, "why": message.why}
        for key in sorted({*lost, *(each.key for each in message.deliveries)}):
            self._told.append(key)
        for key, facts in lost.items():
            yield self._lose(key, facts)
        if not message.deliveries and not message.unreadable:
            self._bodies.append(message.id)
            if is_elsewhere:
                return
            why = "its deliveries can't be read" + ("; perhaps it has left" if self._image.has_past else "")
            facts = {"customer": customer, "sender": sender, "why": why}
            if len(self._late) < MAX_LATE:
                self._late.append((message.id, facts))
            else:
                yield self._lose(message.id, facts)

    def _give(self, message: Message) -> Item:
        self._counts["messages"] += 1
        self._counts["deliveries"] += len(message.deliveries)
        records = zip(message.deliveries, message.records, strict=True)
        return ["message", message.raw, [[each.key, record] for each, record in records]]

    def _take_displaced(self, key: bytes, record: bytes) -> Iterator[Item]:
        """Give the delivery whose record stands under another key, with the message that is its own."""
        self._displaced.add(key)
        message_id = key[:MESSAGE_ID_BYTES]
        bodies = [raw for _, raw in self._image.find("bodies", message_id)]
        message = make_message(message_id, bodies, [(key, record)])
        if message.raw and message.deliveries:
            yield self._give(message)
            return
        recipients = [recipient for each in message.deliveries for recipient in each.recipients]
        yield self._lose(key, {"recipients": recipients, "why": message.why})

    def _is_elsewhere(self, message_id: bytes) -> bool:
        """Say whether the record of a message without any has come up under another key."""
        return any(key.startswith(message_id) for key in self._displaced)

    def _rebuild(self, message: Message) -> Message:
        """Return a message with the delivery that its Received field tells of, where there is one."""
        if not message.raw or self._image.has_past:  # of the past, it may have left
            return message
        delivery = rebuild_delivery(message.id, message.raw)
        if delivery is None:
            return message
        return message._replace(deliveries=[delivery], records=[encode_delivery(delivery)])

    def _scheduled(self) -> Iterator[Item]:
        """Tell the deliveries that only the schedule knows of."""
        for entry, _ in self._image.entries("schedule"):
            if len(entry) <= POSITION_BYTES:
                continue
            queue, _, key = parse_schedule_key(entry)
            if self._told.index(key) >= 0 or self._bodies.index(key[:MESSAGE_ID_BYTES]) >= 0:
                continue
            if key in self._displaced:
                continue
            try:
                customer, domain = parse_queue(queue)
            except ValueError:
                continue
            why = "only its place in the schedule can be read"
            yield self._lose(key, {"customer": customer, "domain": domain, "why": why})

    def _lose(self, key: bytes, facts: dict[str, Any]) -> Item:
        self._counts["lost"] += 1
        known = {"id": key[:MESSAGE_ID_BYTES].hex(), "delivery": key.hex(), "accepted_at": accepted_at(key)}
        return ["lost", {**known, **facts}]


def write_items(items: Iterable[Item], stream: IO[bytes]) -> None:
    """Write items as frames."""
    for item in items:
        octets = _encode(item)
        stream.write(len(octets).to_bytes(HEAD_BYTES, "big"))
        stream.write(octets)
    stream.flush()


def parse_item(octets: bytes) -> Item:
    """Return the item of a frame."""
    return _decode(octets)


def read_items(stream: IO[bytes]) -> Iterator[Item]:
    """Yield the items of a stream; it ends with `end` where the reader lived to the end of the store."""
    while len(head := stream.read(HEAD_BYTES)) == HEAD_BYTES:
        octets = stream.read(int.from_bytes(head, "big"))
        if len(octets) < int.from_bytes(head, "big"):
            return
        yield parse_item(octets)


def command(directory: Path) -> list[str]:
    """Return the command that writes the items of a store to its standard output."""
    return [sys.executable, "-m", "engine", "_salvage", str(directory)]


def main(argv: list[str]) -> int:
    """Write the items of the store in the directory named."""
    os.nice(NICENESS)
    try:
        write_items(salvage(Path(argv[0])), sys.stdout.buffer)
    except BrokenPipeError:  # nobody wants the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
