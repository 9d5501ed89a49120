"""Under which terms a message is accepted."""

from __future__ import annotations

import pytest

from engine.core.errors import Refused
from engine.core.terms import Terms
from engine.inject.terms import mark_utf8, parse_asked
from engine.message.headers import TERMS

NOW = 1000.0
ASKED = {
    "notify": "success,delay",
    "envid": "batch 7+",
    "ret": "full",
    "hold_for": "60",
    "hold_until": "1970-01-01T00:20:00Z",
    "deliver_by": "3600;r",
    "requires_tls": "yes",
}


def test_every_term_can_be_asked_for() -> None:
    assert tuple(ASKED) == TERMS
    assert parse_asked(ASKED, None, max_hold_s=500.0, unix_now=NOW) == Terms(
        envid="batch+207+2B",
        ret="FULL",
        notify="SUCCESS,DELAY",
        deliver_by_at=NOW + 3600,
        by_mode="R",
        hold_until=1200.0,
        requires_tls=True,
    )


@pytest.mark.parametrize("name", TERMS)
def test_what_can_not_be_read_is_refused_by_name(name: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_asked({name: ""}, None, max_hold_s=1.0, unix_now=NOW)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (501, "5.5.4")
    assert refused.value.reply.text.startswith(f"{name}: expected ")


def test_longer_hold_than_the_listener_allows_is_refused() -> None:
    with pytest.raises(Refused, match="may wait for 59 seconds"):
        parse_asked({"hold_for": "60"}, None, max_hold_s=59.0, unix_now=NOW)


def test_deadline_before_the_release_is_refused() -> None:
    with pytest.raises(Refused, match="deliver_by"):
        parse_asked({"hold_for": "60", "deliver_by": "60;R"}, None, max_hold_s=60.0, unix_now=NOW)


def test_nothing_asked_for_in_effect_is_no_terms() -> None:
    asked = {"hold_for": "0", "requires_tls": "no"}
    assert parse_asked(asked, None, max_hold_s=0.0, unix_now=NOW) is None


def test_what_is_asked_for_goes_over_what_is_known() -> None:
    known = Terms(envid="x", recipients={"a@b.example": ("NEVER", "")})
    found = parse_asked({"ret": "HDRS"}, known, max_hold_s=0.0, unix_now=NOW)
    assert found == Terms(envid="x", ret="HDRS", recipients=known.recipients)


@pytest.mark.parametrize(
    ("said", "sender", "header", "feed", "needs"),
    [
        (True, "a@b.example", b"Subject: x\r\n", "smtp", False),
        (True, "ü@b.example", b"Subject: x\r\n", "smtp", True),
        (True, "a@b.example", "Subject: ü\r\n".encode(), "smtp", True),
        (False, "a@b.example", "Subject: ü\r\n".encode(), "smtp", False),
        (False, "a@b.example", "Subject: ü\r\n".encode(), "socket", True),
        (False, "a@b.example", b"Subject: \xfc\r\n", "socket", False),
        (False, "ü@b.example", b"Subject: x\r\n", "spool", True),
        (False, "a@b.example", b"Subject: x\r\n", "spool", False),
    ],
)
def test_message_needs_smtputf8_if_an_address_or_the_header_does(
    said: bool, sender: str, header: bytes, feed: str, needs: bool
) -> None:
    """RFC 6531 3.2; what a client says without need binds nobody."""
    known = Terms(is_utf8=True) if said else None
    found = mark_utf8(known, sender, ["r@x.example"], header, feed)
    assert (found is not None and found.is_utf8) == needs
    found = mark_utf8(known, "", [sender], header, feed)
    assert (found is not None and found.is_utf8) == needs
