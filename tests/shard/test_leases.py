"""leases: over all shards never more connections than the limit, whoever dies or starts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.delivery.session import SLOT_AFTER_OUR_CLOSE_S
from engine.queue.path import LeasedCap
from engine.shard.leases import AHEAD, OWNER, TICK_S, ConnectionLease
from tests.fakes.peer_links import FakeNetwork
from tests.fakes.virtual_loop import run_virtually

NAME = "max_connections in total"
STEP_S = 0.01


class Shard:
    """One shard that wants `wanted` connections and opens what its lease allows."""

    def __init__(self, network: FakeNetwork, number: int, limit: int, shards: int) -> None:
        self.number = number
        self.wanted = 0
        self.cap = LeasedCap(NAME, limit)
        self.lease = ConnectionLease(number, self.cap)
        self.kicked: list[Any] = []
        links = network.make_links(number, None, self.lease.handlers())
        self.lease.connect(links, self.kicked.append)  # type: ignore[arg-type]
        self.lease.use(limit, shards)

    def step(self) -> None:
        self.cap.in_use = min(self.cap.in_use, self.wanted)
        while self.cap.in_use < self.wanted:
            if self.cap.room <= 0:
                self.lease.wait(self, f"{NAME} {self.cap.limit} reached")  # type: ignore[arg-type]
                break
            self.cap.in_use += 1


class Cluster:
    """Shards over one network; the sum of what they hold is looked at all the time."""

    def __init__(self, limit: int, shards: int, latency_s: float = 0.001) -> None:
        self.network = FakeNetwork(latency_s)
        self.limit = limit
        self.count = shards
        self.shards: dict[int, Shard] = {}
        self.dead = 0
        for number in range(shards):
            self.start(number)

    def start(self, number: int) -> Shard:
        shard = self.shards[number] = Shard(self.network, number, self.limit, self.count)
        for other in self.shards.values():
            if other is not shard:
                other.lease.peer_changed(number, True)
                shard.lease.peer_changed(other.number, True)
        return shard

    def kill(self, number: int) -> int:
        """A shard dies; return how many connections it had borrowed."""
        shard = self.shards.pop(number)
        shard.lease.close()
        self.network.kill(number)
        for other in self.shards.values():
            other.lease.peer_changed(number, False)
        return shard.cap.borrowed

    @property
    def held(self) -> int:
        return sum(shard.cap.borrowed for shard in self.shards.values())

    @property
    def in_use(self) -> list[int]:
        return [shard.cap.in_use for shard in self.shards.values()]

    async def run(self, seconds: float, limit: int | None = None) -> None:
        """Let time pass; at no time is more held than the limit."""
        for _ in range(round(seconds / STEP_S)):
            for shard in self.shards.values():
                shard.step()
                assert shard.cap.in_use <= shard.cap.borrowed
            assert self.held <= (self.limit if limit is None else limit)
            await asyncio.sleep(STEP_S)

    def close(self) -> None:
        for shard in self.shards.values():
            shard.lease.close()


def test_two_shards_never_hold_more_than_the_limit() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        first, second = cluster.shards.values()
        for wanted in ((10, 10), (0, 10), (10, 0), (10, 10)):
            first.wanted, second.wanted = wanted
            await cluster.run(3.0)
            assert sum(cluster.in_use) == min(10, sum(wanted))
        cluster.close()

    run_virtually(scenario())


def test_what_nobody_uses_goes_back() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        cluster.shards[1].wanted = 8
        await cluster.run(1.0)
        assert cluster.in_use == [0, 8]
        cluster.shards[1].wanted = 0
        await cluster.run(1.0)
        assert cluster.held == 0
        cluster.close()

    run_virtually(scenario())


def test_some_are_in_hand_before_they_are_needed() -> None:
    async def scenario() -> None:
        cluster = Cluster(20, 2)
        cluster.shards[1].wanted = 1
        await cluster.run(0.5)
        assert cluster.shards[1].cap.borrowed == 1 + AHEAD
        cluster.close()

    run_virtually(scenario())


@pytest.mark.parametrize("number", [0, 1])
def test_a_path_that_waited_is_asked_again_when_there_is_more(number: int) -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        shard, path = cluster.shards[number], object()
        shard.lease.wait(path, f"{NAME} 10 reached")  # type: ignore[arg-type]
        await cluster.run(0.5)
        assert shard.kicked == [path]
        cluster.close()

    run_virtually(scenario())


def test_a_path_that_waits_for_another_cap_is_not_kept() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 1)
        shard = cluster.shards[0]
        shard.lease.wait(object(), "max_connections_per_shard 3 reached")  # type: ignore[arg-type]
        await cluster.run(3 * TICK_S)
        assert (shard.kicked, cluster.held) == ([], 0)
        cluster.close()

    run_virtually(scenario())


def test_what_a_dead_borrower_held_rests_as_long_as_peers_may_see_it() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        cluster.shards[1].wanted = 6
        await cluster.run(1.0)
        cluster.shards[0].wanted = 10
        rest = cluster.kill(1)
        assert rest >= 6
        await cluster.run(SLOT_AFTER_OUR_CLOSE_S - 0.2, limit=10 - rest)
        await cluster.run(1.0)
        assert cluster.in_use == [10]
        cluster.close()

    run_virtually(scenario())


def test_the_successor_of_a_dead_borrower_gets_no_more_meanwhile() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        cluster.shards[1].wanted = 10
        await cluster.run(1.0)
        rest = cluster.kill(1)
        cluster.start(1).wanted = 10
        await cluster.run(SLOT_AFTER_OUR_CLOSE_S - 0.2, limit=10 - rest)
        await cluster.run(1.0)
        assert cluster.in_use == [0, 10]
        cluster.close()

    run_virtually(scenario())


def test_a_new_owner_hears_all_before_it_grants() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 3)
        cluster.shards[1].wanted = 4
        await cluster.run(1.0)
        cluster.kill(OWNER)
        links = cluster.network.links[2]
        unheard = links.handlers.pop("lease-report"), links.handlers.pop("lease-held")
        links.handlers["lease-report"] = lambda _from, _body: None
        cluster.start(OWNER).wanted = 10
        await cluster.run(2.0)
        assert cluster.shards[OWNER].cap.borrowed == 0  # shard 2 has not said what it holds
        links.handlers["lease-report"], links.handlers["lease-held"] = unheard
        await cluster.run(2.0)
        assert cluster.shards[OWNER].cap.borrowed > 0
        cluster.close()

    run_virtually(scenario())


def test_a_borrower_waits_for_a_dead_owner_and_asks_the_next_one() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        cluster.shards[1].wanted = 2
        await cluster.run(1.0)
        cluster.kill(OWNER)
        cluster.shards[1].wanted = 9
        await cluster.run(1.0)
        assert cluster.in_use[0] < 9
        cluster.start(OWNER)
        await cluster.run(1.0)
        assert cluster.shards[1].cap.in_use == 9
        cluster.close()

    run_virtually(scenario())


def test_a_lower_limit_is_reached_as_connections_end() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        for shard in cluster.shards.values():
            shard.wanted = 5
        await cluster.run(2.0)
        for shard in cluster.shards.values():
            shard.lease.use(4, 2)
            shard.wanted = 2
        await cluster.run(1.0)
        assert cluster.held <= 4
        cluster.close()

    run_virtually(scenario())


def test_without_a_limit_nothing_is_borrowed() -> None:
    async def scenario() -> None:
        cluster = Cluster(0, 2)
        await asyncio.sleep(1.0)
        assert cluster.network.sent == []
        assert cluster.shards[1].cap.room > 1_000_000
        cluster.close()

    run_virtually(scenario())


def test_only_the_owner_lends() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        await cluster.run(1.0)
        assert cluster.shards[1].lease.handlers()["lease-ask"](0, [4, 0]) == 0
        cluster.close()

    run_virtually(scenario())


def test_a_grant_that_crosses_the_question_what_is_held_counts() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 0)
        cluster.count = 2
        owner = cluster.start(OWNER)  # asks everybody at its first tick
        await asyncio.sleep(cluster.network.latency_s / 2)
        borrower = cluster.start(1)  # asks half a way later: both questions are under way at once
        borrower.wanted = 5
        borrower.step()
        await asyncio.sleep(TICK_S + 5 * cluster.network.latency_s)
        borrower.step()
        for _ in range(10):
            owner.lease.wait(object(), NAME)  # type: ignore[arg-type]
        await cluster.run(3 * TICK_S)
        cluster.close()

    run_virtually(scenario())


def test_nothing_stays_unused_in_hand_while_another_shard_waits() -> None:
    async def scenario() -> None:
        cluster = Cluster(10, 2)
        cluster.shards[1].wanted = 4
        await cluster.run(1.0)
        cluster.shards[OWNER].wanted = 10
        await cluster.run(10.0)
        assert cluster.in_use == [6, 4]
        cluster.close()

    run_virtually(scenario())
