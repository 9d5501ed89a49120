"""Messages of a store as files, for another host or for people.

`spool`: files that a spool listener takes, envelope first, as X-Sender and X-Receiver fields.
`eml`: the message as it is, and a line of JSON with its envelope in `envelopes.jsonl`.

Owns: the form of these files, whole or not there at all.
Never: changes the store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from engine.core.envelope import Delivery
from engine.store.image import StoreImage
from engine.store.joined import Message, join_messages

FORMATS = ("spool", "eml")
ENVELOPES = "envelopes.jsonl"
TICK_EVERY = 100


class Wanted(NamedTuple):
    """Which deliveries; "" is any."""

    customer: str = ""
    domain: str = ""

    def has(self, delivery: Delivery) -> bool:
        return self.customer in ("", delivery.envelope.customer) and self.domain in ("", delivery.domain)


class Exported(msgspec.Struct):
    """How much was written, and how many messages could not be read."""

    store: str
    messages: int = 0
    deliveries: int = 0
    unreadable: int = 0


def export_store(
    directory: Path, target: Path, form: str, wanted: Wanted, tick: Callable[[int], None] = lambda _: None
) -> Exported:
    """Write the messages of the store in `directory` to files in `target`.

    Raises:
        OSError: the store can't be opened, or `target` not written.
    """
    assert form in FORMATS
    result = Exported(str(directory))
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    image = StoreImage(directory / "data.mdb")
    try:
        with (target / ENVELOPES).open("ab") if form == "eml" else open(os.devnull, "wb") as envelopes:
            for message, deliveries in _choose(image, wanted, result):
                _write(target, form, message, deliveries, envelopes)
                result.messages += 1
                result.deliveries += len(deliveries)
                if result.messages % TICK_EVERY == 0:
                    tick(result.messages)
    finally:
        image.close()
    return result


def _choose(image: StoreImage, wanted: Wanted, result: Exported) -> Iterator[tuple[Message, list[Delivery]]]:
    for message in join_messages(image):
        if not message.raw:
            result.unreadable += 1
            continue
        result.unreadable += len(message.unreadable)
        deliveries = [delivery for delivery in message.deliveries if wanted.has(delivery)]
        if deliveries:
            yield message, deliveries


def _write(
    target: Path, form: str, message: Message, deliveries: list[Delivery], envelopes: BinaryIO
) -> None:
    recipients = [recipient for delivery in deliveries for recipient in delivery.recipients]
    if form == "spool":
        head = format_envelope(message.envelope.sender, recipients)
        _write_file(target / f"{message.id.hex()}.msg", head + message.content)
        return
    _write_file(target / f"{message.id.hex()}.eml", message.content)
    envelopes.write(msgspec.json.encode(describe(message, deliveries, recipients)) + b"\n")


def format_envelope(sender: str, recipients: list[str]) -> bytes:
    """Return the fields that a spool file begins with."""
    lines = [f"X-Sender: <{sender}>", *(f"X-Receiver: <{recipient}>" for recipient in recipients)]
    return "".join(line + "\r\n" for line in lines).encode()


def describe(message: Message, deliveries: list[Delivery], recipients: list[str]) -> dict[str, Any]:
    """Return the envelope of a message as plain values."""
    envelope = message.envelope
    return {
        "id": message.id.hex(),
        "file": f"{message.id.hex()}.eml",
        "sender": envelope.sender,
        "recipients": recipients,
        "customer": envelope.customer,
        "pool": envelope.pool,
        "job": envelope.job,
        "tags": envelope.tags,
        "accepted_at": envelope.accepted_at,
        "attempts": max(delivery.attempts for delivery in deliveries),
        "held": next((delivery.held for delivery in deliveries if delivery.held), ""),
    }


def _write_file(path: Path, octets: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(octets)
    partial.replace(path)
