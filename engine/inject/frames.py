"""Frames of the injection socket: 4 octets of length (big-endian), then one msgpack map.

A client sends submissions, an answer comes for each, in any order:

    {id, sender, recipients, message, customer?, pool?, job?, tags?, idempotent?}
    {id, code, enhanced, text, message_ids}

`id` is the client's, an integer or a string, and comes back as it was; nil in an answer to something whose
id could not be read. `message` is binary (msgpack bin).

Owns: the shape of both maps, and where a frame ends.
Never: judges addresses or a message (inject.submission does), reads a socket.
Fails: Misread for a payload that is no submission.
"""

from __future__ import annotations

import msgspec

from engine.core.errors import RemoteProtocolError
from engine.core.reply import Reply

HEAD_BYTES = 4
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


class FrameReader:
    """Turns what a stream delivers, cut anywhere, into payloads. HOT.

    Chunks of an unfinished frame are kept apart and joined once, so that a large message is not copied at
    each read. A frame that is too long ends the reading: `excess_bytes` is its length, and whatever is fed
    from then on is dropped.
    """

    __slots__ = ("_chunks", "_have", "_max_frame_bytes", "_need", "excess_bytes")

    def __init__(self, max_frame_bytes: int) -> None:
        self.excess_bytes = 0
        self._max_frame_bytes = max_frame_bytes
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = HEAD_BYTES

    @property
    def is_inside(self) -> bool:
        """Has a frame begun that has not ended?"""
        return self._have > 0

    @property
    def awaited_bytes(self) -> int:
        """How long the unfinished frame will be; 0 where there is none or its length is not known yet."""
        return self._need if self._need > HEAD_BYTES else 0

    def feed(self, data: bytes) -> list[memoryview]:
        """Return the payloads that `data` completes."""
        if self.excess_bytes:
            return []
        self._have += len(data)
        if self._have < self._need:
            self._chunks.append(data)
            return []
        if self._chunks:
            self._chunks.append(data)
            data = b"".join(self._chunks)
            self._chunks = []
        return self._cut(data)

    def _cut(self, data: bytes) -> list[memoryview]:
        payloads: list[memoryview] = []
        view = memoryview(data)
        at, end = 0, len(data)
        self._need = HEAD_BYTES
        while end - at >= HEAD_BYTES:
            length = int.from_bytes(view[at : at + HEAD_BYTES], "big")
            if length > self._max_frame_bytes:
                self.excess_bytes = length
                self._have = 0
                return payloads
            if end - at - HEAD_BYTES < length:
                self._need = HEAD_BYTES + length
                break
            payloads.append(view[at + HEAD_BYTES : at + HEAD_BYTES + length])
            at += HEAD_BYTES + length
        self._have = end - at
        if self._have:
            self._chunks.append(data[at:] if at else data)
        return payloads


def decode_submission(payload: bytes | memoryview) -> Submission:
    """Decode one payload. HOT.

    Raises:
        Misread: what is wrong with it, by field.
    """
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Misread(str(error), _read_id(payload)) from None


def _read_id(payload: bytes | memoryview) -> FrameId:
    """Return the id in a faulty payload; None where there is none."""
    try:
        return _decode_named(payload).id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def encode_answer(frame_id: FrameId, reply: Reply, message_ids: list[str]) -> bytes:
    """Return the frame that answers a submission. HOT."""
    payload = _encode(Answer(frame_id, reply.code, reply.enhanced, reply.text, message_ids))
    return len(payload).to_bytes(HEAD_BYTES, "big") + payload
