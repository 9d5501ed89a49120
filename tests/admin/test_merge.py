"""One answer out of every shard's."""

from __future__ import annotations

from engine.admin.merge import add_counts, merge_rows


def test_a_queue_that_waits_on_two_shards_is_one_row() -> None:
    rows, is_whole = merge_rows(
        {
            0: {"rows": [{"customer": "a", "domain": "x", "messages": 3, "due_at": 9.0, "reason": ""}]},
            1: {"rows": [{"customer": "a", "domain": "x", "messages": 2, "due_at": 7.0, "reason": "held"}]},
        },
        ("customer", "domain"),
        ("-messages",),
        10,
    )
    assert rows == [{"customer": "a", "domain": "x", "messages": 5, "due_at": 7.0, "reason": "held"}]
    assert is_whole


def test_rows_that_are_different_things_keep_their_shard() -> None:
    answers = {0: {"rows": [{"vmta": "b"}]}, 1: {"rows": [{"vmta": "a"}]}}
    rows, _ = merge_rows(answers, (), ("vmta",), 10)
    assert rows == [{"vmta": "a", "shard": 1}, {"vmta": "b", "shard": 0}]


def test_order_is_by_the_first_field_then_the_next() -> None:
    rows = [{"n": 1, "s": "b"}, {"n": 2, "s": "c"}, {"n": 1, "s": "a"}]
    ordered, _ = merge_rows({0: {"rows": rows}}, (), ("-n", "s"), 10)
    assert [row["s"] for row in ordered] == ["c", "a", "b"]


def test_what_is_cut_is_said() -> None:
    answers = {0: {"rows": [{"n": 1}, {"n": 2}]}}
    assert merge_rows(answers, (), ("n",), 1)[1] is False
    assert merge_rows({0: {"rows": [{"n": 1}], "is_whole": False}}, (), ("n",), 5)[1] is False


def test_a_missing_or_mixed_field_does_not_break_the_order() -> None:
    rows, _ = merge_rows({0: {"rows": [{"n": "x"}, {"n": 1}, {}, {"n": None}]}}, (), ("n",), 10)
    assert len(rows) == 4


def test_counts_add_up_at_any_depth() -> None:
    one = {"stored": 1, "events": {"delivered": 2}, "name": "x", "is_up": True, "started_at": 9.0}
    two = {"stored": 4, "events": {"delivered": 1, "bounced": 1}, "started_at": 5.0}
    assert add_counts([one, two]) == {
        "stored": 5,
        "events": {"delivered": 3, "bounced": 1},
        "started_at": 5.0,
    }
