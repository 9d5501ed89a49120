from __future__ import annotations

import pytest

from engine.admin.parameters import MAX_LIMIT, parse_limit, parse_message_id


def test_limit_is_a_number_of_rows() -> None:
    assert (parse_limit("1"), parse_limit(str(MAX_LIMIT))) == (1, MAX_LIMIT)


@pytest.mark.parametrize("text", ["0", "-1", "10001", "", "x", "1.5", "²", "9" * 5000])
def test_limit_out_of_bounds_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number from 1 to 10000, got"):
        parse_limit(text)


def test_message_id_has_24_hexadecimal_digits_in_either_case() -> None:
    assert parse_message_id("06413F2A9C1E5B00D1A2B3C4") == "06413f2a9c1e5b00d1a2b3c4"
    for text in (
        "",
        "zz",
        "06413f2a9c1e5b00d1a2b3c",
        "06413f2a9c1e5b00d1a2b3cg",
        "06413f2a9c1e5b00d1a2b3c4\n",
    ):
        with pytest.raises(ValueError, match="expected a message id of 24 hexadecimal digits, got"):
            parse_message_id(text)
