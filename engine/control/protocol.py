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
from engine.core.framing import UNDECODABLE, FrameReader, make_head

RESULT = ""
ERROR = "!"
NOTIFICATION_ID = 0
MAX_FRAME_BYTES = 256 * 1024 * 1024  # above any max_message_size that we would advise (50 MB is the default)

Frame = tuple[str, int, Any]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, int, Any]).decode


def encode_frame(kind: str, request_id: int, body: Any) -> tuple[bytes, bytes]:
    """Return head and payload of a frame; apart, so that a large message is not copied once more."""
    payload = _encode((kind, request_id, body))
    if len(payload) > MAX_FRAME_BYTES:
        raise LocalProtocolError(f"frame {kind!r} of {len(payload)} octets is over {MAX_FRAME_BYTES}")
    return make_head(payload), payload


class LinkReader:
    """Turns what a stream delivers, cut anywhere, into frames."""

    __slots__ = ("_max_frame_bytes", "_reader")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._reader = FrameReader(max_frame_bytes)

    @property
    def held_bytes(self) -> int:
        """Octets of the frame that is not yet whole."""
        return self._reader.held_bytes

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes.

        Raises:
            RemoteProtocolError: too long, or not msgpack of [str, int, any]; the link is useless then.
        """
        frames = [_decode_payload(payload) for payload in self._reader.feed(data)]
        if self._reader.excess_bytes:
            raise RemoteProtocolError(
                f"frame of {self._reader.excess_bytes} octets is over {self._max_frame_bytes}"
            )
        return frames


def _decode_payload(payload: memoryview) -> Frame:
    try:
        return _decode(payload)
    except UNDECODABLE as error:
        raise RemoteProtocolError(f"not a frame: {error}") from None
