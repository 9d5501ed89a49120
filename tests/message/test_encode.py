"""8-bit parts made 7-bit: every part by its type, and nothing else touched."""

from __future__ import annotations

import base64
import email
import email.policy
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.lines import line_fault
from engine.message import encode
from engine.message.encode import encode_8bit

TEXT = "Grüße, 1=1\r\n.\r\nund mehr \r\n".encode()


def message(*fields: str, body: bytes = TEXT) -> bytes:
    return "".join([f"{field}\r\n" for field in fields]).encode() + b"\r\n" + body


def multipart(kind: str, *parts: bytes, boundary: str = "b 1") -> bytes:
    delimiter = f"--{boundary}".encode()
    body = b"preamble\r\n" + b"".join([delimiter + b"\r\n" + part + b"\r\n" for part in parts])
    return message(
        "Subject: x",
        f'Content-Type: multipart/{kind};\r\n boundary="{boundary}"',
        "Content-Transfer-Encoding: 8bit",
        body=body + delimiter + b"--\r\nepilogue\r\n",
    )


def test_seven_bit_message_comes_back_itself() -> None:
    plain = message("Subject: x", body=b"hello\r\n")
    assert encode_8bit(plain) is plain


def test_text_without_mime_fields_becomes_quoted_printable() -> None:
    """RFC 6152: what has no 8BITMIME gets no octets above 127; RFC 2045 6.7. RFC 6152 section 3."""
    encoded = encode_8bit(message("Subject: x", "X: y"))
    header, _, body = encoded.partition(b"\r\n\r\n")
    assert header == b"Subject: x\r\nX: y\r\nContent-Transfer-Encoding: quoted-printable"
    assert encoded.isascii()
    assert quopri.decodestring(body) == TEXT


def test_its_own_encoding_field_is_replaced_where_it_stands() -> None:
    encoded = encode_8bit(message("A: 1", "content-transfer-encoding:\r\n 8bit", "Content-Type: text/html"))
    assert encoded.startswith(
        b"A: 1\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Type: text/html\r\n\r\n"
    )


def test_binary_part_becomes_base64() -> None:
    encoded = encode_8bit(message("Content-Type: image/png", "Content-Transfer-Encoding: binary"))
    body = encoded.partition(b"\r\n\r\n")[2]
    assert b"Content-Transfer-Encoding: base64\r\n" in encoded
    assert base64.b64decode(body) == TEXT
    assert line_fault(encoded + b"\r\n") == ""


def test_each_part_of_a_tree_by_its_type_and_the_rest_octet_by_octet() -> None:
    """RFC 2045 6 and RFC 2046 5.1: leaves are encoded, multiparts are 7bit then."""
    seven = message("Content-Type: text/plain", "X-Odd:   spaced", body=b"plain\r\n")
    done = message("Content-Transfer-Encoding: base64", body=b"w6TDtg==")
    inner = multipart("alternative", message("Content-Type: text/plain"), message(), boundary="inner")
    image = message("Content-Type: image/gif", "Content-Transfer-Encoding: 8bit", body=b"GIF\xff\xfe")
    encoded = encode_8bit(multipart("mixed", seven, inner, done, image))
    assert encoded.isascii()
    assert seven in encoded
    assert done in encoded
    assert encoded.startswith(
        b'Subject: x\r\nContent-Type: multipart/mixed;\r\n boundary="b 1"\r\n'
        b"Content-Transfer-Encoding: 7bit\r\n\r\npreamble\r\n--b 1\r\n"
    )
    assert encoded.endswith(b"--b 1--\r\nepilogue\r\n")
    parsed = email.message_from_bytes(encoded, policy=email.policy.default)
    leaves = [part for part in parsed.walk() if not part.is_multipart()]
    assert not parsed.defects
    assert [leaf["Content-Transfer-Encoding"] for leaf in leaves] == [
        None,
        "quoted-printable",
        "quoted-printable",
        "base64",
        "base64",
    ]
    decoded = [leaf.get_payload(decode=True) for leaf in leaves]
    assert decoded[1].rstrip(b"\r\n").replace(b"\r\n", b"\n") == TEXT.rstrip(b"\r\n").replace(b"\r\n", b"\n")
    assert decoded[4] == b"GIF\xff\xfe"


def test_attached_message_is_encoded_inside() -> None:
    """RFC 2046 5.2.1: message/rfc822 itself may not be encoded, its parts may."""
    attached = message(
        "Content-Type: message/rfc822", "Content-Transfer-Encoding: 8bit", body=message("S: y")
    )
    encoded = encode_8bit(attached)
    assert encoded.isascii()
    assert encoded.startswith(
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nS: y\r\n"
    )


def test_parts_of_a_digest_are_messages() -> None:
    """RFC 2046 5.1.5: message/rfc822 where no type is named."""
    encoded = encode_8bit(multipart("digest", b"\r\n" + message("S: y")))
    assert encoded.isascii()
    assert b"--b 1\r\n\r\nS: y\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" in encoded


@pytest.mark.parametrize(
    "left",
    [
        multipart("signed", message()),
        message("Content-Transfer-Encoding: base64"),
        message("Content-Type: message/partial"),
        multipart("mixed", "grüße, no header and no blank line".encode()),
        message('Content-Type: multipart/mixed; name="x"'),
        message("Subject: ü", body=b"plain\r\n"),
    ],
)
def test_what_may_not_or_can_not_be_encoded_is_left_alone(left: bytes) -> None:
    """RFC 1847 2.1: signed parts must not change."""
    assert encode_8bit(left) == left


def test_header_in_utf8_is_not_touched() -> None:
    encoded = encode_8bit(message("Subject: ü"))
    assert encoded.startswith("Subject: ü\r\n".encode())
    assert encoded.partition(b"\r\n\r\n")[2].isascii()


def test_endless_nesting_is_left_alone() -> None:
    part = message()
    for depth in range(encode.MAX_DEPTH + 5):
        part = multipart("mixed", part, boundary=f"b{depth}")
    assert encode_8bit(part) == part


@given(st.lists(st.sampled_from([b"--b", b"--b--", b"--b ", b"--bc", b"", b"\xff", b"a: b"]), max_size=12))
def test_pieces_of_a_body_joined_are_the_body(lines: list[bytes]) -> None:
    body = b"\r\n".join(lines)
    assert b"".join([piece for piece, _ in encode._split_parts(body, b"--b")]) == body


@given(st.binary(max_size=200))
def test_whatever_comes_something_comes_back(octets: bytes) -> None:
    encode_8bit(b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n' + octets + b"\r\n--b--\r\n")
    encode_8bit(octets)
