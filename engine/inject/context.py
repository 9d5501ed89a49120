"""What a feed knows of a message besides its envelope, and how it hands it over.

Owns: the facts that acceptance needs and SMTP's envelope lacks; what feeds know of the acceptor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from engine.core.reply import Reply
from engine.core.terms import Terms

Done = Callable[[Reply, list[str]], None]  # called once, with the reply and the message ids in hex


class FeedContext(msgspec.Struct, frozen=True, gc=False):
    """Who offers a message. `customer` is "" where the listener is trusted to name it."""

    feed: str  # smtp | socket | spool | http | report
    listener: str
    customer: str = ""
    is_trusted: bool = False
    peer: str = ""  # address of the client, or the file, for people
    helo: str = ""
    protocol: str = "ESMTP"  # smtp: what stands behind `with` in Received (RFC 3848), a comment included
    pool: str = ""
    job: str = ""
    tags: dict[str, str] = {}
    claim: str = ""  # spool: the name under which the file was claimed
    idempotency: str = ""  # socket: an id that is refused when it comes again
    max_hold_s: float = 0.0  # how long its messages may ask to wait
    terms: Terms | None = None  # SMTP: of this one message, from its parameters
    asked: dict[str, str] = {}  # socket: the same as text, by name (headers.TERMS)


# Sender, recipients, message, whether it is 8-bit, context, done; see `Acceptor.accept`.
Accept = Callable[[str, list[str], bytes, bool, FeedContext, Done], None]


class Intake(Protocol):
    """What a feed needs of the acceptor."""

    @property
    def accept(self) -> Accept: ...
