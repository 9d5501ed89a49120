"""Bounce messages, read back by the standard library's parser."""

from __future__ import annotations

import email
import email.policy
import quopri
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import Reply, make_reply
from engine.message import dsn
from engine.message.dsn import Bounce, Failure, make_bounce

NOW = 1_767_225_600.75
ORIGINAL = (
    b"From: news@acme.example\r\nSubject: Hello\r\nMessage-ID: <1.2@acme.example>\r\n\r\nSecret body\r\n"
)
UNKNOWN = Failure("user@example.net", Reply(550, "5.1.1", "No such user"), "mx.example.net")


def make(**changes: Any) -> bytes:
    facts: dict[str, Any] = {
        "sender": "bounces@acme.example",
        "failures": [UNKNOWN],
        "reporting_mta": "mta1.example.com",
        "postmaster": "postmaster@example.com",
        "message_id": "0123456789ab@mta1.example.com",
        "original": ORIGINAL,
        "arrived_at": NOW - 3600,
        "now": NOW,
    }
    return make_bounce(Bounce(**{**facts, **changes}))


def parse(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    assert message.is_multipart()
    for part in message.walk():
        assert not part.defects
    return message


def parts(octets: bytes) -> list[Message]:
    found = parse(octets).get_payload()
    assert isinstance(found, list)
    return [part for part in found if isinstance(part, Message)]


def status_blocks(octets: bytes) -> list[Message]:
    blocks = parts(octets)[1].get_payload()
    assert isinstance(blocks, list)
    return [block for block in blocks if isinstance(block, Message)]


def text_of(part: Message) -> str:
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    return octets.decode()


def test_header_says_whom_it_is_for_and_that_no_person_wrote_it() -> None:
    """RFC 3834 section 5."""
    message = parse(make())
    assert message["To"] == "bounces@acme.example"
    assert message["From"] == "Mail Delivery System <postmaster@example.com>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == "<0123456789ab@mta1.example.com>"
    assert message["Date"] == "Thu, 01 Jan 2026 00:00:00 +0000"
    assert message["References"] == message["In-Reply-To"] == "<1.2@acme.example>"


def test_it_is_a_report_of_three_parts() -> None:
    """RFC 6522 section 3."""
    message = parse(make())
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in parts(make())] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]


@pytest.mark.parametrize(
    ("host", "told"),
    [("192.0.2.1", "[192.0.2.1]"), ("2001:db8::1", "[IPv6:2001:db8::1]"), ("[192.0.2.1]", "[192.0.2.1]")],
)
def test_peer_without_a_name_is_an_address_literal(host: str, told: str) -> None:
    """RFC 3464 section 2.3.5, RFC 5321 section 4.1.3."""
    failure = Failure("b@example.org", Reply(550, "5.1.1", "no"), host)
    (_, status) = status_blocks(make(failures=[failure]))
    assert status["Remote-MTA"] == f"dns; {told}"


