"""8-bit parts of a message made 7-bit ones: what a customer asks for whose peers lack 8BITMIME.

Text becomes quoted-printable, other parts base64. Only the octets of such parts and their
Content-Transfer-Encoding change, and that of the multiparts around them; everything else comes back octet by
octet, which the standard library's email package does not promise. Signed parts (RFC 1847) are left alone,
and so is what contradicts itself: it stays 8-bit, and a peer that can't take it is told nothing false.

Owns: the re-encoding of a message, within bounds.
Never: touches header fields in octets beyond ASCII (SMTPUTF8 carries those); decides who gets it.
Fails: never.
Source: RFC 2045 6 (encodings; 6.4: what may be encoded), RFC 2046 5.1 (multiparts), RFC 6152, RFC 1847 2.1.
"""

from __future__ import annotations

import base64
import binascii
import re

from engine.message.headers import find_field, split

MAX_DEPTH = 20  # of parts in parts; deeper ones are left alone
MAX_PARTS = 10_000
BASE64_LINE_BYTES = 57  # become 76 characters (RFC 2045 6.8)

_TYPE = re.compile(rb"[ \t]*([!#-'*+.0-9A-Z^-~-]+/[!#-'*+.0-9A-Z^-~-]+)", re.IGNORECASE)
_BOUNDARY = re.compile(
    rb";[ \t]*boundary[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.){1,140})\"|([^\s\";]{1,70}))", re.IGNORECASE
)
_OPEN_ENCODINGS = (b"", b"7bit", b"8bit", b"binary")


def encode_8bit(message: bytes) -> bytes:
    """Return the message with its 8-bit parts encoded; itself where there are none."""
    if message.isascii():
        return message
    return _Encoder().entity(message, 0)


class _Encoder:
    """One pass over one message; counts its parts."""

    def __init__(self) -> None:
        self._parts = 0

    def entity(self, octets: bytes, depth: int, default: bytes = b"text/plain") -> bytes:
        """Return a message or part, header and body, encoded as its type, or the default, allows."""
        header, start = split(octets)
        if depth and not start:
            return octets  # a part without the line that ends its header
        body = octets[start:]
        self._parts += 1
        if body.isascii() or depth > MAX_DEPTH or self._parts > MAX_PARTS:
            return octets
        lowered = b"\n" + header.lower()
        declared = (find_field(header, lowered, b"content-transfer-encoding") or b"").strip().lower()
        if declared not in _OPEN_ENCODINGS:
            return octets  # octets beyond ASCII in what is said to be encoded: nobody can tell what it is
        content_type = find_field(header, lowered, b"content-type") or b""
        found = _TYPE.match(content_type)
        kind = found[1].lower() if found is not None else default
        encoded, encoding = self._body(kind, content_type, body, depth)
        if not encoding:
            return octets
        between = octets[len(header) : start]
        if encoding == b"7bit" and not declared:  # what RFC 2045 6.1 takes it for anyhow
            return header + between + encoded
        return _with_encoding(header, encoding) + (between or b"\r\n") + encoded

    def _body(self, kind: bytes, content_type: bytes, body: bytes, depth: int) -> tuple[bytes, bytes]:
        """Return the body encoded, and the encoding; "" where it can't be done."""
        if kind.startswith(b"multipart/"):
            if kind == b"multipart/signed":
                return body, b""
            default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"  # RFC 2046 5.1.5
            encoded = self._multipart(content_type, body, depth, default)
            return encoded, b"7bit" if encoded.isascii() else b""
        if kind == b"message/rfc822":
            encoded = self.entity(body, depth + 1)
            return encoded, b"7bit" if encoded.isascii() else b""
        if kind in (b"message/partial", b"message/external-body"):  # RFC 2046 5.2.2: 7bit, or not at all
            return body, b""
        if kind.startswith((b"text/", b"message/")):
            return binascii.b2a_qp(body, istext=True), b"quoted-printable"
        return _base64(body), b"base64"

    def _multipart(self, content_type: bytes, body: bytes, depth: int, default: bytes) -> bytes:
        found = _BOUNDARY.search(content_type)
        if found is None:
            return body
        boundary = re.sub(rb"\\(.)", rb"\1", found[1]) if found[1] else found[2]
        pieces = _split_parts(body, b"--" + boundary)
        return b"".join(
            [self.entity(piece, depth + 1, default) if is_part else piece for piece, is_part in pieces]
        )


def _split_parts(body: bytes, delimiter: bytes) -> list[tuple[bytes, bool]]:
    """Return the pieces of a multipart's body in order, and which of them are parts.

    Joined they are the body: lines of delimiters, with the CRLF in front of each that belongs to it, and what
    stands before the first and behind the last are pieces, too.
    """
    line = re.compile(rb"(?:\A|\r\n)" + re.escape(delimiter) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    pieces: list[tuple[bytes, bool]] = []
    position, is_part = 0, False
    while len(pieces) < 2 * MAX_PARTS:
        found = line.search(body, position)
        if found is None:
            break
        pieces += [(body[position : found.start()], is_part), (found[0], False)]
        position = found.end()
        is_part = True
        if found[1]:
            is_part = False
            break
    pieces.append((body[position:], is_part))
    return pieces


def _base64(body: bytes) -> bytes:
    encoded = base64.b64encode(body)
    width = BASE64_LINE_BYTES // 3 * 4
    return b"\r\n".join([encoded[start : start + width] for start in range(0, len(encoded), width)])


def _with_encoding(header: bytes, encoding: bytes) -> bytes:
    """Return the header with this Content-Transfer-Encoding: in place of its own, else at its end."""
    field = b"Content-Transfer-Encoding: " + encoding + b"\r\n"
    found = _ENCODING_FIELD.search(header)
    if found is None:
        return header + field
    return header[: found.start()] + field + header[found.end() :]


_ENCODING_FIELD = re.compile(
    rb"^content-transfer-encoding[ \t]*:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", re.IGNORECASE | re.MULTILINE
)
