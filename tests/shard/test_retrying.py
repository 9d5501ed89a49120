"""retrying: a message is due when an operator says so, and poison is let go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.envelope import Delivery
from engine.shard.retrying import POISON, retry_message
from engine.store.memory import MemoryStore
from tests.fakes.delivery_rig import UNIX_START, make_delivery

LATER = UNIX_START + 3600.0


class Shard:
    """What a retry needs of an engine."""

    def __init__(self) -> None:
        self.store = MemoryStore(clock=lambda: UNIX_START)
        self.arrived: list[Delivery] = []
        self.in_memory: dict[bytes, Delivery] = {}
        self.forgotten: list[str] = []
        forget = self.forgotten.append
        readahead = SimpleNamespace(
            in_memory=self.in_memory, arrived=self.arrived.append, forget_failure=forget
        )
        resolver = SimpleNamespace(forget_failure=forget)
        self.engine: Any = SimpleNamespace(store=self.store, readahead=readahead, resolver=resolver)

    def put(self, held: str = "") -> Delivery:
        delivery = make_delivery()
        delivery.due_at, delivery.held, delivery.attempts = LATER, held, 3
        self.store.put([delivery], delivery.message, lambda _: None)
        self.store.commit()
        return delivery

    def retry(self, message_id: bytes) -> dict[str, int]:
        return retry_message(self.engine, message_id, UNIX_START)


@pytest.fixture
def shard() -> Shard:
    return Shard()


def test_scheduled_delivery_is_due_now_and_keeps_its_attempts(shard: Shard) -> None:
    delivery = shard.put()
    assert shard.retry(delivery.message_id) == {"due": 1, "released": 0, "under_way": 0}
    shard.store.commit()
    assert [due for _, due in shard.store.queues(9)] == [int(UNIX_START * 1000)]
    (arrived,) = shard.arrived
    assert (arrived.key, arrived.attempts, arrived.held) == (delivery.key, 3, "")


def test_its_domain_is_asked_for_again_where_dns_did_not_answer(shard: Shard) -> None:
    delivery = shard.put()
    shard.retry(delivery.message_id)
    shard.store.commit()
    assert shard.forgotten == [delivery.domain] * 2


def test_poison_is_let_go(shard: Shard) -> None:
    delivery = shard.put(POISON)
    assert shard.retry(delivery.message_id) == {"due": 1, "released": 1, "under_way": 0}
    shard.store.commit()
    found = shard.store.load(delivery.key)
    assert found is not None
    assert found.held == ""


def test_another_shard_that_may_have_it_is_asked_first_still(shard: Shard) -> None:
    delivery = shard.put("shard 1")
    assert shard.retry(delivery.message_id) == {"due": 1, "released": 0, "under_way": 0}
    shard.store.commit()
    assert [each.held for each in shard.arrived] == ["shard 1"]


def test_what_is_in_memory_is_left_alone(shard: Shard) -> None:
    delivery = shard.put()
    shard.in_memory[delivery.key] = delivery
    assert shard.retry(delivery.message_id) == {"due": 0, "released": 0, "under_way": 1}
    shard.store.commit()
    assert shard.arrived == []


def test_what_left_before_the_commit_does_not_come_back(shard: Shard) -> None:
    delivery = shard.put()
    shard.retry(delivery.message_id)
    loaded = shard.store.load(delivery.key)
    assert loaded is not None
    shard.store.remove(loaded)
    shard.store.commit()
    assert shard.arrived == []


def test_message_that_is_not_here_counts_nothing(shard: Shard) -> None:
    assert not any(shard.retry(bytes(12)).values())