def test_status_tells_of_the_message_and_of_each_recipient() -> None:
    """RFC 3464 sections 2.2 and 2.3."""
    late = Failure("b@example.org", make_reply(451, "4.4.7", "delivery time expired"))
    about, first, second = status_blocks(make(failures=[UNKNOWN, late]))
    assert about["Reporting-MTA"] == "dns; mta1.example.com"
    assert about["Arrival-Date"] == "Wed, 31 Dec 2025 23:00:00 +0000"
    assert first["Final-Recipient"] == "rfc822; user@example.net"
    assert (first["Action"], first["Status"]) == ("failed", "5.1.1")
    assert first["Remote-MTA"] == "dns; mx.example.net"
    assert first["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"
    assert (second["Action"], second["Status"]) == ("failed", "4.4.7")
    assert second["Diagnostic-Code"] == "X-Mailrail; 451 4.4.7 delivery time expired"
    assert second["Remote-MTA"] is None


def test_reply_without_enhanced_status_gives_its_class() -> None:
    """RFC 3464 section 2.3.4, RFC 3463 section 2."""
    _, block = status_blocks(make(failures=[Failure("a@x.example", Reply(554, "", "no"))]))
    assert block["Status"] == "5.0.0"


def test_words_for_people_name_recipient_server_reply_and_postmaster() -> None:
    """RFC 6522 section 3."""
    text = text_of(parts(make(reason="older than 4 days"))[0])
    assert "<user@example.net>\r\n    mx.example.net said: 550 5.1.1 No such user" in text
    assert "Reason: older than 4 days" in text
    assert "postmaster@example.com" in text


def test_header_of_the_original_goes_back_and_its_body_does_not() -> None:
    """RFC 6522 section 4."""
    octets = make()
    assert b"Secret body" not in octets
    assert text_of(parts(octets)[2]) == ORIGINAL.partition(b"\r\n\r\n")[0].decode() + "\r\n"


def test_long_header_of_the_original_is_cut_at_a_line() -> None:
    """RFC 6522 section 4."""
    original = b"".join([b"X-%d: %b\r\n" % (n, b"x" * 200) for n in range(1000)]) + b"\r\nbody\r\n"
    returned = text_of(parts(make(original=original))[2])
    assert 30_000 < len(returned) <= dsn.MAX_HEADER_BYTES
    assert returned.endswith("x\r\n")


def test_many_recipients_are_all_in_the_status_and_the_first_in_the_words() -> None:
    """RFC 3464 sections 2.2 and 2.3."""
    failures = [Failure(f"user{n}@example.net", UNKNOWN.reply) for n in range(1000)]
    octets = make(failures=failures)
    assert len(status_blocks(octets)) == 1001
    assert "... and 900 more" in text_of(parts(octets)[0])


def test_recipient_beyond_ascii_is_escaped() -> None:
    """RFC 6533 section 3: utf-8-addr-xtext where the notification is 7-bit."""
    _, block = status_blocks(make(failures=[Failure("jörg@example.net", UNKNOWN.reply)]))
    assert block["Final-Recipient"] == "utf-8; j\\x{F6}rg@example.net"


def test_original_without_usable_message_id_is_not_referred_to() -> None:
    for original in (b"From: a@b.example\r\n\r\n", b"Message-ID: <a b>\r\n\r\n", b""):
        assert parse(make(original=original))["References"] is None


hostile = st.text(st.characters(codec=None), max_size=60) | st.sampled_from(
    ["a\r\nBcc: x@evil.example", "x\n\n--=_", "y" * 3000, "  ", "a  b " * 40, "\r\n.\r\n", "\udc80"]
)


@given(hostile, hostile, hostile, st.binary(max_size=200))
def test_nothing_that_a_peer_says_changes_the_form(
    said: str, reason: str, recipient: str, original: bytes
) -> None:
    """RFC 3464 section 2.1."""
    failure = Failure(recipient, Reply(550, "5.0.0", said), "mx.example.net")
    octets = make(failures=[failure], reason=reason, original=original)
    assert octets.isascii()
    lines = octets.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert b"\0" not in octets
    message = parse(octets)
    assert message["Bcc"] is None
    assert len(parts(octets)) == 3
    about, block = status_blocks(octets)
    assert block["Action"] == "failed"
    assert about["Reporting-MTA"] == "dns; mta1.example.com"
    assert not any(b"\r" in line or b"\n" in line for line in lines)


def test_it_is_seven_bit_whatever_the_original_holds() -> None:
    original = "Subject: Grüße\r\nFrom: a@acme.example\r\n\r\nbody\r\n".encode()
    octets = make(original=original, failures=[Failure("a@x.example", Reply(550, "", "nö"))])
    assert octets.isascii()
    assert "Grüße" in text_of(parts(octets)[2])
    assert "nö" in text_of(parts(octets)[0])


# -- other actions, and what was asked for --------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "reply", "status"),
    [
        ("delayed", Reply(451, "4.7.1", "later"), "4.7.1"),
        ("delayed", Reply(550, "5.1.1", "contradicts"), "4.0.0"),
        ("relayed", Reply(250, "2.6.0", "queued"), "2.6.0"),
        ("relayed", Reply(250, "", "ok"), "2.0.0"),
        ("delivered", Reply(250, "2.1.5", "ok"), "2.1.5"),
        ("failed", Reply(550, "", "no"), "5.0.0"),
    ],
)
def test_status_has_the_class_of_the_action(action: str, reply: Reply, status: str) -> None:
    """RFC 3464 2.3.3 and 2.3.4."""
    failure = Failure("user@example.net", reply, "mx.example.net")
    _, block = status_blocks(make(failures=[failure], action=action, retry_until=NOW + 3600))
    assert (block["Action"], block["Status"]) == (action, status)
    until = "Thu, 01 Jan 2026 01:00:00 +0000" if action == "delayed" else None
    assert block["Will-Retry-Until"] == until


