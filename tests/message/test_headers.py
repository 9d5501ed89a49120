"""Fields of a header: read, removed, added."""

from __future__ import annotations

from datetime import UTC, datetime
from email import policy
from email.parser import BytesParser
from email.utils import format_datetime, parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.lines import line_fault
from engine.message.headers import (
    complete,
    find_field,
    format_date,
    from_domain,
    is_tls_optional,
    read_fields,
    scan,
    split,
    take_controls,
)

AT = 1_767_225_599.0  # 31 Dec 2025 23:59:59 UTC


def completed(message: bytes, **changes: str) -> bytes:
    facts = {
        "protocol": "ESMTP",
        "helo": "client.example",
        "peer": "192.0.2.1",
        "recipient": "b@x.example",
    } | changes
    return (
        complete(scan(message), hostname="mta1.example.net", message_id="0123abcd", unix_now=AT, **facts)
        + message
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "header", "body"),
    [
        (b"A: 1\r\nB: 2\r\n\r\nbody\r\n", b"A: 1\r\nB: 2\r\n", b"body\r\n"),
        (b"A: 1\r\n\r\n", b"A: 1\r\n", b""),
        (b"A: 1\r\n", b"A: 1\r\n", b""),
        (b"\r\nbody\r\n", b"", b"body\r\n"),
        (b"just text\r\n\r\nmore: x\r\n", b"", b"just text\r\n\r\nmore: x\r\n"),
        (b"", b"", b""),
        (b"Old : blank before colon\r\n\r\nx", b"Old : blank before colon\r\n", b"x"),
    ],
)
def test_split(message: bytes, header: bytes, body: bytes) -> None:
    found, start = split(message)
    assert (found, message[start:]) == (header, body)


def test_find_field_unfolds_and_takes_whole_names_only() -> None:
    header = b"X-Subject: no\r\nSUBJECT:  one\r\n\ttwo\r\n three \r\nSubject: later\r\n"
    lowered = b"\n" + header.lower()
    assert find_field(header, lowered, b"subject") == b"one\ttwo three"
    assert find_field(header, lowered, b"sub") is None
    assert read_fields(header)[b"subject"] == [b"one\ttwo three", b"later"]


def test_blanks_before_the_colon_hide_no_field() -> None:
    """RFC 5322 section 4.5."""
    header = b"Subject \t: one\r\n two\r\nDate : x\r\nMessage-ID\t: <y>\r\nReceived : a\r\nReceived: b\r\n"
    lowered = b"\n" + header.lower()
    assert find_field(header, lowered, b"subject") == b"one two"
    assert find_field(header, lowered, b"subject two") is None
    assert scan(header).received_count == 2
    out = completed(header + b"\r\n")
    assert b"Date:" not in out
    assert b"Message-ID:" not in out


def test_missing_fields_are_added_and_present_ones_kept() -> None:
    """RFC 5321 section 4.4, RFC 5322 sections 3.6.1 and 3.6.4."""
    out = completed(b"Subject: x\r\n\r\nbody\r\n")
    assert out == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mta1.example.net (Mailrail) with ESMTP id 0123abcd\r\n"
        b"\tfor <b@x.example>;\r\n"
        b"\tWed, 31 Dec 2025 23:59:59 +0000\r\n"
        b"Message-ID: <0123abcd@mta1.example.net>\r\n"
        b"Date: Wed, 31 Dec 2025 23:59:59 +0000\r\n"
        b"Subject: x\r\n\r\nbody\r\n"
    )
    full = b"date: x\r\nMESSAGE-ID: <y>\r\n\r\nDate: body\r\n"
    out = completed(full)
    assert out.endswith(full)
    assert out.count(b"Date:") == 1
    assert out.count(b"Message-ID") == 0


def test_fields_in_the_body_do_not_count() -> None:
    """RFC 5322 sections 3.6.1 and 3.6.4."""
    out = completed(b"Subject: x\r\n\r\nDate: y\r\nMessage-ID: <z>\r\n")
    assert b"Message-ID: <0123abcd" in out


@pytest.mark.parametrize("body", [b"just text\r\nsecond: line\r\n", b"\r\nbody\r\n", b""])
def test_message_without_header_gets_one_and_keeps_its_body(body: bytes) -> None:
    parsed = BytesParser(policy=policy.SMTP).parsebytes(completed(body))
    assert parsed["message-id"] == "<0123abcd@mta1.example.net>"
    assert parsed.get_payload() == body.removeprefix(b"\r\n").decode()


def test_received_of_other_feeds_and_families() -> None:
    """RFC 5321 section 4.4."""
    assert completed(b"A: b\r\n\r\n", protocol="spool", helo="", recipient="").startswith(
        b"Received: by mta1.example.net (Mailrail) with spool id 0123abcd;\r\n\t"
    )
    assert b"([IPv6:2001:db8::1])" in completed(b"A: b\r\n\r\n", peer="2001:db8::1")


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_received_cannot_be_made_to_inject(helo: str, peer: str, recipient: str) -> None:
    """RFC 5321 section 4.4."""
    out = completed(b"Subject: x\r\n\r\n", helo=helo, peer=peer, recipient=recipient)
    assert line_fault(out) == ""
    names = [line.split(b":")[0] for line in out.split(b"\r\n") if line and line[:1] not in b" \t"]
    assert names == [b"Received", b"Message-ID", b"Date", b"Subject"]


@given(st.integers(0, 4_000_000_000))
def test_date_reads_back_and_equals_the_library(unix: int) -> None:
    """RFC 5322 section 3.3."""
    assert parsedate_to_datetime(format_date(unix)).timestamp() == unix
    assert format_date(unix).lstrip() == format_datetime(datetime.fromtimestamp(unix, UTC)).replace(
        ", 0", ", "
    )


