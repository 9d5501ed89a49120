"""What a submission may hold, on which listener, and how a fault is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import Refused
from engine.inject.context import FeedContext
from engine.inject.frames import Submission
from engine.inject.submission import Offer, format_idempotency, parse_message, parse_submission
from engine.settings.model import ListenerSettings

SETTINGS = ListenerSettings(
    name="socket:/s", protocol="socket", customer="acme", max_message_size_bytes=2000, max_recipients=3
)
CONTEXT = FeedContext("socket", "socket:/s", customer="acme", peer="uid 1 pid 2")
TRUSTED = FeedContext("socket", "socket:/s", is_trusted=True, peer="uid 1 pid 2")
MESSAGE = b"Subject: x\r\n\r\nbody\r\n"


def parse(context: FeedContext = CONTEXT, **changes: Any) -> Offer:
    submission = Submission(id=1, sender="a@acme.example", recipients=["b@x.example"], message=MESSAGE)
    return parse_submission(msgspec.structs.replace(submission, **changes), SETTINGS, context)


def refusal(context: FeedContext = CONTEXT, **changes: Any) -> str:
    with pytest.raises(Refused) as raised:
        parse(context, **changes)
    return str(raised.value.reply)


def test_plain_submission_shares_the_context_of_its_connection() -> None:
    offer = parse()
    assert offer == Offer("a@acme.example", ["b@x.example"], MESSAGE, False, CONTEXT)
    assert offer.context is CONTEXT


def test_addresses_come_in_their_normal_form() -> None:
    offer = parse(sender='"a"@ACME.example', recipients=["B@bücher.example", '"x y"@X.example'])
    assert offer.sender == "a@acme.example"
    assert offer.recipients == ["B@xn--bcher-kva.example", '"x y"@x.example']


def test_null_sender() -> None:
    assert parse(sender="").sender == ""


def test_octets_above_127_are_noticed() -> None:
    assert parse(message="Subject: ü\r\n\r\n".encode()).is_8bit


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sender": "nobody"}, "501 5.1.7 sender: expected local@domain"),
        ({"recipients": []}, "501 5.5.4 recipients: expected at least one"),
        ({"recipients": ["b@x.example", "b@-"]}, "501 5.1.3 recipients[1]: "),
        ({"recipients": [""]}, "501 5.1.3 recipients[0]: "),
        ({"recipients": ["postmaster"]}, "501 5.1.3 recipients[0]: "),
        ({"recipients": ["b@x.example"] * 4}, "550 5.5.3 recipients: expected at most 3, got 4"),
        ({"message": b"x" * 1000 + b"\r\n"}, "550 5.6.0 message: line longer"),
        ({"message": b"a\r\nb\nc\r\n"}, "550 5.6.11 message: bare CR or LF"),
        ({"message": b"a\rb\r\n"}, "550 5.6.11 message: bare CR or LF"),
        ({"message": b"a\nb\r"}, "550 5.6.11 message: bare CR or LF"),
        ({"message": b"a\0b\r\n"}, "550 5.6.0 message: holds a NUL"),
        ({"message": b"x\r\n" * 700}, "552 5.3.4 message: larger than 2000 octets"),
        ({"message": b"x\n" * 700}, "552 5.3.4 message: larger than 2000 octets"),
        ({"id": ""}, "501 5.5.4 id: "),
        ({"id": "x" * 257}, "501 5.5.4 id: "),
        ({"job": "x" * 257}, "501 5.5.4 job: "),
        ({"job": "a\nb"}, "501 5.5.4 job: "),
        ({"tags": {str(n): "" for n in range(33)}}, "501 5.5.4 tags: expected at most 32"),
        ({"tags": {"": "x"}}, "501 5.5.4 tags: "),
        ({"tags": {"a": "\x00"}}, "501 5.5.4 tags: "),
        ({"customer": "other"}, "550 5.7.1 customer: this listener carries mail of acme only"),
        ({"pool": "other"}, "550 5.7.1 pool: may be named on a trusted listener only"),
    ],
)
def test_fault_is_named_by_field(changes: dict[str, Any], words: str) -> None:
    assert refusal(**changes).startswith(words)


def test_all_lf_message_gets_crlf() -> None:
    assert parse_message(b"Subject: x\n\nbody\n", 100) == MESSAGE


@pytest.mark.parametrize("message", [b"Subject: x\r\n\r\nbody", b"Subject: x\n\nbody"])
def test_last_line_is_ended(message: bytes) -> None:
    assert parse_message(message, 100) == MESSAGE


def test_own_customer_may_be_named_on_its_listener() -> None:
    assert parse(customer="acme").context.customer == "acme"


def test_job_and_tags_of_anyone() -> None:
    context = parse(job="spring", tags={"list": "a"}).context
    assert (context.job, context.tags, context.customer) == ("spring", {"list": "a"}, "acme")


def test_trusted_client_names_customer_and_pool() -> None:
    context = parse(TRUSTED, customer="beta", pool="fast").context
    assert (context.customer, context.pool, context.is_trusted) == ("beta", "fast", True)
    assert context.peer == TRUSTED.peer


def test_idempotent_id_is_a_customers() -> None:
    assert parse(idempotent=True).context.idempotency == "i1"
    assert parse(TRUSTED, customer="beta", id="1", idempotent=True).context.idempotency == "s1"
    assert refusal(TRUSTED, idempotent=True).startswith("501 5.5.4 customer: expected")


def test_number_and_text_are_different_ids() -> None:
    assert format_idempotency(7) != format_idempotency("7")
    assert format_idempotency(7) != format_idempotency("i7")


def test_what_a_submission_asks_for_goes_on_as_text() -> None:
    offer = parse(notify="NEVER", envid="7", hold_for=60, deliver_by="9;R", requires_tls=True, ret="FULL")
    assert offer.context.asked == {
        "notify": "NEVER",
        "envid": "7",
        "ret": "FULL",
        "hold_for": "60",
        "deliver_by": "9;R",
        "requires_tls": "yes",
    }
    assert offer.context.customer == "acme"


def test_addresses_may_be_utf8() -> None:
    """RFC 6531 3.3."""
    assert parse(recipients=["jürgen@bücher.example"]).recipients == ["jürgen@xn--bcher-kva.example"]
