"""Lines of a message, against a naive reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.lines import is_valid_utf8, line_fault


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b".", b"bcd", b"\x0b\x0c\x85"]), max_size=30))
def test_line_fault_agrees_with_a_naive_reading(parts: list[bytes]) -> None:
    message = b"".join(parts)
    rest = message.split(b"\r\n")
    last = rest.pop()
    if last or any(b"\r" in line or b"\n" in line for line in rest):
        expected = "bare CR or LF"
    else:
        expected = "line longer than 4 octets" if max(map(len, rest), default=0) > 4 else ""
    assert line_fault(message, 4) == expected


@pytest.mark.parametrize("bad", [b"x\n", b"x\r", b"\r\r\n", b"y" * 999 + b"\r\n"])
@pytest.mark.parametrize("position", [0, 65536 - 10, 65536, 200_000])
def test_line_fault_in_a_large_message(bad: bytes, position: int) -> None:
    line = b"0123456789abcdef0123456789abcd\r\n"
    before, after = line * (position // len(line)), line * ((200_000 - position) // len(line) + 3)
    assert line_fault(before + after, 998) == ""
    assert line_fault(before + bad + after, 998) == (
        "line longer than 998 octets" if bad.startswith(b"y") else "bare CR or LF"
    )


def test_line_fault_of_a_large_message_without_line_ends() -> None:
    assert line_fault(b"x" * 300_000 + b"\r\n", 998) == "line longer than 998 octets"
    assert line_fault(b"x" * 300_000, 998) == "bare CR or LF"


@pytest.mark.parametrize(
    ("octets", "expected"), [(b"", True), (b"\xc3\xbc", True), (b"\xfc", False), (b"\xed\xa0\x80", False)]
)
def test_latin_1_and_surrogates_are_no_utf8(octets: bytes, expected: bool) -> None:
    assert is_valid_utf8(octets) is expected
