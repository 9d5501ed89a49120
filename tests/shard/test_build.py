"""build: what the engine of a shard does itself, between the objects that it has made."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.envelope import Delivery
from engine.queue.path import Path
from engine.shard.build import Engine
from engine.shard.lending import Lending
from engine.shard.upkeep import QUIET_S
from engine.store.memory import MemoryStore
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import UNIX_START, Rig, make_delivery, make_vmta
from tests.fakes.virtual_loop import run_virtually


class HalfEngine(Engine):
    """An engine of which only what hands deliveries over is there."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.shard = 0
        self.quiet_s = 0.5
        self.counters = Counters()
        self.offered: list[Delivery] = []
        self.left: list[Delivery] = []
        self.had: set[bytes] = set()
        fakes: Any = self
        self.lending = Lending(self)
        fakes.store = MemoryStore(clock=lambda: UNIX_START)
        fakes.orphans = SimpleNamespace(remember=lambda key: key in self.had)
        fakes.exchange = SimpleNamespace(is_keeper_here=lambda delivery: delivery.held == "shard 1")
        fakes.handover = SimpleNamespace(offer=lambda delivery: not self.offered.append(delivery))
        fakes.readahead = SimpleNamespace(left=self.left.append)

    def put(self, held: str = "") -> Delivery:
        delivery = make_delivery()
        delivery.held = held
        self.store.put([delivery], delivery.message, lambda _: None)
        self.store.commit()  # type: ignore[attr-defined]
        return delivery

    def stored(self, delivery: Delivery) -> Delivery | None:
        self.store.commit()  # type: ignore[attr-defined]
        return self.store.load(delivery.key)


def test_what_another_shard_may_have_is_on_record_before_it_is_offered_again() -> None:
    async def main() -> None:
        engine = HalfEngine()
        lost, refused = engine.put(), engine.put()
        engine.lending.not_handed_over(lost, 2)
        engine.lending.not_handed_over(refused, None)
        assert [engine.stored(each).held for each in (lost, refused)] == ["shard 2", ""]  # type: ignore[union-attr]
        assert engine.left == [lost, refused]

    run_virtually(main())


def test_a_delivery_goes_to_the_shard_that_may_have_it() -> None:
    async def main() -> None:
        engine = HalfEngine()
        delivery = engine.put("shard 2")
        assert engine._offer(delivery)
        assert engine.offered == [delivery]

    run_virtually(main())


def test_where_that_shard_is_no_more_its_store_knows() -> None:
    async def main() -> None:
        engine = HalfEngine()
        had, new = engine.put("shard 1"), engine.put("shard 1")
        engine.had.add(had.key)
        assert engine._offer(had)
        assert engine._offer(new)
        assert engine.left == []  # its caller has yet to note that it is under way
        await asyncio.sleep(0)
        assert engine.stored(had) is None
        kept = engine.stored(new)
        assert kept is not None
        assert kept.held == ""
        assert engine.left == [had, new]
        assert engine.offered == []

    run_virtually(main())


def test_what_comes_from_an_owner_that_has_not_let_go_is_quiet_at_first() -> None:
    async def main() -> None:
        engine = HalfEngine()
        ours = [make_vmta("mine"), make_vmta("new"), make_vmta("moved")]
        before = {"mine": 0, "moved": 1}
        assert engine._quiet_s(ours, {}, ()) == 0.5
        assert engine._quiet_s(ours, before, ()) == QUIET_S
        assert engine._quiet_s(ours, before, {"moved"}) == 0.0

    run_virtually(main())


@pytest.mark.parametrize("is_held", [False, True])
def test_what_expires_names_a_reason_only_where_something_stopped_it(is_held: bool) -> None:
    """Of a deferred message the last decision is that nothing waits: that is none."""

    async def main() -> None:
        rig = Rig()
        rig.accept(make_delivery())
        await rig.run(1.0)
        (site_queue,) = rig.sites
        (path,) = site_queue.paths
        assert isinstance(path, Path)
        rig.dispatcher.kick(path)
        assert rig.dispatcher.decisions[path].reason == "nothing waits"
        if is_held:
            path.hold("operator", "paused", math.inf)
        engine: Any = SimpleNamespace(loop=rig.loop, dispatcher=rig.dispatcher, dispositions=rig.dispositions)
        late = make_delivery()
        Engine._expire(engine, late, site_queue.policy_of("acme"), site_queue)
        (event,) = rig.told("expired")
        assert event.reply is not None
        assert event.reason == ("held: paused" if is_held else "")
        assert ("it waited for" in event.reply.text) is is_held

    run_virtually(main())
