"""What stands behind MAIL and RCPT: only what is offered, and only what is needed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.envelope import Envelope
from engine.core.terms import Terms
from engine.net.extensions import NO_EXTENSIONS, Extensions, parse_extensions
from engine.smtp.parameters import mail_parameters, needs_smtputf8, rcpt_parameters, refusal

NOW = 1000.0
MESSAGE = b"Subject: x\r\n\r\nhello\r\n"
UTF8_MESSAGE = "Subject: ü\r\n\r\nhello\r\n".encode()
ALL = parse_extensions("SIZE\n8BITMIME\nSMTPUTF8\nDSN\nDELIVERBY\nREQUIRETLS")
TO = ["b@x.example"]
PLAIN_TERMS = Terms(envid="7", ret="FULL", notify="NEVER")


def envelope(
    terms: Terms | None = None, *, sender: str = "a@acme.example", is_8bit: bool = False
) -> Envelope:
    return Envelope(sender, "acme", "pool", NOW, len(MESSAGE), "smtp", is_8bit, terms=terms)


def written(extensions: Extensions, facts: Envelope, to: list[str] = TO, message: bytes = MESSAGE) -> str:
    return mail_parameters(extensions, facts, to, message, lambda: NOW)


def bounced(extensions: Extensions, facts: Envelope, to: list[str] = TO, message: bytes = MESSAGE) -> str:
    reply = refusal(extensions, facts, to, message, "mx.example", lambda: NOW)
    return "" if reply is None else f"{reply.code} {reply.enhanced}"


# -- nothing that is not offered or not needed ------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "expected"), [("", ""), ("SIZE", " SIZE=21"), ("8BITMIME\nSMTPUTF8\nDSN\nDELIVERBY", "")]
)
def test_plain_message_needs_its_size_at_most(offer: str, expected: str) -> None:
    """RFC 1870 6."""
    extensions = parse_extensions(offer)
    assert written(extensions, envelope()) == expected
    assert rcpt_parameters(extensions, envelope(), TO, MESSAGE) is None
    assert bounced(extensions, envelope()) == ""


TERMS = st.builds(
    Terms,
    is_utf8=st.booleans(),
    envid=st.sampled_from(["", "7"]),
    ret=st.sampled_from(["", "FULL"]),
    notify=st.sampled_from(["", "NEVER"]),
    recipients=st.sampled_from([{}, {"b@x.example": ("SUCCESS", "rfc822;b")}]),
    deliver_by_at=st.just(2000.0),
    by_mode=st.sampled_from(["", "N", "RT"]),
    requires_tls=st.booleans(),
)
OFFERS = st.sets(st.sampled_from(["SIZE", "8BITMIME", "SMTPUTF8", "DSN", "DELIVERBY", "REQUIRETLS"])).map(
    lambda keywords: parse_extensions("\n".join(sorted(keywords)))
)
EXTENSION_OF = {
    "BODY": "8BITMIME",
    "BY": "DELIVERBY",
    **dict.fromkeys(["RET", "ENVID", "NOTIFY", "ORCPT"], "DSN"),
}


@given(TERMS, OFFERS, st.booleans())
def test_no_parameter_without_its_extension(terms: Terms, extensions: Extensions, is_8bit: bool) -> None:
    """RFC 5321 2.2.1: nothing that the server did not offer."""
    facts = envelope(terms, is_8bit=is_8bit)
    text = written(extensions, facts) + "".join(rcpt_parameters(extensions, facts, TO, MESSAGE) or [])
    for word in text.split():
        keyword = word.partition("=")[0]
        assert EXTENSION_OF.get(keyword, keyword) in extensions.parameters


# -- 8BITMIME, SIZE --------------------------------------------------------------------------------


def test_8bit_message_says_so_and_bounces_where_that_is_not_offered() -> None:
    """RFC 6152 3: no 8-bit content to a server without 8BITMIME."""
    facts = envelope(is_8bit=True)
    assert written(ALL, facts) == " SIZE=21 BODY=8BITMIME"
    assert bounced(ALL, facts) == ""
    assert bounced(NO_EXTENSIONS, facts) == "554 5.6.3"


def test_message_larger_than_the_peer_takes_bounces() -> None:
    """RFC 1870 6.1."""
    assert bounced(parse_extensions("SIZE 20"), envelope()) == "552 5.3.4"
    assert bounced(parse_extensions("SIZE 21"), envelope()) == ""


# -- SMTPUTF8 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "to", "message", "needs"),
    [
        ({}, TO, MESSAGE, False),
        ({"sender": "ü@acme.example"}, TO, MESSAGE, True),
        ({}, ["ü@x.example"], MESSAGE, True),
        ({"is_8bit": True}, TO, UTF8_MESSAGE, True),
        ({"is_8bit": True}, TO, "Subject: x\r\n\r\nü\r\n".encode(), False),
    ],
)
def test_smtputf8_is_asked_for_where_it_is_needed(
    change: dict[str, Any], to: list[str], message: bytes, needs: bool
) -> None:
    """RFC 6531 3.2: no internationalized message to a server that does not offer it; RFC 6531 3.5: 5.6.7."""
    facts = envelope(Terms(is_utf8=True), **change)
    assert needs_smtputf8(facts, to, message) == needs
    assert (" SMTPUTF8" in written(ALL, facts, to, message)) == needs
    lacking = parse_extensions("8BITMIME")
    assert bounced(lacking, facts, to, message) == ("553 5.6.7" if needs else "")


# -- DSN -------------------------------------------------------------------------------------------


def test_dsn_goes_on_as_it_came() -> None:
    """RFC 3461 5.2.1: a relay passes NOTIFY, ORCPT, RET and ENVID on unchanged."""
    terms = Terms(
        envid="a+2Bb", ret="HDRS", notify="", recipients={"b@x.example": ("SUCCESS,DELAY", "rfc822;b+40old")}
    )
    assert written(ALL, envelope(terms)) == " SIZE=21 RET=HDRS ENVID=a+2Bb"
    assert rcpt_parameters(ALL, envelope(terms), [*TO, "c@x.example"], MESSAGE) == [
        " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+40old",
        "",
    ]


def test_notify_for_all_goes_to_each() -> None:
    facts = envelope(Terms(notify="NEVER"))
    assert rcpt_parameters(ALL, facts, ["a@x.example", "b@x.example"], MESSAGE) == [" NOTIFY=NEVER"] * 2


def test_orcpt_in_utf8_is_escaped_where_smtputf8_is_not_in_use() -> None:
    """RFC 6533 3: utf-8-addr-xtext without SMTPUTF8."""
    terms = Terms(is_utf8=True, recipients={"b@x.example": ("", "utf-8;ü@x.example")})
    found = rcpt_parameters(parse_extensions("DSN"), envelope(terms), TO, MESSAGE)
    assert found == [" ORCPT=utf-8;\\x{FC}@x.example"]
    both = envelope(terms, sender="ü@acme.example")
    assert rcpt_parameters(ALL, both, TO, MESSAGE) == [" ORCPT=utf-8;ü@x.example"]


# -- DELIVERBY, REQUIRETLS -------------------------------------------------------------------------


def test_deliver_by_goes_on_with_the_time_that_is_left() -> None:
    """RFC 2852 4: the by-time less what the message has spent here."""
    assert " BY=250;RT" in written(ALL, envelope(Terms(deliver_by_at=NOW + 250.9, by_mode="RT")))
    assert " BY=-5;N" in written(ALL, envelope(Terms(deliver_by_at=NOW - 5, by_mode="N")))


@pytest.mark.parametrize(
    ("offer", "mode", "left_s", "expected"),
    [
        ("DELIVERBY", "R", 1, ""),
        ("DELIVERBY", "R", 0, "554 5.4.7"),
        ("DELIVERBY 60", "R", 59, "554 5.4.7"),
        ("DELIVERBY 60", "R", 60, ""),
        ("DELIVERBY 60,x=1", "R", 59, "554 5.4.7"),
        ("DELIVERBY ,x=1", "RT", 1, ""),
        ("DELIVERBY 60", "N", 5, ""),
        ("DELIVERBY 60", "N", -5, ""),
        ("", "R", 5, "554 5.4.7"),
        ("DSN", "RT", 500, "554 5.4.7"),
        ("", "N", 5, ""),
        ("", "E", 5, ""),
        ("DELIVERBY 60", "E", 5, ""),
    ],
)
def test_peer_that_needs_more_time_than_is_left_does_not_get_it(
    offer: str, mode: str, left_s: int, expected: str
) -> None:
    """RFC 2852 4.1.4.1: min-by-time, with R; and none without Deliver By."""
    facts = envelope(Terms(deliver_by_at=NOW + left_s, by_mode=mode))
    assert bounced(parse_extensions(offer), facts) == expected


def test_over_lmtp_a_message_is_delivered_and_not_relayed() -> None:
    """RFC 2852 4.1.4.1 is about relaying; RFC 2033: LMTP delivers."""
    facts = envelope(Terms(deliver_by_at=NOW + 5, by_mode="R"))
    assert bounced(parse_extensions("DSN", is_lmtp=True), facts) == ""


@pytest.mark.parametrize(
    ("offer", "terms", "expected"),
    [
        ("DSN", Terms(by_mode="N"), " NOTIFY=FAILURE,DELAY"),
        ("DSN", Terms(by_mode="NT", notify="SUCCESS"), " NOTIFY=SUCCESS,DELAY"),
        ("DSN", Terms(by_mode="N", notify="FAILURE,DELAY"), " NOTIFY=FAILURE,DELAY"),
        ("DSN", Terms(by_mode="N", notify="NEVER"), " NOTIFY=NEVER"),
        ("DSN\nDELIVERBY", Terms(by_mode="N"), ""),
        ("DSN\nDELIVERBY", Terms(by_mode="N", notify="SUCCESS"), " NOTIFY=SUCCESS"),
        ("DSN", Terms(by_mode="E"), ""),
        ("", Terms(by_mode="N"), ""),
    ],
)
def test_peer_that_does_not_know_the_deadline_is_asked_to_tell_of_delays(
    offer: str, terms: Terms, expected: str
) -> None:
    """RFC 2852 4.1.4.2: with N, and unless the sender wants to hear of nothing."""
    found = rcpt_parameters(parse_extensions(offer), envelope(terms), TO, MESSAGE)
    assert "".join(found or []) == expected


def test_deadline_of_our_own_is_not_told_to_peers() -> None:
    assert written(ALL, envelope(Terms(deliver_by_at=NOW + 5, by_mode="E"))) == " SIZE=21"


def test_message_that_requires_tls_goes_only_to_peers_that_pass_that_on() -> None:
    """RFC 8689 4.2.1: 5.7.30 where REQUIRETLS is not offered."""
    facts = envelope(Terms(requires_tls=True))
    assert written(ALL, facts).endswith(" REQUIRETLS")
    assert bounced(ALL, facts) == ""
    assert bounced(parse_extensions("STARTTLS"), facts) == "550 5.7.30"


def test_bounce_of_requiretls_mail_goes_with_it_where_it_is_offered_and_without_elsewhere() -> None:
    """RFC 8689 5: with the null return-path it SHOULD NOT cause the message to be discarded."""
    facts = envelope(Terms(requires_tls=True), sender="")
    assert written(ALL, facts).endswith(" REQUIRETLS")
    assert bounced(parse_extensions("STARTTLS"), facts) == ""
    assert written(parse_extensions("STARTTLS"), facts) == ""
