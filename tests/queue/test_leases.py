"""Amounts of a limit that spans shards: never more out than the limit, whatever dies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.queue.leases import REFUSED_PAUSE_S, LeaseBorrower, LeaseOwner


def make_owner(limit: int, shards: int = 3) -> LeaseOwner:
    owner = LeaseOwner(limit, range(shards))
    for shard in range(shards):
        owner.report(shard, 0)
    return owner


def test_grants_what_there_is():
    owner = make_owner(10)
    assert owner.borrow(0, 6, 0.0) == 6
    assert owner.borrow(1, 6, 0.0) == 4
    assert owner.borrow(2, 1, 0.0) == 0
    owner.give_back(0, 2)
    assert owner.borrow(2, 5, 0.0) == 2


def test_owner_that_starts_grants_nothing_until_all_have_reported():
    owner = LeaseOwner(10, [0, 1])
    owner.report(0, 3)
    assert owner.is_recovering
    assert owner.borrow(0, 1, 0.0) == 0
    owner.report(1, 6)
    assert owner.borrow(0, 5, 0.0) == 1


def test_dead_shard_keeps_its_amount_until_the_time_is_over():
    owner = make_owner(10)
    owner.borrow(1, 10, 0.0)
    owner.lose(1, until=5.0)
    owner.report(1, 0)  # its successor
    assert owner.borrow(1, 1, 4.9) == 0
    assert owner.borrow(1, 10, 5.0) == 10


def test_shard_that_died_unheard_blocks_all_until_the_time_is_over():
    owner = LeaseOwner(10, [0, 1])
    owner.report(0, 0)
    owner.lose(1, until=5.0)
    assert not owner.is_recovering
    assert owner.borrow(0, 1, 4.9) == 0
    assert owner.borrow(0, 1, 5.0) == 1


def test_lowered_limit_is_recalled_from_those_who_hold_most():
    owner = make_owner(12)
    for shard, amount in ((0, 8), (1, 3), (2, 1)):
        owner.borrow(shard, amount, 0.0)
    owner.limit = 6
    assert owner.available(0.0) == -6
    assert owner.recalls(0.0) == {0: 6}


def test_shard_that_is_short_gets_its_even_part_back():
    owner = make_owner(9)
    owner.borrow(0, 9, 0.0)
    assert owner.borrow(1, 5, 0.0) == 0
    assert owner.recalls(0.0) == {0: 5}
    owner.give_back(0, 5)
    assert owner.borrow(1, 5, 0.0) == 5
    assert owner.recalls(0.0) == {}


def test_giving_back_more_than_was_held_is_a_bug():
    with pytest.raises(AssertionError):
        make_owner(5).give_back(0, 1)


def test_borrower_uses_only_what_it_holds():
    borrower = LeaseBorrower(ahead=2)
    assert not borrower.take()
    assert borrower.next_ask(0.0, waiting=1) == 3
    assert borrower.next_ask(0.0, waiting=1) == 0  # one question at a time
    borrower.receive(3, 0.0)
    assert borrower.take()
    assert borrower.spare == 2
    with pytest.raises(AssertionError):
        borrower.release(2)


def test_refused_borrower_asks_again_after_a_pause():
    borrower = LeaseBorrower(ahead=1)
    borrower.next_ask(0.0, waiting=1)
    borrower.receive(0, 0.0)
    assert borrower.next_ask(REFUSED_PAUSE_S / 2, waiting=1) == 0
    assert borrower.next_ask(REFUSED_PAUSE_S, waiting=1) == 2


def test_idle_borrower_gives_all_back():
    borrower = LeaseBorrower(ahead=2)
    borrower.next_ask(0.0, waiting=1)
    borrower.receive(3, 0.0)
    borrower.take()
    assert borrower.next_return() == 0
    borrower.release()
    assert borrower.next_return() == 3
    assert borrower.held == 0


def test_recalled_amounts_go_back_as_they_are_released():
    borrower = LeaseBorrower(ahead=0)
    borrower.next_ask(0.0, waiting=4)
    borrower.receive(4, 0.0)
    borrower.take(4)
    borrower.recall(2)
    assert borrower.next_return() == 0
    borrower.release()
    assert borrower.next_return() == 1
    borrower.release()
    assert borrower.next_return() == 1
    assert borrower.held == borrower.used == 2


shards = st.integers(0, 2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("work"), shards, st.integers(0, 5)),
        st.tuples(st.just("finish"), shards, st.integers(1, 5)),
        st.tuples(st.just("deliver"), shards, st.integers(1, 4)),
        st.tuples(st.just("kill"), shards, st.just(0)),
        st.tuples(st.just("kill owner"), st.just(0), st.just(0)),
        st.tuples(st.just("recall"), st.just(0), st.just(0)),
    ),
    max_size=120,
)


class Shards:
    """Three borrowers and an owner, with a queue of messages each way that a death empties."""

    LINGER_S = 5.0

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0.0
        self.owner = make_owner(limit)
        self.borrowers = [LeaseBorrower(2) for _ in range(3)]
        self.to_owner: list[list[tuple[str, int]]] = [[], [], []]
        self.to_borrower: list[list[tuple[str, int]]] = [[], [], []]
        self.lingering: list[tuple[float, int]] = []  # connections of the dead

    def out(self) -> int:
        return sum(each.used for each in self.borrowers) + sum(n for at, n in self.lingering if at > self.now)

    def work(self, shard: int, waiting: int) -> None:
        borrower = self.borrowers[shard]
        for _ in range(waiting):
            borrower.take()
        if ask := borrower.next_ask(self.now, waiting):
            self.to_owner[shard].append(("borrow", ask))
        if back := borrower.next_return():
            self.to_owner[shard].append(("return", back))

    def finish(self, shard: int, amount: int) -> None:
        borrower = self.borrowers[shard]
        borrower.release(min(amount, borrower.used))
        if back := borrower.next_return():
            self.to_owner[shard].append(("return", back))

    def deliver(self, shard: int, count: int) -> None:
        for _ in range(count):
            if self.to_owner[shard]:
                self.answer(shard, *self.to_owner[shard].pop(0))
            elif self.to_borrower[shard]:
                kind, amount = self.to_borrower[shard].pop(0)
                if kind == "grant":
                    self.borrowers[shard].receive(amount, self.now)
                else:
                    self.borrowers[shard].recall(amount)

    def answer(self, shard: int, kind: str, amount: int) -> None:
        if kind == "borrow":
            self.to_borrower[shard].append(("grant", self.owner.borrow(shard, amount, self.now)))
        elif kind == "return":
            self.owner.give_back(shard, amount)
        else:
            self.owner.report(shard, amount)

    def kill(self, shard: int, _amount: int) -> None:
        until = self.now + self.LINGER_S
        self.lingering.append((until, self.borrowers[shard].used))
        self.borrowers[shard] = LeaseBorrower(2)
        self.to_owner[shard].clear()
        self.to_borrower[shard].clear()
        self.owner.lose(shard, until)
        self.to_owner[shard].append(("report", 0))

    def kill_owner(self) -> None:
        """With the memory of what dead shards held: whoever starts it says how long to wait."""
        self.owner = LeaseOwner(self.limit, range(4))
        self.owner.lose(3, self.now + self.LINGER_S)
        for shard, borrower in enumerate(self.borrowers):
            self.to_owner[shard] = [("report", borrower.reconnect())]
            self.to_borrower[shard].clear()

    def recall(self) -> None:
        for shard, amount in self.owner.recalls(self.now).items():
            self.to_borrower[shard].append(("recall", amount))


@given(limit=st.integers(0, 12), steps=steps)
def test_never_more_out_than_the_limit_whatever_dies(limit, steps):
    shards = Shards(limit)
    for step, shard, amount in steps:
        shards.now += 0.3
        if step == "kill owner":
            shards.kill_owner()
        elif step == "recall":
            shards.recall()
        else:
            getattr(shards, step)(shard, amount)
        assert shards.out() <= limit


def test_lone_worker_comes_to_hold_the_whole_limit():
    shards = Shards(9)
    for _ in range(20):
        shards.now += 1.0
        shards.work(0, 5)
        shards.deliver(0, 4)
    assert shards.borrowers[0].used == 9
