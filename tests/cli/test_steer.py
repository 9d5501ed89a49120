from __future__ import annotations

import pytest

from engine.cli.steer import count_stored, describe_drain


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
