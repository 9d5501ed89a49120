from __future__ import annotations

import pytest

from engine.cli.steer import count_stored, describe_drain, describe_retry


def test_status_without_counts_is_empty() -> None:
    assert count_stored({"counts": None}) == 0
    assert count_stored({"counts": {"stored": 7}}) == 7


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"is_draining": False}, "taking mail again"),
        ({"is_draining": True}, "draining: new mail is refused, what is stored goes on being delivered"),
        ({"is_draining": True, "stored": 1200}, "draining: 1,200 deliveries are left"),
        ({"is_draining": True, "stored": 0}, "drained: nothing is left"),
    ],
)
def test_drain_is_told_in_words(answer: dict[str, object], text: str) -> None:
    assert describe_drain(answer) == text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"id": "ab", "due": 2, "released": 0, "under_way": 0}, "ab: 2 due now"),
        (
            {"id": "ab", "due": 1, "released": 1, "under_way": 3},
            "ab: 1 due now (1 held as poison let go), 3 on their way already",
        ),
    ],
)
def test_retry_is_told_in_words(answer: dict[str, object], text: str) -> None:
    assert describe_retry(answer) == text
