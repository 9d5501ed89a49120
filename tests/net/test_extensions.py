"""EHLO keywords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.net.extensions import NO_EXTENSIONS, parse_extensions

POSTFIX = (
    "PIPELINING\nSIZE 10240000\nVRFY\nETRN\nSTARTTLS\nENHANCEDSTATUSCODES\n8BITMIME\nDSN\nSMTPUTF8\nCHUNKING"
)


def test_what_postfix_offers_is_known():
    offer = parse_extensions(POSTFIX)
    assert offer.has_pipelining
    assert offer.has_8bitmime
    assert offer.has_chunking
    assert offer.has_smtputf8
    assert offer.has_dsn
    assert offer.has_starttls
    assert offer.size_limit == 10_240_000


def test_keywords_are_read_in_any_case_with_their_parameters():
    """RFC 5321 section 4.1.1.1."""
    offer = parse_extensions("pipelining \nauth PLAIN LOGIN\nLimits RCPTMAX=5")
    assert offer.has_pipelining
    assert offer.parameters["AUTH"] == "PLAIN LOGIN"
    assert offer.parameters["LIMITS"] == "RCPTMAX=5"


@pytest.mark.parametrize(
    "size", ["SIZE", "SIZE 0", "SIZE many", "SIZE -1", "SIZE 1 2", "SIZE \u0661", "SIZE " + "9" * 40]
)
def test_size_that_is_no_number_is_no_limit(size):
    """RFC 1870 section 4."""
    assert parse_extensions(size).size_limit == 0


def test_equal_offers_are_one_object():
    assert parse_extensions(POSTFIX) is parse_extensions("".join(POSTFIX))


def test_no_lines_are_no_extensions():
    assert parse_extensions("") == NO_EXTENSIONS


@given(st.text() | st.text(alphabet="SIZE 019\t\r\n"))
def test_of_any_text_only_keywords_are_kept_and_sizes_that_are_numbers(text):
    """RFC 5321 section 4.1.1.1."""
    offer = parse_extensions(text)
    for keyword in offer.parameters:
        assert keyword
        assert " " not in keyword
        assert "\n" not in keyword
    assert 0 <= offer.size_limit < 10**20
    assert not offer.size_limit or str(offer.size_limit) in text


@pytest.mark.parametrize(
    ("line", "mails", "recipients"),
    [
        ("LIMITS MAILMAX=20 RCPTMAX=50 RCPTDOMAINMAX=1", 20, 50),
        ("limits rcptmax=5", 0, 5),
        ("LIMITS", 0, 0),
        ("LIMITS MAILMAX=many RCPTMAX=-1 X=1", 0, 0),
        ("LIMITS MAILMAX=1234567", 0, 0),
    ],
)
def test_limits_that_the_peer_names(line, mails, recipients):
    """RFC 9422 3."""
    offer = parse_extensions(line)
    assert (offer.mail_max, offer.rcpt_max) == (mails, recipients)


def test_requiretls_that_is_offered_in_clear_does_not_count():
    """RFC 8689 section 2: it is offered under TLS only."""
    offered = parse_extensions("SIZE 1000\nREQUIRETLS")
    assert offered.in_clear().parameters == {"SIZE": "1000"}
    assert offered.in_clear().size_limit == 1000
    plain = parse_extensions("SIZE 1000")
    assert plain.in_clear() is plain
