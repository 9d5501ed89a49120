"""Names of spool files: each once, in order, shared between shards without a word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.inject.names import HELP_AFTER_S, MAX_NAMES, NameQueue, keeper_of


def drain(queue: NameQueue, now: float) -> list[str]:
    found = []
    while (name := queue.pop(now)) is not None:
        found.append(name)
    return found


def test_names_that_came_together_are_taken_in_order() -> None:
    queue = NameQueue(0, 1)
    queue.add(["c", "a", "b", "a"], 0.0)
    assert queue.pop(0.0) == "a"
    queue.add(["0"], 0.0)
    assert drain(queue, 0.0) == ["b", "c", "0"]
    assert len(queue) == 0


def test_name_may_come_again_once_it_was_taken() -> None:
    queue = NameQueue(0, 1)
    queue.add(["a"], 0.0)
    assert queue.pop(0.0) == "a"
    assert "a" not in queue
    queue.add(["a"], 0.0)
    assert queue.pop(0.0) == "a"


def test_foreign_names_are_helped_with_later() -> None:
    names = [f"m{number}" for number in range(50)]
    own = sorted(name for name in names if keeper_of(name, 2) == 0)
    queue = NameQueue(0, 2)
    queue.add(names, 100.0)
    assert drain(queue, 100.0) == own
    assert queue.next_at(100.0) == 100.0 + HELP_AFTER_S
    assert drain(queue, 100.0 + HELP_AFTER_S) == sorted(set(names) - set(own))
    assert queue.next_at(200.0) is None


@given(st.sets(st.text(min_size=1, max_size=5)), st.integers(min_value=1, max_value=5))
def test_each_name_has_one_keeper(names: set[str], shards: int) -> None:
    queues = [NameQueue(shard, shards) for shard in range(shards)]
    for queue in queues:
        queue.add(names, 0.0)
    taken = [name for queue in queues for name in drain(queue, 0.0)]
    assert sorted(taken) == sorted(names)


def test_more_names_than_the_bound_are_left_to_the_next_listing() -> None:
    queue = NameQueue(0, 1)
    queue.add((str(number) for number in range(MAX_NAMES + 5)), 0.0)
    assert len(queue) == MAX_NAMES
    assert queue.is_partial


def test_names_that_are_no_utf8_have_a_keeper() -> None:
    queue = NameQueue(0, 3)
    queue.add(["\udcff\udcfe"], 0.0)
    assert drain(queue, HELP_AFTER_S) == ["\udcff\udcfe"]
