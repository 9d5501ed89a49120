from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.units import (
    Rate,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)

seconds = st.one_of(
    st.integers(0, 10**9).map(float),
    st.integers(0, 10**9).map(lambda ms: ms / 1000),
    st.floats(0, 1e12, allow_subnormal=False),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250ms", 0.25),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("4d", 345600.0),
        ("1h30m", 5400.0),
        ("1h 30 min", 5400.0),
        ("1.5s", 1.5),
        (7, 7.0),
        (0.5, 0.5),
    ],
)
def test_duration_means_seconds(text: str | float, value: float) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "s",
        "-5s",
        "5 fortnights",
        "5s!",
        "1e3s",
        "\u0665s",
        True,
        -1,
        float("nan"),
        float("inf"),
        None,
        [],
    ],
)
def test_duration_that_is_none_says_what_was_expected(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(text)  # type: ignore[arg-type]


@given(seconds)
def test_duration_survives_its_text_form(value: float) -> None:
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0s"), (90.0, "90s"), (5400.0, "90m"), (86400.0, "1d"), (0.25, "250ms"), (1.5, "1500ms")],
)
def test_duration_takes_the_largest_unit_that_fits(value: float, text: str) -> None:
    assert format_duration(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("10MB", 10**7), ("64KiB", 65536), ("1.5kB", 1500), ("1 gb", 10**9), ("2TiB", 2 << 40), (17, 17)],
)
def test_size_means_octets(text: str | int, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "10", "10M", "-1MB", "1.0005kB", "ten MB", True, -1, 1.5])
def test_size_that_is_none_says_what_was_expected(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size such as"):
        parse_size(text)  # type: ignore[arg-type]


@given(st.integers(0, 1 << 60))
def test_size_survives_its_text_form(value: int) -> None:
    assert parse_size(format_size(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100/s", Rate(100, 1.0)),
        ("20/30min", Rate(20, 1800.0)),
        ("1,000/h", Rate(1000, 3600.0)),
        ("1_000 / hour", Rate(1000, 3600.0)),
        ("5/250ms", Rate(5, 0.25)),
        ("3/d", Rate(3, 86400.0)),
    ],
)
def test_rate_means_count_in_window(text: str, value: Rate) -> None:
    assert parse_rate(text) == value


@pytest.mark.parametrize(
    "text", ["", "100", "/s", "100/", "0/s", "5/0s", "1.5/s", "1,00/s", "a/s", "5/week", "5/s/s", 5]
)
def test_rate_that_is_none_says_what_was_expected(text: object) -> None:
    with pytest.raises(ValueError, match="expected a rate such as"):
        parse_rate(text)  # type: ignore[arg-type]


@given(st.builds(Rate, st.integers(1, 10**9), seconds.filter(lambda value: value > 0)))
def test_rate_survives_its_text_form(rate: Rate) -> None:
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize("text", ["100/s", "20/30min", "3/d", "5/250ms", "7/min"])
def test_rate_is_written_as_people_write_it(text: str) -> None:
    assert format_rate(parse_rate(text)) == text
