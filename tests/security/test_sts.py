"""MTA-STS records and policies (RFC 8461)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.security.sts import MAX_AGE_S, MAX_POLICY_BYTES, matches, parse_policy, parse_record

POLICY = (
    b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"
)


def test_record_gives_the_id_of_the_policy():
    """RFC 8461 section 3.1."""
    assert parse_record(["v=STSv1; id=20160831085700Z;"]) == "20160831085700Z"
    assert parse_record(["v=STSv1;id=1"]) == "1"
    assert parse_record(["v=spf1 -all", "v=STSv1; id=abc; other=1"]) == "abc"


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["v=STSv1"],
        ["v=STSv1; id=;"],
        ["v=STSv1; id=with-dash;"],
        ["v=STSv1; id=" + "a" * 33],
        ["V=STSv1; id=1;"],
        [" v=STSv1; id=1;"],
        ["v=STSv2; id=1;"],
        ["v=STSv1; id=1;", "v=STSv1; id=2;"],  # "if the number of resulting records is not one"
    ],
)
def test_record_that_is_wrong_or_not_alone_is_none(texts):
    """RFC 8461 section 3.1."""
    assert parse_record(texts) is None


def test_policy_is_read_with_either_line_end():
    """RFC 8461 section 3.2."""
    policy = parse_policy(POLICY)
    assert policy == parse_policy(POLICY.replace(b"\r\n", b"\n"))
    assert (policy.mode, policy.mx, policy.max_age_s) == (
        "enforce",
        ("mail.example.com", "*.example.net"),
        604800,
    )
    assert policy.lines[1] == "mode: enforce"


def test_policy_passes_over_unknown_keys_and_second_values():
    """RFC 8461 section 3.2: unknown fields are ignored, of duplicates the first counts."""
    policy = parse_policy(POLICY + b"mode: none\r\nfuture_key: x:y\r\nnot a field\r\n")
    assert policy.mode == "enforce"


def test_max_age_is_capped_at_a_year():
    """RFC 8461 section 3.2: "the maximum value is 31557600"."""
    assert parse_policy(POLICY.replace(b"604800", b"9999999999")).max_age_s == MAX_AGE_S


def test_policy_of_mode_none_needs_no_mx():
    assert parse_policy(b"version: STSv1\nmode: none\nmax_age: 86400\n").mx == ()


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "version"),
        (POLICY.replace(b"STSv1", b"STSv2"), "version"),
        (POLICY.replace(b"enforce", b"Enforce"), "mode"),
        (POLICY.replace(b"604800", b"-1"), "max_age"),
        (b"version: STSv1\nmode: testing\nmax_age: 1\n", "no mx"),
        (POLICY.replace(b"mail.example.com", b"a b"), "host name"),
        (POLICY.replace(b"*.example.net", b"*.*.net"), "host name"),
        (b"\xff" + POLICY, "UTF-8"),
        (POLICY + b" " * MAX_POLICY_BYTES, "octets"),
        (b"<html>", "version"),
    ],
)
def test_policy_that_is_wrong_says_why(octets, why):
    with pytest.raises(ValueError, match=why):
        parse_policy(octets)


@given(st.binary(max_size=300))
def test_whatever_a_server_sends_is_a_policy_or_a_value_error(octets):
    with contextlib.suppress(ValueError):
        parse_policy(octets)


@pytest.mark.parametrize(
    ("pattern", "host", "is_match"),
    [
        ("mx.example.com", "mx.example.com", True),
        ("mx.example.com", "a.mx.example.com", False),
        ("*.example.com", "mx.example.com", True),
        ("*.example.com", "a.mx.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
    ],
)
def test_wildcard_stands_for_exactly_one_label(pattern, host, is_match):
    """RFC 8461 section 4.1."""
    assert matches(pattern, host) is is_match


def test_policy_allows_hosts_that_any_pattern_names():
    policy = parse_policy(POLICY)
    assert policy.allows("mail.example.com")
    assert policy.allows("mx7.example.net")
    assert not policy.allows("mx.elsewhere.example")
