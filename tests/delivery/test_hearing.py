"""hearing: without rules nothing is heard, and nothing follows."""

from __future__ import annotations

from typing import Any

from engine.core.reply import Reply
from engine.delivery.hearing import Deaf


def test_the_deaf_say_no_to_everything() -> None:
    deaf, nothing = Deaf(), Reply(421, "", "x")
    anything: Any = None
    assert deaf.heard(nothing, anything) is None
    assert deaf.fired_for(nothing) is None
    assert not deaf.is_skipped("mx")
    assert not deaf.is_in_clear("mx")
    deaf.succeeded(anything)
