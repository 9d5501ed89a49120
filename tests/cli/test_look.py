from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from engine.cli.look import show_message, show_rows, show_status

NOW = 1_000_000.0


def shown(show: Callable[..., None], *arguments: Any) -> str:
    out = io.StringIO()
    show(Console(file=out, width=160), *arguments, NOW)
    return out.getvalue()


def test_shards_that_gave_no_answer_are_named() -> None:
    answer = {"paths": [], "unanswered": {"1": "shard 1 is down"}}
    assert "shard 1 did not answer: shard 1 is down" in shown(show_rows, "paths", answer)


def test_status_says_that_new_mail_is_refused() -> None:
    text = shown(show_status, {"is_draining": True, "started_at": NOW - 60, "generation": 2, "shards": []})
    assert "draining: new mail is refused, started 1 min ago, configuration generation 2" in text


def test_status_says_how_many_shards_are_up_and_that_without_any_no_mail_is_taken() -> None:
    def text(*is_up: bool) -> str:
        shards = [{"shard": shard, "is_up": up} for shard, up in enumerate(is_up)]
        return shown(show_status, {"is_draining": False, "generation": 1, "shards": shards})

    assert "Mailrail taking mail, 2 of 2 shards up, configuration" in text(True, True)
    assert "Mailrail taking mail, 1 of 2 shards up, configuration" in text(False, True)
    assert "Mailrail takes no mail: 0 of 2 shards up, configuration" in text(False, False)


def test_status_says_how_many_shards_that_are_up_do_not_answer() -> None:
    shards = [{"shard": shard, "is_up": shard < 2} for shard in range(3)]
    unanswered = {"0": "no answer in 2 s", "2": "shard 2 is down"}
    text = shown(show_status, {"generation": 1, "shards": shards, "unanswered": unanswered})
    assert "taking mail, 2 of 3 shards up, 1 of which did not answer, configuration" in text


def test_status_shows_counts_at_any_depth() -> None:
    text = shown(show_status, {"counts": {"sessions": {"open": 12}}, "shards": [{"shard": 0, "is_up": True}]})
    assert "sessions open" in text
    assert "12" in text


def test_message_shows_its_deliveries_as_a_table() -> None:
    answer = {
        "id": "ab",
        "accepted_at": NOW - 3600,
        "deliveries": [{"domain": "d.example", "attempts": 2, "last_reply": "451 4.7.1 later"}],
    }
    text = shown(show_message, answer)
    assert "accepted  1 h ago" in text
    assert "451 4.7.1 later" in text
