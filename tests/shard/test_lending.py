"""lending: what is given away is on record before it goes, so that no crash sends it from two shards."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.envelope import Delivery
from engine.core.errors import NetworkError
from engine.delivery.handover import AGAIN_S, Handover
from engine.shard.lending import Lending
from tests.fakes.delivery_rig import Rig, make_delivery
from tests.fakes.rig_engine import make_engine, run_shard


class Shard:
    """A shard whose one peer answers when the test says so."""

    def __init__(self) -> None:
        self.rig = rig = Rig("[default]\nmax_connections = 1")
        rig.paths.hold_vmta("v1", "test", "nothing leaves from here", math.inf)
        self.asked: list[Callable[[Any, NetworkError | None], None]] = []
        self.keeper: int | None = 1
        engine = make_engine(rig, exchange=SimpleNamespace(keeper_of=lambda _delivery: self.keeper))
        self.lending = engine.lending = Lending(engine)
        engine.handover = Handover(
            lambda *request: self.asked.append(request[3]),
            lambda _delivery: None,
            self.lending.handed_over,
            self.lending.not_handed_over,
        )

    async def give(self) -> Delivery:
        """Give one delivery away, as far as the other shard's answer."""
        delivery = make_delivery()
        self.rig.accept(delivery)
        (site_queue,) = self.rig.sites
        assert site_queue.queue.pop() is delivery
        assert self.lending.give(delivery)
        assert not self.asked, "not before it is on record"
        self.rig.store.commit()
        await asyncio.sleep(0.01)
        return delivery

    def held(self, delivery: Delivery) -> str | None:
        self.rig.store.commit()
        kept = self.rig.store.load(delivery.key)
        return None if kept is None else kept.held


def test_what_is_given_away_is_on_record_before_it_is_offered() -> None:
    async def scenario(shard: Shard) -> None:
        delivery = await shard.give()
        assert len(shard.asked) == 1
        assert shard.held(delivery) == "shard 1"

    run_shard(Shard, scenario)


def test_what_has_arrived_leaves() -> None:
    async def scenario(shard: Shard) -> None:
        delivery = await shard.give()
        shard.asked[0]("stored", None)
        assert shard.held(delivery) is None

    run_shard(Shard, scenario)


@pytest.mark.parametrize(("phase", "held"), [("request", ""), ("lost", "shard 1")])
def test_what_was_refused_is_ours_alone_and_what_was_lost_perhaps_not(phase: str, held: str) -> None:
    async def scenario(shard: Shard) -> None:
        delivery = await shard.give()
        shard.asked[0](None, NetworkError(phase, "why"))
        await asyncio.sleep(AGAIN_S + 0.1)
        assert shard.held(delivery) == held
        assert delivery.key not in shard.rig.readahead.in_memory

    run_shard(Shard, scenario)


def test_nothing_is_given_where_nobody_can_take_it() -> None:
    async def scenario(shard: Shard) -> None:
        shard.keeper = None
        delivery = make_delivery()
        assert not shard.lending.give(delivery)
        assert not delivery.held

    run_shard(Shard, scenario)
