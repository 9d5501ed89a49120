"""Spool files: line ends, envelopes, what is removed, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.address import parse_mailbox
from engine.core.lines import line_fault
from engine.message.pickup import PickupError, parse_pickup

REST = b"From: Acme <news@acme.example>\r\nSubject: x\r\n\r\nbody\r\n"


def test_leading_fields_are_the_envelope_and_are_removed() -> None:
    pickup = parse_pickup(
        b"x-sender: <bounce-7@acme.example>\r\nX-Receiver: ann@X.example\r\nX-RECEIVER:<bob@y.example>\r\n"
        + REST
    )
    assert pickup.sender == "bounce-7@acme.example"
    assert pickup.recipients == ["ann@x.example", "bob@y.example"]
    assert pickup.message == REST
    assert not pickup.is_8bit


def test_such_fields_later_are_the_message() -> None:
    message = b"From: a@acme.example\r\nTo: b@x.example\r\nX-Receiver: c@y.example\r\n\r\nX-Sender: body\r\n"
    pickup = parse_pickup(message)
    assert pickup.recipients == ["b@x.example"]
    assert pickup.message == message


def test_lf_file_becomes_crlf() -> None:
    pickup = parse_pickup(b"X-Sender: <>\nX-Receiver: b@x.example\nSubject: x\n\nbody\nno end")
    assert pickup.sender == ""
    assert pickup.message == b"Subject: x\r\n\r\nbody\r\nno end\r\n"


def test_header_names_the_envelope_as_for_sendmail() -> None:
    pickup = parse_pickup(
        b"From: Ann <ann@acme.example>\r\nTo: b@x.example, Bob <b@X.example>\r\n"
        b"Cc: c@x.example,\r\n d@y.example\r\n"
        b"Bcc: hidden@z.example\r\nSubject: x\r\n\r\nbody\r\n"
    )
    assert pickup.sender == "ann@acme.example"
    assert pickup.recipients == ["b@x.example", "c@x.example", "d@y.example", "hidden@z.example"]
    assert b"hidden" not in pickup.message
    assert b"Cc: c@x.example,\r\n d@y.example\r\n" in pickup.message


@pytest.mark.parametrize(
    ("fields", "sender"),
    [
        (
            b"Return-Path: <r@acme.example>\r\nSender: s@acme.example\r\nFrom: f@acme.example\r\n",
            "r@acme.example",
        ),
        (b"Return-Path: <>\r\nFrom: f@acme.example\r\n", ""),
        (b"Sender: s@acme.example\r\nFrom: f@acme.example, g@acme.example\r\n", "s@acme.example"),
        (b"From: f@acme.example, g@acme.example\r\n", "f@acme.example"),
    ],
)
def test_sender_is_the_most_explicit_and_return_path_is_removed(fields: bytes, sender: str) -> None:
    """RFC 5321 section 4.4."""
    pickup = parse_pickup(fields + b"To: b@x.example\r\n\r\n")
    assert pickup.sender == sender
    assert b"Return-Path" not in pickup.message


def test_resent_fields_come_first() -> None:
    pickup = parse_pickup(
        b"From: a@acme.example\r\nTo: b@x.example\r\n"
        b"Resent-To: c@x.example\r\nResent-Bcc: d@x.example\r\n\r\n"
    )
    assert pickup.recipients == ["c@x.example", "d@x.example"]
    assert b"Resent-Bcc" not in pickup.message


def test_bcc_is_removed_even_when_receivers_are_explicit() -> None:
    """RFC 5322 section 3.6.3."""
    pickup = parse_pickup(b"X-Sender: a@acme.example\r\nX-Receiver: b@x.example\r\nBcc: c@y.example\r\n\r\n")
    assert pickup.recipients == ["b@x.example"]
    assert b"c@y.example" not in pickup.message


def test_one_part_of_the_envelope_may_come_from_the_header() -> None:
    pickup = parse_pickup(b"X-Receiver: b@x.example\r\n" + REST)
    assert (pickup.sender, pickup.recipients) == ("news@acme.example", ["b@x.example"])


def test_eight_bit_body_and_international_domain() -> None:
    pickup = parse_pickup("From: a@acme.example\nTo: Jürgen <j@bücher.example>\n\nüber\n".encode())
    assert pickup.recipients == ["j@xn--bcher-kva.example"]
    assert pickup.is_8bit


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_envelope_fields_may_be_folded(end: bytes) -> None:
    """RFC 5322 section 2.2.3."""
    lines = [
        b"X-Sender:",
        b" <n@acme.example>",
        b"X-Receiver: <a@x.example>,",
        b"\t<b@x.example>,",
        b" <c@x.example>",
        b"X-Receiver: <d@x.example>",
        b"  (Ann)",
        b"",
    ]
    pickup = parse_pickup(end.join(lines) + REST.replace(b"\r\n", end))
    assert pickup.sender == "n@acme.example"
    assert pickup.recipients == ["a@x.example", "b@x.example", "c@x.example", "d@x.example"]
    assert pickup.message == REST


@pytest.mark.parametrize(
    "line", [b"From n@acme.example Mon Nov 23 10:00:00 2026", b">From n@acme.example Mon Nov", b"From "]
)
def test_first_line_of_an_mbox_is_not_the_messages(line: bytes) -> None:
    pickup = parse_pickup(line + b"\nFrom: a@acme.example\nTo: b@x.example\n\nFrom here on\n")
    assert (pickup.sender, pickup.recipients) == ("a@acme.example", ["b@x.example"])
    assert pickup.message == b"From: a@acme.example\r\nTo: b@x.example\r\n\r\nFrom here on\r\n"
    pickup = parse_pickup(line + b"\nX-Sender: <>\nX-Receiver: c@y.example\nSubject: x\n\n")
    assert (pickup.sender, pickup.recipients) == ("", ["c@y.example"])


def test_blank_before_the_colon_is_a_field_and_no_mbox() -> None:
    """RFC 5322 section 4.5."""
    message = b"From : a@acme.example\r\nTo\t: b@x.example\r\n\r\n"
    pickup = parse_pickup(message)
    assert (pickup.sender, pickup.recipients) == ("a@acme.example", ["b@x.example"])
    assert pickup.message == message


def test_name_that_is_not_utf8_does_no_harm_to_its_address() -> None:
    pickup = parse_pickup(b"From: \xfc <a@acme.example>\nTo: J\xfcrgen <j@x.example>\n\nx\n")
    assert (pickup.sender, pickup.recipients) == ("a@acme.example", ["j@x.example"])


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"X-Sender: \xfc@b.example\nX-Receiver: c@d.example\n\nx\n", "X-Sender"),
        (b"X-Sender: a@b.example\nX-Receiver: \xfc@d.example\n\nx\n", "X-Receiver"),
        (b"X-Sender: a@b.example\nX-Receiver: c@\xfc.example\n\nx\n", "X-Receiver"),
        (b"From: \xfc@b.example\nTo: c@d.example\n\nx\n", "From"),
        (b"From: a@b.example\nTo: c@d.example\nBcc: l\xfc@d.example\n\nx\n", "Bcc"),
    ],
)
def test_address_that_is_not_utf8_is_refused_with_its_field(data: bytes, field: str) -> None:
    with pytest.raises(PickupError, match=rf"^{field}: an address that is not UTF-8: '.*\\xfc"):
        parse_pickup(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"From: a@b.example\r\nTo: c@d.example\n\nx\n", "mixed line ends"),
        (b"From: a@b.example\rTo: c@d.example\r\rx\r", "mixed line ends"),
        (b"From: a@b.example\nTo: c@d.example\n\n\0\n", "NUL"),
        (b"From: a@b.example\nTo: c@d.example\n\n" + b"x" * 999 + b"\n", "longer than 998"),
        (b"From: a@b.example\n\nx\n", "no recipients"),
        (b"From: a@b.example\nTo: undisclosed-recipients:;\n\nx\n", "no recipients"),
        (b"To: c@d.example\n\nx\n", "no sender"),
        (b"From:\nTo: c@d.example\n\nx\n", "From holds no address"),
        (b"From: a@b.example\nTo: not an address\n\nx\n", "To: 'not an address'"),
        (b"X-Sender: a@b.example\nX-Sender: a@b.example\nX-Receiver: c@d.example\n\nx\n", "twice"),
        (b"X-Sender: a@b.example\nX-Receiver: <>\n\nx\n", "X-Receiver"),
        (b"X-Sender: a b\nX-Receiver: c@d.example\n\nx\n", "X-Sender"),
        (b"just some text\n", "no recipients"),
        (b"X-Sender: a@b.example\nX-Receiver: c@d.example\n  an indented body\n", "X-Receiver"),
    ],
)
def test_what_cannot_be_sent_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(PickupError, match=reason) as error:
        parse_pickup(data)
    assert error.value.detail == str(error.value)


pieces = st.sampled_from(
    [
        b"X-Sender: a@b.example",
        b"X-Receiver: c@d.example",
        b"To: e@f.example",
        b"From: g@h.example",
        b" more",
        b" <i@j.example>,",
        b"From x",
        b"",
        b"\xff",
    ]
) | st.binary(max_size=20)


@given(st.lists(pieces, max_size=10), st.sampled_from([b"\n", b"\r\n"]))
def test_nothing_but_pickup_error_escapes_and_results_are_strict(lines: list[bytes], end: bytes) -> None:
    try:
        pickup = parse_pickup(end.join(lines))
    except PickupError:
        return
    assert line_fault(pickup.message) == ""
    assert pickup.recipients
    for address in pickup.recipients + ([pickup.sender] if pickup.sender else []):
        assert str(parse_mailbox(address)) == address
