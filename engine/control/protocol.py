"""Frames of the control links: 4 octets of length (big-endian), then msgpack [kind, request id, body].

Kinds name a request or a notification; two of them answer: "" carries a request's result, "!" why
there is none. The request id is the asker's; 0 marks a notification, which nobody answers.
Bodies are what msgpack knows (None, bool, int, float, str, bytes, list, dict) and msgspec Structs,
which arrive as plain lists or dicts.

Owns: the shape of a frame, its bound.
Never: reads a socket, knows what a kind means.
Fails: RemoteProtocolError for a frame that is too long or no frame; LocalProtocolError for one that
we should not have made.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import LocalProtocolError, RemoteProtocolError

RESULT = ""
ERROR = "!"
NOTIFICATION_ID = 0
HEAD_BYTES = 4
MAX_FRAME_BYTES = 256 * 1024 * 1024  # above any max_message_size that we would advise (50 MB is the default)

Frame = tuple[str, int, Any]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, int, Any]).decode


def encode_frame(kind: str, request_id: int, body: Any) -> tuple[bytes, bytes]:
    """Return head and payload of a frame; apart, so that a large message is not copied once more."""
    payload = _encode((kind, request_id, body))
    if len(payload) > MAX_FRAME_BYTES:
        raise LocalProtocolError(f"frame {kind!r} of {len(payload)} octets is over {MAX_FRAME_BYTES}")
    return len(payload).to_bytes(HEAD_BYTES, "big"), payload


class FrameReader:
    """Turns what a stream delivers, cut anywhere, into frames.

    Chunks of an unfinished frame are kept apart and joined once, so that a 50 MB message is not
    copied at each read.
    """

    __slots__ = ("_chunks", "_have", "_max_frame_bytes", "_need")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = HEAD_BYTES

    @property
    def held_bytes(self) -> int:
        """Octets of the frame that is not yet whole."""
        return self._have

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes.

        Raises:
            RemoteProtocolError: too long, or not msgpack of [str, int, any]; the link is useless then.
        """
        self._have += len(data)
        if self._have < self._need:
            self._chunks.append(data)
            return []
        if self._chunks:
            self._chunks.append(data)
            data = b"".join(self._chunks)
            self._chunks = []
        frames, used = self._cut(data)
        self._keep(data, used)
        return frames

    def _cut(self, data: bytes) -> tuple[list[Frame], int]:
        """Decode whole frames from the front; return them and how many octets they took."""
        frames: list[Frame] = []
        view = memoryview(data)
        at, end = 0, len(data)
        while end - at >= HEAD_BYTES:
            length = int.from_bytes(view[at : at + HEAD_BYTES], "big")
            if length > self._max_frame_bytes:
                raise RemoteProtocolError(f"frame of {length} octets is over {self._max_frame_bytes}")
            start = at + HEAD_BYTES
            if end - start < length:
                self._need = HEAD_BYTES + length
                return frames, at
            frames.append(_decode_payload(view[start : start + length]))
            at = start + length
        self._need = HEAD_BYTES
        return frames, at

    def _keep(self, data: bytes, used: int) -> None:
        self._have = len(data) - used
        if self._have:
            self._chunks.append(data[used:] if used else data)


def _decode_payload(payload: memoryview) -> Frame:
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"not a frame: {error}") from None
