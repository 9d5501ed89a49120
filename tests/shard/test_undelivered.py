"""Deliveries that no session carried: each with its reason to the right end."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.envelope import Delivery
from engine.core.errors import ResolveTemporary
from engine.core.reply import Reply, make_reply
from engine.delivery.flight import NOBODY
from engine.queue.path import Path
from engine.shard.lending import Lending
from engine.shard.retrying import POISON
from engine.shard.undelivered import HELD_UNTIL, Undelivered
from engine.store.memory import MemoryStore
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import UNIX_START, Rig, make_delivery
from tests.fakes.rig_engine import make_engine
from tests.fakes.virtual_loop import run_virtually


class HalfEngine:
    """An engine of which only what hands deliveries over is there."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.counters = Counters()
        self.offered: list[Delivery] = []
        self.left: list[Delivery] = []
        self.had: set[bytes] = set()
        fakes: Any = self
        self.lending = Lending(fakes)
        self.undelivered = Undelivered(fakes)
        fakes.store = MemoryStore(clock=lambda: UNIX_START)
        fakes.orphans = SimpleNamespace(remember=lambda key: key in self.had)
        fakes.exchange = SimpleNamespace(is_keeper_here=lambda delivery: delivery.held == "shard 1")
        fakes.handover = SimpleNamespace(offer=lambda delivery: not self.offered.append(delivery))
        fakes.readahead = SimpleNamespace(left=self.left.append, in_memory=set())

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
        assert engine.undelivered.offer(delivery)
        assert engine.offered == [delivery]

    run_virtually(main())


def test_where_that_shard_is_no_more_its_store_knows() -> None:
    async def main() -> None:
        engine = HalfEngine()
        had, new = engine.put("shard 1"), engine.put("shard 1")
        engine.had.add(had.key)
        assert engine.undelivered.offer(had)
        assert engine.undelivered.offer(new)
        assert engine.left == []  # its caller has yet to note that it is under way
        await asyncio.sleep(0)
        assert engine.stored(had) is None
        kept = engine.stored(new)
        assert kept is not None
        assert kept.held == ""
        assert engine.left == [had, new]
        assert engine.offered == []

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
        undelivered = Undelivered(make_engine(rig, dispositions=rig.dispositions))
        undelivered.expire(make_delivery(), site_queue.policy_of("acme"), site_queue)
        undelivered.expire(make_delivery(), site_queue.policy_of("acme"), None)  # it waits on disk
        for event in rig.told("expired"):
            assert event.reply is not None
            assert (event.destination, event.site) == ("mx.x.example", "mx.x.example")
            assert event.reason == ("held: paused" if is_held else "")
            assert ("it waited for" in event.reply.text) is is_held
        assert rig.count("expired") == 2

    run_virtually(main())


@pytest.mark.parametrize(
    ("domain", "named"),
    [
        ("new.example", ("mx.new.example", "", "mx.new.example")),
        ("gmail.com", ("gmail", "gmail", "mx.gmail.com")),
        ("down.example", ("down.example", "", "")),
    ],
)
def test_what_expires_on_disk_names_its_destination(domain: str, named: tuple[str, str, str]) -> None:
    """Also where its ready queue is no more, or DNS does not answer."""

    async def main() -> None:
        rig = Rig()
        rig.resolver.sites["down.example"] = ResolveTemporary("down.example", "SERVFAIL")
        undelivered = Undelivered(make_engine(rig, dispositions=rig.dispositions))
        undelivered.expire(make_delivery(domain), rig.policy_for("acme", domain), None)
        (event,) = rig.told("expired")
        assert (event.destination, event.provider, event.site) == named
        assert event.reason == ""
        assert len(rig.sites) == 0

    run_virtually(main())


def test_poison_is_held_for_good_and_what_is_in_hand_or_held_already_is_left() -> None:
    async def main() -> None:
        engine = HalfEngine()
        poison, lent, in_hand = engine.put(), engine.put("shard 1"), engine.put()
        fakes: Any = engine
        fakes.readahead.in_memory.add(in_hand.key)
        engine.undelivered.hold_poison([poison.key, lent.key, in_hand.key, b"gone" * 4])
        held = [engine.stored(each) for each in (poison, lent, in_hand)]
        assert [each.held if each else None for each in held] == [POISON, "shard 1", ""]
        assert held[0] is not None
        assert held[0].due_at == HELD_UNTIL

    run_virtually(main())


@pytest.mark.parametrize(("is_permanent", "event"), [(True, "bounced"), (False, "deferred")])
def test_what_leads_nowhere_bounces_and_what_nobody_can_tell_waits(is_permanent: bool, event: str) -> None:
    async def main() -> None:
        rig = Rig()
        delivery = make_delivery()
        rig.store.put([delivery], delivery.message, lambda _: None)
        undelivered = Undelivered(make_engine(rig, dispositions=rig.dispositions, policy_for=rig.policy_for))
        reply = make_reply(
            550 if is_permanent else 451, "5.1.2" if is_permanent else "4.4.3", "no such domain"
        )
        undelivered.unresolved(delivery, reply, is_permanent)
        (told,) = rig.told(event)
        assert told.reply is not None
        assert told.reply.text == "no such domain"

    run_virtually(main())


@pytest.mark.parametrize(
    ("reply", "deferred", "bounced"),
    [
        (make_reply(451, "4.4.1", "connection refused"), 1, 0),  # the rest waits for its host
        (make_reply(550, "5.4.4", "no usable address"), 0, 3),
    ],
)
def test_an_unreachable_host_costs_one_delivery_its_try_and_a_hopeless_one_all(
    reply: Reply, deferred: int, bounced: int
) -> None:
    async def main() -> None:
        rig = Rig()
        rig.open_s = 100.0
        rig.accept(*[make_delivery() for _ in range(3)])
        await rig.run(0.1)
        (site_queue,) = rig.sites
        (path,) = site_queue.paths
        undelivered = Undelivered(make_engine(rig, dispositions=rig.dispositions))
        undelivered.unreachable([site_queue], reply, path, NOBODY)
        assert (rig.count("deferred"), rig.count("bounced")) == (deferred, bounced)
        rig.store.commit()
        assert rig.store.count() == 3 - bounced

    run_virtually(main())


def test_a_path_that_gets_nowhere_is_no_matter_where_another_of_the_pool_gets_through() -> None:
    async def main() -> None:
        rig = Rig(vmtas={"v1": 1})
        rig.accept(make_delivery())
        await rig.run(0.1)
        (site_queue,) = rig.sites
        (path,) = site_queue.paths
        assert path.sites[site_queue.site.name].sessions == 1
        Undelivered(make_engine(rig)).unreachable(
            [site_queue], make_reply(451, "4.4.1", "refused"), path, NOBODY
        )

    run_virtually(main())
