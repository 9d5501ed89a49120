"""Frames of the injection socket: 4 octets of length (big-endian), then one msgpack map.

A client sends submissions, an answer comes for each, in any order:

    {id, sender, recipients, message, customer?, pool?, job?, tags?, idempotent?,
     notify?, envid?, ret?, hold_for?, deliver_by?, requires_tls?}
    {id, code, enhanced, text, message_ids}

`id` is the client's, an integer or a string, and comes back as it was; nil in an answer to something whose
id could not be read. `message` is binary (msgpack bin).

Owns: the shape of both maps.
Never: judges addresses or a message (inject.submission does), reads a socket.
Fails: Misread for a payload that is no submission.
"""

from __future__ import annotations

import msgspec

from engine.core.errors import RemoteProtocolError
from engine.core.framing import UNDECODABLE, make_head
from engine.core.reply import Reply

MAX_ID_CHARACTERS = 256

FrameId = int | str | None


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One message as a client gives it. Nothing in it has been checked but its types."""

    id: int | str
    sender: str  # "" is the null reverse-path
    recipients: list[str]
    message: bytes
    customer: str = ""
    pool: str = ""
    job: str = ""
    tags: dict[str, str] = {}
    idempotent: bool = False  # the id is good for 24 hours: a repeat gets the answer of the first
    notify: str = ""  # for all recipients, as NOTIFY (RFC 3461 4.1)
    envid: str = ""  # plain text
    ret: str = ""
    hold_for: int = 0  # seconds
    deliver_by: str = ""  # as BY (RFC 2852 4): "3600;R"
    requires_tls: bool = False


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What became of it."""

    id: FrameId
    code: int
    enhanced: str
    text: str
    message_ids: list[str]


class _Named(msgspec.Struct, gc=False):
    """What is read of a map that is no submission."""

    id: int | str


class Misread(RemoteProtocolError):
    """A payload is no submission. `id` is None where none can be read: the stream may be out of step."""

    def __init__(self, detail: str, frame_id: FrameId) -> None:
        super().__init__(detail)
        self.id = frame_id


_decode = msgspec.msgpack.Decoder(Submission).decode
_decode_named = msgspec.msgpack.Decoder(_Named).decode
_encode = msgspec.msgpack.Encoder().encode


def decode_submission(payload: bytes | memoryview) -> Submission:
    """Decode one payload. HOT.

    Raises:
        Misread: what is wrong with it, by field.
    """
    try:
        return _decode(payload)
    except UNDECODABLE as error:
        raise Misread(str(error), _read_id(payload)) from None


def _read_id(payload: bytes | memoryview) -> FrameId:
    """Return the id in a faulty payload; None where there is none."""
    try:
        return _decode_named(payload).id
    except UNDECODABLE:
        return None


def encode_answer(frame_id: FrameId, reply: Reply, message_ids: list[str]) -> bytes:
    """Return the frame that answers a submission. HOT."""
    payload = _encode(Answer(frame_id, reply.code, reply.enhanced, reply.text, message_ids))
    return make_head(payload) + payload
