"""One struct per disposition of a recipient, and its line of JSON.

Owns: the names and shapes of the event log's fields. `accepted` tells of a whole message (`recipients`),
`rule` of a rule for replies that fired, every other event of one recipient (`recipient`). Fields at their
default are left out of the line.
Never: writes (eventlog does), reads a clock.

One Event per disposition, not changed once given to the event log: lines are made when a commit begins.
"""

from __future__ import annotations

import msgspec

from engine.core.reply import Reply

EVENTS = ("accepted", "delivered", "deferred", "bounced", "expired", "cancelled", "rule")


class Peer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The other end of a socket: `host` as its MX (or its HELO, when it injects), and its address."""

    host: str
    address: str
    port: int = 0


class Event(msgspec.Struct, gc=False, eq=False, omit_defaults=True):
    """What happened to one recipient, or that a message was accepted.

    Instants are Unix UTC seconds: `time` of the event, `accepted_at` of the message, `due_at` of the next
    attempt (deferred). `queue_s` is the time since acceptance, `attempt_s` that of this attempt, from MAIL to
    the last reply. `size` is in octets. `id` is the message id in hex, `session` names one of this shard's.
    `source` is the address that the vmta's session is bound to, `hostname` what it says in EHLO.
    """

    event: str
    time: float
    id: str
    customer: str
    pool: str
    sender: str
    accepted_at: float
    size: int
    shard: int = 0
    recipient: str = ""
    recipients: list[str] = []
    domain: str = ""
    destination: str = ""
    provider: str = ""
    site: str = ""
    vmta: str = ""
    source: str = ""
    proxy: str = ""  # what connected on for the vmta
    hostname: str = ""
    peer: Peer | None = None
    session: str = ""
    tls: str = ""
    tls_verification: str = ""  # verified, dane, or why it would not have been
    tls_resumed: bool = False
    reply: Reply | None = None
    status: str = ""  # enhanced code: the peer's, or derived from its code and what it answers
    category: str = ""  # deferred and bounced: one of policy.categories
    rule: str = ""  # of the policies, that found the category
    reply_rule: str = ""  # [[....on_reply]] that fired for the reply
    action: str = ""  # retry, retry_slower, other_vmta, give_up or suppress
    attempt: int = 0  # 1 for the first; 0 where there was none (expired before one, cancelled)
    attempt_s: float = 0.0
    queue_s: float = 0.0
    due_at: float = 0.0
    is_uncertain: bool = False  # the connection was lost after the final dot
    reason: str = ""  # why, where no peer said so: a hold, an operator, the rule that matched
    feed: str = ""
    listener: str = ""
    job: str = ""
    tags: dict[str, str] = {}


_ENCODER = msgspec.json.Encoder()


def format_events(events: list[Event]) -> bytes:
    """Return the lines of these events, each ended by LF. HOT: one call per commit."""
    try:
        return _ENCODER.encode_lines(events)
    except UnicodeEncodeError:
        return b"".join([_format_careful(event) for event in events])


def _format_careful(event: Event) -> bytes:
    """Format an event that holds octets of a peer which are no UTF-8 (as surrogates): each becomes "?"."""
    return _ENCODER.encode_lines([_encodable(event)])


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, msgspec.Struct):
        return type(value)(**{name: _encodable(getattr(value, name)) for name in value.__struct_fields__})
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    return value
