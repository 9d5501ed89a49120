"""former: everybody is asked who may know an id, and all must answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.core.errors import NetworkError, StoreUnhealthy
from engine.inject.former import RECALL, FormerKeepers

Answer = Callable[[Any, NetworkError | None], None]
DOWN = NetworkError("link", "shard is down")


class LeftStore:
    def __init__(self, known: dict[str, bytes], is_broken: bool = False) -> None:
        self.known = known
        self.is_broken = is_broken

    def idempotent(self, _customer: str, given_id: str) -> bytes | None:
        if self.is_broken:
            raise StoreUnhealthy("a page is damaged")
        return self.known.get(given_id)


class Asked:
    """Former keepers, and what was asked of the other shards."""

    def __init__(self, *others: int, left: tuple[LeftStore, ...] = ()) -> None:
        self.answers: dict[int, Answer] = {}
        self.heard: list[tuple[bytes | None, bool]] = []
        former = FormerKeepers(others, self.ask, lambda: left, lambda: True)
        assert former.may_know
        former.find("acme", "s1", lambda *heard: self.heard.append(heard))

    def ask(self, shard: int, kind: str, body: Any, done: Answer, _size: int) -> None:
        assert (kind, body) == (RECALL, ["acme", "s1"])
        self.answers[shard] = done


def test_nobody_knows_it_when_all_have_said_so() -> None:
    asked = Asked(1, 2)
    asked.answers[2](None, None)
    assert asked.heard == []
    asked.answers[1](None, None)
    assert asked.heard == [(None, True)]


def test_the_first_that_knows_it_is_enough() -> None:
    asked = Asked(1, 2, 3)
    asked.answers[3](None, DOWN)
    asked.answers[2](b"answer", None)
    asked.answers[1](None, None)
    assert asked.heard == [(b"answer", True)]


def test_where_one_does_not_answer_nothing_can_be_said() -> None:
    asked = Asked(1, 2)
    asked.answers[1](None, DOWN)
    asked.answers[2](None, None)
    assert asked.heard == [(None, False)]


def test_a_left_store_is_asked_first() -> None:
    asked = Asked(1, left=(LeftStore({}), LeftStore({"s1": b"answer"})))
    assert (asked.heard, asked.answers) == ([(b"answer", True)], {})


def test_an_only_shard_asks_itself() -> None:
    assert Asked().heard == [(None, True)]


def test_a_left_store_that_can_not_be_read_may_know_it() -> None:
    assert Asked(1, left=(LeftStore({}, is_broken=True),)).heard == [(None, False)]
