"""Messages that look like mail, the same in every run."""

from __future__ import annotations

import email
from email.policy import default

import pytest

from engine.rig.prose import ID_FIELD, SENT_FIELD, VARIANTS, make_bodies, make_header


@pytest.mark.parametrize("size", [2, 3, 75, 1000, 10_000])
def test_bodies_are_of_the_size_asked_for_in_short_lines_that_need_no_stuffing(size: int) -> None:
    for body in make_bodies(size):
        assert size <= len(body) <= size + 2
        assert body.endswith(b"\r\n")
        lines = body.split(b"\r\n")
        assert all(len(line) <= 76 and not line.startswith(b".") for line in lines)
        assert b"\n" not in b"".join(lines)
        assert body.isascii()


def test_bodies_are_the_same_in_each_run_and_differ_from_each_other() -> None:
    bodies = make_bodies(2000)
    assert bodies == make_bodies(2000)
    assert len(set(bodies)) == len(bodies) == VARIANTS
    assert make_bodies(2000, 3) == bodies[:3]


def test_header_is_one_that_others_can_read_and_has_the_fields_that_a_sink_looks_for() -> None:
    octets = make_header("r-1", "a@b.example", "u@d.example", 12.5, "Your invoice")
    assert octets.endswith(b"\r\n\r\n")
    assert ID_FIELD + b"r-1\r\n" in octets
    assert SENT_FIELD + b"12.500000\r\n" in octets
    header = email.message_from_bytes(octets, policy=default)
    assert header["From"].addresses[0].addr_spec == "a@b.example"
    assert header["To"].addresses[0].addr_spec == "u@d.example"
    assert header["Subject"] == "Your invoice (r-1)"
    assert header["Message-ID"] == "<r-1@bench.example>"
    assert not header.defects
