"""What options may hold."""

from __future__ import annotations

import pytest

from engine.cli.values import parse_address, parse_host, parse_line, parse_seconds


def test_hosts_are_taken_as_people_write_them():
    assert parse_host("ASPMX.L.GOOGLE.COM.") == "aspmx.l.google.com"
    assert parse_host("mx.bücher.test") == "mx.xn--bcher-kva.test"


@pytest.mark.parametrize("name", ["bad..dom", "not a domain!", "", "ann@d.example", "ü" * 300])
def test_what_is_no_host_is_refused(name):
    with pytest.raises(ValueError, match="expected a domain name"):
        parse_host(name)


def test_addresses_are_taken_in_their_normal_form():
    assert parse_address("Ann@D.Example") == "Ann@d.example"
    assert parse_address('"a b"@bücher.test') == '"a b"@xn--bcher-kva.test'
    assert parse_address("jörg@d.example") == "jörg@d.example"


@pytest.mark.parametrize("text", ["a\nb", "a\r", "\n", "a\u2028b"])
def test_a_line_has_no_breaks(text):
    assert parse_line("") == ""
    assert parse_line("Grüße, \t all") == "Grüße, \t all"
    with pytest.raises(ValueError, match="expected one line"):
        parse_line(text)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "x", ""])
def test_seconds_are_a_number_that_can_pass(text):
    assert (parse_seconds("0"), parse_seconds("1.5")) == (0.0, 1.5)
    with pytest.raises(ValueError, match="expected seconds, 0 or more, got"):
        parse_seconds(text)