@pytest.mark.parametrize("action", ["delayed", "relayed", "delivered"])
def test_only_of_failures_it_says_undelivered(action: str) -> None:
    message = make(action=action)
    assert parse(message)["Subject"] != parse(make())["Subject"]
    assert "won't be" not in text_of(parts(message)[0])


def test_envelope_id_original_recipient_and_deadline_come_back_decoded() -> None:
    """RFC 3461 6.3, RFC 3464 2.2.1 and 2.3.1, RFC 2852 5."""
    octets = make(
        envid="batch+207", orcpts={"user@example.net": "rfc822;old+2Btag@example.net"}, deliver_by_at=NOW
    )
    about, block = status_blocks(octets)
    assert about["Original-Envelope-Id"] == "batch 7"
    assert about["Deliver-By-Date"] == "Thu, 01 Jan 2026 00:00:00 +0000"
    assert block["Original-Recipient"] == "rfc822; old+tag@example.net"


def test_time_for_which_it_was_held_comes_back() -> None:
    """RFC 4865: Future-Release-Request, in UTC."""
    (about, _block) = status_blocks(make(hold_until=NOW))
    assert about["Future-Release-Request"] == "until;2026-01-01T00:00:00Z"
    assert status_blocks(make())[0]["Future-Release-Request"] is None


def test_original_goes_back_whole_where_that_is_asked_for_and_it_failed() -> None:
    """RFC 3461 4.3: RET applies to failures; every other notification has headers only."""
    octets = make(is_whole=True)
    assert octets.count(ORIGINAL) == 1
    assert parts(octets)[2].get_content_type() == "message/rfc822"
    assert b"Secret body" not in make(is_whole=True, action="delayed")


def test_original_that_is_too_large_gives_its_header_back() -> None:
    large = ORIGINAL + b"x" * 70 + b"\r\n" + b"y\r\n" * (dsn.MAX_ORIGINAL_BYTES // 3)
    assert parts(make(is_whole=True, original=large))[2].get_content_type() == "text/rfc822-headers"


def test_8bit_original_goes_back_whole_in_seven_bits() -> None:
    """RFC 2046 5.2.1: what is inside message/rfc822 is encoded, not the part."""
    octets = make(is_whole=True, original="Subject: x\r\n\r\nGrüße\r\n".encode())
    assert octets.isascii()
    (inner,) = parts(octets)[2].get_payload()  # type: ignore[misc]
    assert text_of(inner) == "Grüße\r\n"  # type: ignore[arg-type]


def test_original_with_a_header_in_utf8_goes_back_whole_as_global() -> None:
    """RFC 6532 3.7: message/global may be encoded."""
    original = "Subject: Grüße\r\n\r\nbody\r\n".encode()
    octets = make(is_whole=True, original=original)
    assert octets.isascii()
    head, _, body = octets.partition(b"Content-Type: message/global\r\n")[2].partition(b"\r\n\r\n")
    assert head == b"Content-Transfer-Encoding: quoted-printable"
    decoded = quopri.decodestring(body.partition(b"\r\n--=_")[0])
    assert decoded.split() == original.split()


def test_sender_in_utf8_gets_everything_in_utf8() -> None:
    """RFC 6533 4 to 6: global types, addresses as they are."""
    octets = make(
        sender="jürgen@acme.example",
        failures=[Failure("jörg@example.net", UNKNOWN.reply)],
        orcpts={"jörg@example.net": "utf-8;j\\x{F6}rg@old.example"},
        original="Subject: Grüße\r\n\r\nbody\r\n".encode(),
    )
    text = octets.decode()
    assert "\r\nTo: jürgen@acme.example\r\n" in text
    assert "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n" in text
    assert "\r\nFinal-Recipient: utf-8; jörg@example.net\r\n" in text
    assert "\r\nOriginal-Recipient: utf-8; jörg@old.example\r\n" in text
    assert (
        "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: Grüße\r\n"
        in text
    )
    whole = make(sender="jürgen@acme.example", is_whole=True, original="Subject: ü\r\n\r\nü\r\n".encode())
    assert b"Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n" in whole
