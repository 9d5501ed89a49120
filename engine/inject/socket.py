"""The injection socket: a unix stream on which clients have many messages in flight.

All shards share the listening socket; a connection is one shard's, and has a session (inject.socket_session).

Owns: what the connections of one listener have in common; how many there may be.
Never: reads a frame (inject.frames does), accepts or ends connections (inject.listener does).
"""

from __future__ import annotations

from typing import Protocol

from engine.core.reply import Reply, make_reply
from engine.inject.context import Done, Intake
from engine.inject.listener import Listener
from engine.inject.shedding import NEVER, Shedding
from engine.inject.submission import Offer
from engine.settings.model import ListenerSettings
from engine.telemetry.metrics import Counters

FRAME_OVERHEAD_BYTES = 64 << 10  # names, tags and the envelope beside message and recipients
RECIPIENT_BYTES = 260  # of 254 octets (RFC 5321 4.5.3.1.3), packed


class Repeats(Protocol):
    """What a listener needs of `IdempotentIds`."""

    def submit(self, offer: Offer, done: Done) -> None: ...


class SocketListener(Listener):
    """One injection socket in one shard."""

    def __init__(
        self,
        settings: ListenerSettings,
        acceptor: Intake,
        repeats: Repeats,
        counters: Counters,
        shedding: Shedding = NEVER,
    ) -> None:
        self.acceptor = acceptor
        self.shedding = shedding
        self.repeats = repeats
        super().__init__(settings, counters, "socket")

    def use(self, settings: ListenerSettings) -> None:
        """Take new settings; connections that are open keep their customer and their bound on frames."""
        super().use(settings)
        recipients_bytes = RECIPIENT_BYTES * settings.max_recipients
        self.max_frame_bytes = settings.max_message_size_bytes + recipients_bytes + FRAME_OVERHEAD_BYTES

    def refusal(self) -> Reply | None:
        """Return why nobody may connect now, None if one may."""
        if self.is_stopping:
            return make_reply(421, "4.3.2", "stopping, try again later")
        if self.is_full:
            return make_reply(421, "4.3.2", "too many connections, try again later")
        return self.shedding.count("socket")