def test_received_count() -> None:
    """RFC 5321 section 6.3."""
    twice = b"Received: a\r\nX-Received: b\r\nreceived: c\r\n d\r\n\r\nReceived: body\r\n"
    assert scan(twice).received_count == 2
    assert scan(b"Subject: Received:\r\n\r\n").received_count == 0


@pytest.mark.parametrize(
    ("field", "domain"),
    [
        (b"From: a@Acme.Example", "acme.example"),
        (b"from: Ann <a@acme.example>", "acme.example"),
        (b'From: "x@evil.example" <a@acme.example>', "acme.example"),
        (b'From: "<x@evil.example>"\r\n\t<a@acme.example>', "acme.example"),
        (b"From: (x@evil.example) a@acme.example", "acme.example"),
        (b"From: a@one.example, b@two.example", "one.example"),
        ("From: a@bücher.example".encode(), "xn--bcher-kva.example"),
        (b"From: nobody", "nobody"),
        (b"From: a@b c", None),
        (b"From: <>", None),
        (b"From:", None),
        (b"X-From: a@acme.example", None),
        (b"From : a@acme.example", "acme.example"),
        (b"FROM \t: a@acme.example", "acme.example"),
        (b"From a: a@acme.example", None),
    ],
)
def test_from_domain(field: bytes, domain: str | None) -> None:
    assert from_domain(b"Subject: x\r\n" + field + b"\r\n\r\nFrom: body@x.example\r\n") == domain


CONTROLLED = (
    b"X-Mailrail-Customer: acme\r\nSubject: x\r\nx-mailrail-POOL:\r\n pool-1\r\n"
    b"X-Mailrail-Job: spring sale\r\n"
    b"X-Mailrail-Tag: shop=berlin\r\nX-Mailrail-Tag: n = 7 = 8\r\nX-Mailrail-Tag: no value\r\n"
    b"X-Mailrail-Later: unknown\r\n\tfolded\r\nTo: b@x.example\r\n\r\nX-Mailrail-Job: body\r\n"
)


def test_controls_are_read_and_removed() -> None:
    controls, message = take_controls(CONTROLLED, scan(CONTROLLED), is_trusted=True)
    assert (controls.customer, controls.pool, controls.job) == ("acme", "pool-1", "spring sale")
    assert controls.tags == {"shop": "berlin", "n": "7 = 8"}
    assert message == b"Subject: x\r\nTo: b@x.example\r\n\r\nX-Mailrail-Job: body\r\n"


def test_customer_and_pool_only_from_the_trusted() -> None:
    controls, message = take_controls(CONTROLLED, scan(CONTROLLED), is_trusted=False)
    assert (controls.customer, controls.pool, controls.job) == ("", "", "spring sale")
    assert b"acme" not in message


def test_message_without_controls_is_the_same_object() -> None:
    message = b"Subject: x-mailrail\r\n\r\nX-Mailrail-Job: body\r\n"
    controls, same = take_controls(message, scan(message), is_trusted=True)
    assert same is message
    assert controls.job == ""


@pytest.mark.parametrize(
    ("message", "rest"),
    [
        (b"X-Mailrail-Job: a\r\n\r\nbody\r\n", b"\r\nbody\r\n"),
        (b"X-Mailrail-Job: a\r\n", b""),
        (b"A: b\r\nX-Mailrail-Job: a\r\n", b"A: b\r\n"),
        (b"A: b\r\nX-Mailrail-Job: a\r\n\r\n", b"A: b\r\n\r\n"),
    ],
)
def test_controls_at_the_edges(message: bytes, rest: bytes) -> None:
    controls, left = take_controls(message, scan(message), is_trusted=False)
    assert (controls.job, left) == ("a", rest)


def test_controls_are_bounded_and_printable() -> None:
    tags = b"".join(b"X-Mailrail-Tag: t%d=x\r\n" % i for i in range(100))
    unprintable = b"X-Mailrail-Job: a\x1bb\r\n" + tags + b"\r\n"
    controls, _ = take_controls(unprintable, scan(unprintable), is_trusted=True)
    assert controls.job == ""
    assert len(controls.tags) == 32
    wordy = b"X-Mailrail-Job: " + b"x" * 900 + b"\r\n\r\n"
    long, _ = take_controls(wordy, scan(wordy), is_trusted=True)
    assert len(long.job) == 256


@given(
    st.lists(
        st.sampled_from(
            [b"X-Mailrail-Job: a", b" fold", b"From: a@b.example", b"", b"x", b":", b"\xff\xfe: \xe4"]
        )
    ),
    st.booleans(),
)
def test_whatever_the_header_nothing_raises_and_no_control_is_left(
    lines: list[bytes], is_trusted: bool
) -> None:
    message = b"".join(line + b"\r\n" for line in lines)
    _, message = take_controls(message, scan(message), is_trusted=is_trusted)
    header, body = split(message)
    assert b"x-mailrail-" not in b"\n" + header.lower() or not header
    from_domain(message)
    assert completed(message).endswith(message)
    assert message[:body] in (header, header + b"\r\n")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"TLS-Required: No\r\n", True),
        (b"tls-required:\r\n no\r\n", True),
        (b"TLS-Required : No\r\n", True),
        (b"TLS-Required: Yes\r\n", False),
        (b"TLS-Required: No, really\r\n", False),
        (b"X-TLS-Required: No\r\n", False),
        (b"\r\nTLS-Required: No\r\n", False),
    ],
)
def test_tls_required_no_is_read(header: bytes, expected: bool) -> None:
    """RFC 8689 section 3: "No" is its only value."""
    message = b"Subject: x\r\n" + header + b"\r\nbody\r\n"
    assert is_tls_optional(scan(message)) is expected
