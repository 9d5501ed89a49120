"""Frames on a stream: 4 octets of length (big-endian), then so many octets of payload.

Owns: where a frame ends, its bound.
Never: reads a socket, knows what a payload is.
"""

from __future__ import annotations

import msgspec

HEAD_BYTES = 4
# All that msgspec raises for a payload. RecursionError: arrays or maps nested too deep, skipped ones too.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def make_head(payload: bytes) -> bytes:
    """Return what goes in front of a payload."""
    return len(payload).to_bytes(HEAD_BYTES, "big")


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
    def held_bytes(self) -> int:
        """Octets of the frame that is not yet whole."""
        return self._have

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
