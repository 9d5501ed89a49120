"""What a feed knows of a message besides its envelope: who offers it, and under which name.

Owns: the facts that acceptance needs and SMTP's envelope lacks.
"""

from __future__ import annotations

import msgspec


class FeedContext(msgspec.Struct, frozen=True, gc=False):
    """Who offers a message. `customer` is "" where the listener is trusted to name it."""

    feed: str  # smtp | socket | spool | http
    listener: str
    customer: str = ""
    is_trusted: bool = False
    peer: str = ""  # address of the client, or the file, for people
    helo: str = ""
    pool: str = ""
    job: str = ""
    tags: dict[str, str] = {}
    claim: str = ""  # spool: the name under which the file was claimed
    idempotency: str = ""  # socket: an id that is refused when it comes again
