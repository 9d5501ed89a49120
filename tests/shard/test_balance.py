"""balance: a backlog on one shard is carried by the vmtas of all, and moves once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from engine.core.envelope import Delivery
from engine.delivery.handover import Handover, unpack
from engine.shard.balance import ASK, EVERY_S, MAX_GIVEN, TELL, Balance
from engine.shard.lending import Lending
from tests.fakes.delivery_rig import Rig, make_delivery
from tests.fakes.peer_links import FakeNetwork
from tests.fakes.rig_engine import make_engine
from tests.fakes.virtual_loop import run_virtually

RATED = '[default]\nmax_message_rate = "10/2s"\n'


class Shard:
    """One shard with a vmta of its own of the one pool, over a store and peers in memory."""

    def __init__(self, network: FakeNetwork, number: int, policy: str) -> None:
        self.rig = rig = Rig(policy, vmtas={f"v{number}": 1})
        self.taken: list[Delivery] = []
        self.is_shared = True
        self.exchange = SimpleNamespace(owner_of=lambda pool: 1 - number if self.is_shared else None)
        engine = make_engine(rig, exchange=self.exchange)
        self.lending = engine.lending = Lending(engine)
        self.handover = engine.handover = Handover(
            self._send, lambda delivery: None, self.lending.handed_over, self.lending.not_handed_over
        )
        self.balance = Balance(engine)
        handlers = self.balance.handlers() | {"handover": self._take}
        self.exchange.peers = self._links = network.make_links(number, handlers=handlers)
        self.balance.open()

    def _send(self, shard: int, kind: str, body: Any, done: Any, size_bytes: int) -> None:
        self._links.send(shard, kind, body, done, size_bytes)

    def _take(self, _shard: int, octets: bytes) -> str:
        (delivery,) = unpack(octets)[2]
        self.taken.append(delivery)
        self.rig.accept(delivery)
        return "stored"

    @property
    def sent(self) -> int:
        return self.rig.count("delivered")


class Pair:
    """Two shards with a vmta each."""

    def __init__(self, policy: str) -> None:
        self.network = FakeNetwork()
        self.shards = [Shard(self.network, number, policy) for number in range(2)]

    async def run(self, seconds: float) -> None:
        await asyncio.gather(*[shard.rig.run(seconds) for shard in self.shards])

    def close(self) -> None:
        for shard in self.shards:
            shard.balance.close()
            shard.rig.close()


def run(scenario: Callable[[Pair], Any], policy: str = RATED) -> None:
    async def begin() -> None:
        pair = Pair(policy)
        await scenario(pair)
        pair.close()

    run_virtually(begin())


def test_a_backlog_on_one_shard_uses_the_allowance_of_both() -> None:
    async def scenario(pair: Pair) -> None:
        full, idle = pair.shards
        full.rig.accept(*[make_delivery() for _ in range(200)])
        await pair.run(16.0)
        assert full.sent >= 0.9 * 5 * 16
        assert idle.sent >= 0.9 * 5 * 16 - 5 * EVERY_S
        await pair.run(8.0)
        assert full.sent + idle.sent == 200
        assert full.rig.store.count() == idle.rig.store.count() == 0

    run(scenario)


def test_what_was_handed_over_is_not_handed_on() -> None:
    """Of a backlog of both kinds only what was accepted there goes."""

    async def scenario(pair: Pair) -> None:
        first, second = pair.shards
        guests, own = ([make_delivery() for _ in range(30)] for _ in range(2))
        for delivery in guests:
            delivery.is_remembered = True
        second.rig.accept(*guests, *own)
        await pair.run(0.1)
        second.balance._give(0, [["pool", "acme", "x.example", 1000, 5.0]])
        await pair.run(0.1)
        assert first.taken
        assert {delivery.key for delivery in first.taken} <= {delivery.key for delivery in own}

    run(scenario)


def test_two_shards_that_both_have_enough_leave_each_other_alone() -> None:
    async def scenario(pair: Pair) -> None:
        for shard in pair.shards:
            shard.rig.accept(*[make_delivery() for _ in range(100)])
        await pair.run(10.0)
        assert pair.network.bodies(TELL)
        assert pair.network.bodies(ASK) == []

    run(scenario)


def test_a_backlog_that_its_own_paths_carry_soon_is_not_told() -> None:
    async def scenario(pair: Pair) -> None:
        pair.shards[0].rig.accept(*[make_delivery() for _ in range(9)])
        await pair.run(5.0)
        assert pair.network.bodies(TELL) == []

    run(scenario)


def test_a_pool_of_one_shard_is_its_own_affair() -> None:
    async def scenario(pair: Pair) -> None:
        pair.shards[0].is_shared = False
        pair.shards[0].rig.accept(*[make_delivery() for _ in range(100)])
        await pair.run(5.0)
        assert pair.network.bodies(TELL) == []

    run(scenario)


def test_a_shard_whose_paths_are_held_asks_for_nothing() -> None:
    async def scenario(pair: Pair) -> None:
        pair.shards[1].rig.paths.hold_vmta("v1", "operator", "paused", 1e9)
        pair.shards[0].rig.accept(*[make_delivery() for _ in range(100)])
        await pair.run(5.0)
        assert pair.network.bodies(TELL)
        assert pair.network.bodies(ASK) == []

    run(scenario)


def test_a_domain_that_a_shard_has_not_met_is_looked_up_first() -> None:
    async def scenario(pair: Pair) -> None:
        full, idle = pair.shards
        idle.rig.resolver.is_warm = False
        full.rig.accept(*[make_delivery() for _ in range(100)])
        await pair.run(3.0)
        assert idle.rig.resolver.asked == ["x.example"]
        assert idle.taken

    run(scenario)


def test_what_moves_in_a_round_is_bounded() -> None:
    async def scenario(pair: Pair) -> None:
        full, idle = pair.shards
        full.rig.accept(*[make_delivery() for _ in range(900)])
        rounds = 0
        before = 0
        for _ in range(4):
            await pair.run(EVERY_S)
            rounds += len(idle.taken) > before
            assert len(idle.taken) - before <= MAX_GIVEN
            before = len(idle.taken)
        assert rounds

    run(scenario, '[default]\nmax_message_rate = "100/s"\nmax_connections = 100\nready_limit = 1000')


def test_a_shard_that_stops_neither_gives_nor_asks() -> None:
    async def scenario(pair: Pair) -> None:
        full, idle = pair.shards
        full.rig.accept(*[make_delivery() for _ in range(100)])
        idle.rig.dispatcher.is_paused = True
        await pair.run(2.0)
        assert pair.network.bodies(ASK) == []
        full.rig.dispatcher.is_paused = True
        full.balance._give(1, [["pool", "acme", "x.example", 50, 5.0]])
        await pair.run(1.0)
        assert idle.taken == []

    run(scenario)
