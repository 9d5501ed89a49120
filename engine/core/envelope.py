"""Message ids, envelopes, deliveries: the values that travel from acceptance to disposition.

A *message id* is 12 octets: 7 of microseconds since 1970, 1 of shard, 4 of the shard's incarnation.
It is unique, ordered by time within a shard (so LMDB appends), and tells when the message was accepted.

A *delivery* is the recipients of one message at one domain, and what has been tried so far.
Its key is the message id and a 2-octet index: 14 octets.

Never: reads a clock or draws chance; `MessageIds` is given both.
"""

from __future__ import annotations

import msgspec

from engine.core.terms import Terms

MESSAGE_ID_BYTES = 12
DELIVERY_KEY_BYTES = 14
MAX_DELIVERIES = 0xFFFF  # what the 2-octet index can count; recipients per message stay far below


class Envelope(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """What does not change from acceptance to the last disposition. Times are Unix UTC seconds."""

    sender: str  # "" is the null reverse-path
    customer: str
    pool: str
    accepted_at: float
    size_bytes: int
    feed: str  # smtp | socket | spool | http | bounce | report
    is_8bit: bool = False  # the body holds octets above 127
    peer: str = ""  # who injected it, for people
    job: str = ""
    tags: dict[str, str] = {}
    terms: Terms | None = None  # what was asked for beyond plain delivery; rare
    is_tls_optional: bool = False  # "TLS-Required: No" in its header (RFC 8689 section 3)


class Delivery(msgspec.Struct, gc=False, eq=False):
    """The recipients of one message at one domain.

    `message` is header and body with CRLF lines, not stuffed; b"" where only the key facts were read.
    `due_at` is Unix UTC seconds; the value now in the store's schedule.
    `is_remembered`: it came from another shard, so its id is kept for 24 hours after it has left.
    """

    message_id: bytes
    index: int
    envelope: Envelope
    domain: str
    recipients: list[str]
    due_at: float
    message: bytes = b""
    attempts: int = 0
    last_reply: str = ""
    held: str = ""  # why just this one is stopped: "poison"; "shard N": that one is asked first
    is_remembered: bool = False
    told: int = 0  # which notices its sender has had: delivery.notices
    avoid: str = ""  # vmta that the next attempt should not be made by
    # Not stored: they hold from becoming ready to the end of the attempt.
    expires_at: float = 0.0  # policy decides
    wait_factor: int = 1  # of the time to the next attempt, as replies of this one ask for
    wait_least_s: float = 0.0  # before it
    deferred: int = 0  # so many recipients at the end of `recipients` were deferred in this attempt
    key: bytes = b""  # of the delivery, made from id and index

    def __post_init__(self) -> None:
        self.key = self.message_id + self.index.to_bytes(2, "big")  # asked for nine times a message


class MessageIds:
    """Makes the message ids of one shard; never twice the same, never backwards."""

    def __init__(self, shard: int, incarnation: bytes) -> None:
        """Args: shard 0..255; incarnation: 4 random octets, new at each start."""
        assert 0 <= shard <= 255
        assert len(incarnation) == 4
        self._suffix = bytes([shard]) + incarnation
        self._last_us = 0

    def make(self, unix_now: float) -> bytes:
        """Return the next id; the clock may stand still or step back."""
        us = int(unix_now * 1_000_000)
        if us <= self._last_us:
            us = self._last_us + 1
        self._last_us = us
        return us.to_bytes(7, "big") + self._suffix


def accepted_at(message_id: bytes) -> float:
    """Return when the message (or delivery key) was accepted, Unix UTC seconds."""
    return int.from_bytes(message_id[:7], "big") / 1_000_000
