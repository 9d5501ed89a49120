"""Deficit round robin, against a model that follows the paper step by step."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.envelope import Delivery, Envelope
from engine.queue.ready import ReadyQueue, cost_of

KIB = 1024


def make_delivery(customer: str, size_bytes: int = 10_000, expires_at: float = 1e9) -> Delivery:
    envelope = Envelope("", customer, "pool", 0.0, size_bytes, "smtp")
    return Delivery(b"x" * 12, 0, envelope, "a.example", ["b@a.example"], 0.0, expires_at=expires_at)


class Model:
    """Lists and one step at a time."""

    def __init__(self, shares: dict[str, int]) -> None:
        self.shares = shares
        self.round: list[str] = []
        self.waiting: dict[str, list[Delivery]] = {}
        self.credit: dict[str, int] = {}

    def push(self, delivery: Delivery) -> None:
        customer = delivery.envelope.customer
        if customer not in self.round:
            self.round.append(customer)
            self.waiting[customer] = []
            self.credit[customer] = self.shares[customer] if len(self.round) == 1 else 0
        self.waiting[customer].append(delivery)

    def next_turn(self) -> None:
        if self.round:
            self.credit[self.round[0]] += self.shares[self.round[0]]

    def pop(self) -> Delivery | None:
        while self.round:
            customer = self.round[0]
            if len(self.round) == 1:  # nobody to be fair to: no credit is saved up either
                self.credit[customer] = max(self.credit[customer], cost_of(self.waiting[customer][0]))
            if self.credit[customer] >= cost_of(self.waiting[customer][0]):
                delivery = self.waiting[customer].pop(0)
                self.credit[customer] -= cost_of(delivery)
                if not self.waiting[customer]:
                    self.round.pop(0)
                    self.next_turn()
                return delivery
            self.round.append(self.round.pop(0))
            self.next_turn()
        return None


customers = st.sampled_from(["a", "b", "c", "d"])
sizes = st.one_of(st.integers(0, 40 * KIB), st.integers(0, 2_000 * KIB))


@given(
    shares=st.fixed_dictionaries({name: st.integers(1, 5) for name in "abcd"}),
    steps=st.lists(st.one_of(st.none(), st.tuples(customers, sizes)), max_size=200),
)
@example(
    shares={"a": 2, "b": 1, "c": 1, "d": 1},
    steps=[("a", 0), ("a", 0), ("a", 0), None, None, ("a", 0), None, ("b", 0)],
)
def test_same_order_as_the_model(shares, steps):
    queue = ReadyQueue(shares.__getitem__)
    model = Model(shares)
    for step in steps:
        if step is None:
            assert queue.pop() is model.pop()
        else:
            delivery = make_delivery(*step)
            assert queue.push(delivery, 1_000)
            model.push(delivery)
        assert len(queue) == sum(map(len, model.waiting.values()))
        assert queue.customers() == {name: len(model.waiting[name]) for name in model.round}
    while len(queue):
        assert queue.pop() is model.pop()
    assert queue.pop() is None


def test_blast_delays_another_customer_by_one_turn():
    queue = ReadyQueue()
    for _ in range(100_000):
        queue.push(make_delivery("blast"), 1_000_000)
    for _ in range(10):
        queue.pop()
    single = make_delivery("single")
    queue.push(single, 10)
    assert single in [queue.pop(), queue.pop()]


def test_shares_are_kept_in_octets_not_messages():
    queue = ReadyQueue({"small": 1, "large": 1}.__getitem__)
    for _ in range(2_000):
        queue.push(make_delivery("small", 20 * KIB), 10_000)
        queue.push(make_delivery("large", 10 * 32 * KIB), 10_000)
    taken = Counter(queue.pop().envelope.customer for _ in range(1_100))
    assert taken["small"] == pytest.approx(10 * taken["large"], rel=0.05)


def test_customer_with_more_share_gets_so_much_more():
    queue = ReadyQueue({"one": 1, "three": 3}.__getitem__)
    for _ in range(1_000):
        queue.push(make_delivery("one"), 10_000)
        queue.push(make_delivery("three"), 10_000)
    taken = Counter(queue.pop().envelope.customer for _ in range(400))
    assert taken == {"one": 100, "three": 300}


def test_limit_is_per_customer():
    queue = ReadyQueue()
    assert queue.push(make_delivery("a"), 2)
    assert queue.push(make_delivery("a"), 2)
    assert not queue.push(make_delivery("a"), 2)
    assert queue.push(make_delivery("b"), 2)
    assert not queue.push(make_delivery("c"), 0)
    assert queue.waiting("a") == 2
    assert queue.waiting("c") == 0
    assert len(queue) == 3


def test_given_back_delivery_goes_first_again_past_the_limit():
    queue = ReadyQueue()
    deliveries = [make_delivery("a") for _ in range(3)]
    for delivery in deliveries[:2]:
        queue.push(delivery, 2)
    taken = queue.pop()
    queue.push(deliveries[2], 2)
    queue.push_front(taken)
    assert [queue.pop() for _ in range(3)] == deliveries


def test_given_back_to_an_empty_queue():
    queue = ReadyQueue()
    delivery = make_delivery("a", 10_000 * KIB)
    queue.push_front(delivery)
    assert len(queue) == 1
    assert queue.pop() is delivery


def test_last_are_taken_from_those_who_have_most():
    queue = ReadyQueue()
    for customer, count in (("a", 50), ("b", 5), ("c", 1)):
        for i in range(count):
            queue.push(make_delivery(customer, i), 100)
    removed = [queue.pop_last() for _ in range(50)]
    assert len(queue) == 6
    assert all(count >= 1 for count in queue.customers().values())
    assert len(queue.customers()) == 3
    assert removed[0].envelope.size_bytes == 49
    while len(queue):
        assert queue.pop_last() is not None
    assert queue.pop_last() is None


@given(
    pushes=st.lists(st.tuples(customers, st.floats(0, 10)), max_size=60),
    pops=st.integers(0, 30),
    now=st.floats(0, 11),
)
def test_expired_are_taken_out_wherever_they_stand(pushes, pops, now):
    queue = ReadyQueue()
    waiting = [make_delivery(customer, expires_at=at) for customer, at in pushes]
    for delivery in waiting:
        queue.push(delivery, 100)
    for _ in range(pops):
        taken = queue.pop()
        if taken is not None:
            waiting.remove(taken)
    for when in (now / 2, now):
        expired = queue.take_expired(when)
        gone = [delivery for delivery in waiting if delivery.expires_at <= when]
        assert sorted(map(id, expired)) == sorted(map(id, gone))
        waiting = [delivery for delivery in waiting if delivery.expires_at > when]
        assert sorted(map(id, queue)) == sorted(map(id, waiting))
        assert len(queue) == len(waiting)
    assert all(queue.pop() is not None for _ in waiting)


def test_what_is_named_is_taken_out():
    queue = ReadyQueue()
    for size_bytes in range(10):
        queue.push(make_delivery("ab"[size_bytes % 2], size_bytes), 100)
    taken = queue.take(lambda delivery: delivery.envelope.customer == "a")
    assert len(taken) == 5
    assert queue.customers() == {"b": 5}
    assert len(queue) == 5
