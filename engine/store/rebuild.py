"""A delivery whose record is gone, from what its message says of it.

Our own Received field, the first with the message's id, names the only recipient where there is one.

Never: guesses; a message with more recipients, or without that field, has no delivery.
"""

from __future__ import annotations

import re

from engine.core.address import parse_mailbox
from engine.core.envelope import Delivery
from engine.store.records import DamagedRecord, decode_body

MAX_HEAD_BYTES = 64 * 1024  # where our Received field is, behind signatures of ours

# As message.headers writes it; the id, which nobody knows before we make it, tells it from others.
_FOR = rb"\(Mailrail\) with \S+ id %s\r\n\tfor <([^>\r\n]+)>;\r\n"


def rebuild_delivery(message_id: bytes, raw: bytes) -> Delivery | None:
    """Return the delivery that a body tells of, due since its acceptance; None if it tells of none."""
    try:
        envelope, content = decode_body(message_id, raw)
    except DamagedRecord:
        return None
    found = re.search(_FOR % message_id.hex().encode(), content[:MAX_HEAD_BYTES])
    try:
        mailbox = parse_mailbox(found[1].decode()) if found else None
    except ValueError:
        return None
    if mailbox is None:
        return None
    return Delivery(message_id, 0, envelope, mailbox.domain, [str(mailbox)], envelope.accepted_at)
