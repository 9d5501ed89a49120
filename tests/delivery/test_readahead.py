"""readahead: from disk into ready queues, within bounds, each delivery once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.envelope import Delivery
from engine.core.errors import ResolvePermanent, ResolveTemporary
from engine.core.reply import make_reply
from engine.core.terms import Terms
from engine.delivery.readahead import SLICE
from engine.delivery.resolving import MAX_RESOLVING, UNRESOLVED_RETRY_S
from engine.delivery.site_queue import SiteQueue
from engine.delivery.trickle import AT_ONCE, EVERY_S
from engine.net.site import Host, make_site
from engine.queue.path import Path, SiteDemand
from tests.fakes.delivery_rig import REFUSED, Rig, make_delivery
from tests.fakes.virtual_loop import run_virtually
from tests.fakes.wire import ScriptedPeer


class Still(Rig):
    """Nothing opens by itself: a test takes deliveries by hand."""

    def open(self, path: Path, demand: SiteDemand, queues: list[SiteQueue]) -> None:
        path.limits.slots.release(self.loop.time())
        self.loop.call_soon(self.dispatcher.failed_to_open, path, demand, queues, "not in this test")
        for cap in path.caps:
            cap.in_use -= 1

    def take(self, site_queue: SiteQueue) -> Delivery | None:
        path = site_queue.paths[0]
        demand = path.sites[site_queue.site.name]
        carrier: Any = SimpleNamespace(path=path, demand=demand, site_queues=[site_queue], messages=0)
        return self.dispatcher.take(carrier)

    def queue_of(self, domain: str = "x.example") -> SiteQueue:
        return next(each for each in self.sites if each.site.name == f"mx.{domain}")

    def ready(self) -> list[Delivery]:
        return [delivery for site_queue in self.sites for delivery in site_queue.queue]

    def deliver(self, delivery: Delivery) -> None:
        self.store.remove(delivery)
        self.store.commit()
        self.readahead.left(delivery)

    def defer(self, delivery: Delivery, seconds: float) -> None:
        self.store.amend(delivery, self.unix() + seconds)
        self.readahead.left(delivery)


def test_what_arrives_is_ready_at_once() -> None:
    async def main() -> None:
        rig = Still()
        delivery = make_delivery()
        rig.accept(delivery)
        assert rig.ready() == [delivery]

    run_virtually(main())


def test_held_message_is_ready_within_a_second_of_its_instant() -> None:
    """RFC 4865 4; peers that take submissions are held to a second either way."""

    async def main() -> None:
        rig = Still()
        rig.readahead.start()
        rig.accept(make_delivery(terms=Terms(hold_until=rig.unix() + 3600)))
        await rig.run(3599.5)
        assert rig.ready() == []
        await rig.run(1.0)
        assert len(rig.ready()) == 1
        rig.readahead.close()

    run_virtually(main())


def test_what_is_on_disk_at_the_start_is_found_by_the_scan() -> None:
    async def main() -> None:
        rig = Still()
        old = [make_delivery(f"d{number % 7}.example") for number in range(50)]
        for delivery in old:
            rig.store.put([delivery], delivery.message, lambda error: None)
        rig.store.commit()
        rig.readahead.start()
        await rig.run(1.0)
        assert sorted(each.key for each in rig.ready()) == sorted(each.key for each in old)
        rig.close()

    run_virtually(main())


def test_what_is_not_due_waits_on_disk_until_it_is() -> None:
    async def main() -> None:
        rig = Still()
        delivery = make_delivery()
        delivery.due_at += 10.0
        rig.store.put([delivery], delivery.message, lambda error: None)
        rig.store.commit()
        rig.readahead.start()
        await rig.run(9.5)
        assert not rig.ready()
        await rig.run(1.0)
        assert len(rig.ready()) == 1
        rig.close()

    run_virtually(main())


def test_above_ready_limit_deliveries_wait_on_disk_and_come_in_order() -> None:
    async def main() -> None:
        rig = Still("[default]\nready_limit = 10")
        rig.readahead.start()
        accepted = [make_delivery() for _ in range(100)]
        rig.accept(*accepted)
        await rig.run(1.0)
        assert len(rig.ready()) == 10
        taken = []
        while (delivery := rig.take(rig.queue_of())) is not None:
            taken.append(delivery)
            rig.deliver(delivery)
            await rig.run(0.01, 0.01)
        assert [each.key for each in taken] == [each.key for each in accepted]
        rig.close()

    run_virtually(main())


def test_later_arrivals_wait_behind_what_is_older() -> None:
    async def main() -> None:
        rig = Still("[default]\nready_limit = 2")
        first = [make_delivery() for _ in range(3)]
        rig.accept(*first)
        late = make_delivery()
        rig.take(rig.queue_of())
        rig.accept(late)
        assert late not in rig.ready()
        await rig.run(0.1)
        assert [each.key for each in rig.ready()] == [first[1].key, first[2].key]

    run_virtually(main())


def test_a_full_window_leaves_deliveries_on_disk_and_they_come_later() -> None:
    async def main() -> None:
        rig = Still(window=(20, 1 << 30))
        rig.readahead.start()
        rig.accept(*[make_delivery() for _ in range(100)])
        await rig.run(1.0)
        assert len(rig.ready()) <= 11  # one customer alone has half of it
        seen = set()
        while (delivery := rig.take(rig.queue_of())) is not None:
            assert delivery.key not in seen
            seen.add(delivery.key)
            rig.deliver(delivery)
            await rig.run(0.05)
        assert len(seen) == 100
        rig.close()

    run_virtually(main())


def test_no_customer_fills_the_window() -> None:
    async def main() -> None:
        rig = Still(window=(20, 1 << 30))
        rig.readahead.start()
        rig.accept(*[make_delivery(customer="blast") for _ in range(100)])
        await rig.run(1.0)
        rig.accept(make_delivery("y.example", customer="small"))
        assert any(each.envelope.customer == "small" for each in rig.ready())
        rig.close()

    run_virtually(main())


def test_a_busy_site_does_not_keep_the_window_from_another() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_connections = 2", window=(64, 1 << 30))
        rig.answer = lambda path, site: ScriptedPeer(latency_s=0.02)
        rig.readahead.start()
        rig.accept(*[make_delivery("big.example") for _ in range(1000)])
        await rig.run(1.0)
        rig.accept(*[make_delivery("small.example") for _ in range(3)])
        await rig.run(3.0)
        assert len(rig.messages(site="mx.small.example")) == 3
        assert len(rig.messages(site="mx.big.example")) < 900
        rig.close()

    run_virtually(main())


def test_while_the_window_is_full_of_others_a_ready_queue_is_not_asked_in_vain() -> None:
    async def main() -> None:
        rig = Still("[default]\nready_limit = 10", window=(1000, 1 << 30))
        rig.accept(*[make_delivery(f"d{number}.example") for number in range(200) for _ in range(2)])
        for number in range(300):
            rig.accept(make_delivery("x.example", customer=f"c{number % 3}"))
        await rig.run(0.1)
        reads = 0
        due_keys = rig.store.due_keys

        def count(*arguments: Any) -> Any:
            nonlocal reads
            reads += 1
            return due_keys(*arguments)

        rig.store.due_keys = count  # type: ignore[method-assign]
        await rig.run(5.0)
        assert reads == 0  # nothing left a ready queue

    run_virtually(main())


def test_domains_of_one_site_and_customer_take_turns() -> None:
    async def main() -> None:
        rig = Still("[default]\nready_limit = 40\n")
        site = rig.resolver._find("a.example")
        rig.resolver.sites = {f"{name}.example": site for name in "abcdefghij"}  # type: ignore[misc]
        for name in "abcdefghij":
            for _ in range(100):
                delivery = make_delivery(f"{name}.example")
                rig.store.put([delivery], delivery.message, lambda error: None)
        rig.store.commit()
        rig.readahead.start()
        await rig.run(1.0)
        ready = [each.domain for each in rig.ready()]
        assert {ready.count(f"{name}.example") for name in "abcdefghij"} == {4}
        rig.close()

    run_virtually(main())


def test_a_stopped_ready_queue_makes_room_and_is_read_on_when_a_session_opens() -> None:
    async def main() -> None:
        rig = Still()
        rig.accept(*[make_delivery() for _ in range(50)])
        rig.readahead.stopped(rig.queue_of())
        await rig.run(1.0)
        assert len(rig.ready()) == 1
        assert rig.window.count == 1
        rig.accept(*[make_delivery() for _ in range(5)])
        assert len(rig.ready()) == 1
        rig.queue_of().is_stopped = False
        rig.readahead.refill_soon(rig.queue_of())
        await rig.run(1.0)
        assert len(rig.ready()) == 55

    run_virtually(main())


def test_what_no_peer_looked_at_goes_back_to_the_head() -> None:
    async def main() -> None:
        rig = Still()
        first, second = make_delivery(), make_delivery()
        rig.accept(first, second)
        taken = rig.take(rig.queue_of())
        assert taken is first
        rig.readahead.ready_again(first, rig.queue_of())
        assert rig.ready() == [first, second]

    run_virtually(main())


def test_what_comes_back_to_a_ready_queue_of_the_past_is_found_again_on_disk() -> None:
    async def main() -> None:
        rig = Still()
        rig.readahead.start()
        delivery = make_delivery()
        rig.accept(delivery)
        old = rig.queue_of()
        taken = rig.take(old)
        assert taken is not None
        rig.readahead.put_all_back()
        rig.sites.clear(rig.pools, rig.share_of)
        rig.readahead.ready_again(taken, old)
        assert not rig.readahead.in_memory
        await rig.run(1.0)
        assert [each.key for each in rig.ready()] == [delivery.key]
        assert rig.queue_of() is not old
        rig.close()

    run_virtually(main())


def test_after_a_reload_what_waits_behind_a_message_in_flight_is_ready_too() -> None:
    async def main() -> None:
        rig = Still()
        rig.readahead.start()
        rig.accept(*[make_delivery() for _ in range(5)])
        in_flight = rig.take(rig.queue_of())
        rig.readahead.put_all_back()
        rig.sites.clear(rig.pools, rig.share_of)
        await rig.run(1.0)
        assert in_flight is not None
        assert len(rig.ready()) == 4
        assert in_flight.key not in {each.key for each in rig.ready()}
        rig.close()

    run_virtually(main())


def test_held_deliveries_are_passed_over() -> None:
    async def main() -> None:
        rig = Still()
        poison, good = make_delivery(), make_delivery()
        poison.held = "poison"
        for delivery in (poison, good):
            rig.store.put([delivery], delivery.message, lambda error: None)
        rig.store.commit()
        rig.readahead.start()
        await rig.run(1.0)
        assert [each.key for each in rig.ready()] == [good.key]
        rig.close()

    run_virtually(main())


def test_while_paused_nothing_is_read() -> None:
    async def main() -> None:
        rig = Still()
        rig.readahead.is_paused = True
        rig.readahead.start()
        rig.accept(make_delivery())
        await rig.run(1.0)
        assert not rig.ready()
        rig.readahead.is_paused = False
        await rig.run(1.0)
        assert len(rig.ready()) == 1
        rig.close()

    run_virtually(main())


# -- a backlog for sites that do not accept --------------------------------------------------------


def store_backlog(rig: Rig, sites: int, queues: int, messages: int = 2) -> None:
    """Store so many messages for each of so many domains at each of so many sites."""
    for site in range(sites):
        for number in range(queues):
            rig.resolver.sites[f"d{number}.s{site}.example"] = make_site([Host(f"mx.s{site}.example")])
            for _ in range(messages):
                delivery = make_delivery(f"d{number}.s{site}.example")
                rig.store.put([delivery], delivery.message, lambda error: None)
    rig.store.commit()


def count_calls(rig: Rig, name: str) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    method = getattr(rig.store, name)

    def note(*arguments: Any) -> Any:
        calls.append(arguments)
        return method(*arguments)

    setattr(rig.store, name, note)
    return calls


def test_sites_that_nobody_has_met_get_one_each_while_the_window_fills() -> None:
    async def main() -> None:
        rig = Still(window=(160, 1 << 30))  # of which one customer may have 80
        store_backlog(rig, sites=30, queues=2)
        rig.readahead.start()
        await rig.run(1.0)
        ready = [len(site_queue.queue) for site_queue in rig.sites]
        assert len(ready) == 30
        assert min(ready) == 1  # where each gets all of its 4, the last ten have none
        assert rig.window.count < 80
        rig.close()

    run_virtually(main())


def test_a_site_gets_the_rest_when_a_session_opens() -> None:
    async def main() -> None:
        rig = Rig(window=(80, 1 << 30))
        rig.answer = lambda path, site: ScriptedPeer() if "s29." in site else REFUSED
        for site in range(30):
            for _ in range(20):
                delivery = make_delivery(f"s{site}.example")
                rig.store.put([delivery], delivery.message, lambda error: None)
        rig.store.commit()
        rig.readahead.start()
        await rig.run(1.0)
        assert len(rig.messages(site="mx.s29.example")) == 20
        assert [each.site.name for each in rig.sites if not each.is_untried] == ["mx.s29.example"]
        rig.close()

    run_virtually(main())


def test_a_try_at_a_dead_site_loads_one_delivery() -> None:
    async def main() -> None:
        rig = Rig()
        rig.answer = lambda path, site: REFUSED
        for _ in range(200):
            delivery = make_delivery()
            rig.store.put([delivery], delivery.message, lambda error: None)
        rig.store.commit()
        rig.readahead.start()
        await rig.run(0.5)
        loads = count_calls(rig, "load")
        tries = rig.count("deferred")
        await rig.run(120.0)
        assert rig.count("deferred") - tries >= 5
        assert len(loads) <= rig.count("deferred") - tries + 1
        rig.close()

    run_virtually(main())


def test_dead_sites_get_their_next_delivery_a_few_at_a_time() -> None:
    async def main() -> None:
        rig = Rig()
        rig.answer = lambda path, site: REFUSED
        store_backlog(rig, sites=10 * AT_ONCE, queues=1, messages=3)
        rig.readahead.start()
        while rig.count("deferred") < 20 * AT_ONCE:  # the second try took the last that each had ready
            await asyncio.sleep(0.001)
        loads = count_calls(rig, "load")
        await asyncio.sleep(4 * EVERY_S)
        assert 3 * AT_ONCE <= len(loads) <= 5 * AT_ONCE
        await asyncio.sleep(8 * EVERY_S)
        assert len(loads) == 10 * AT_ONCE
        rig.close()

    run_virtually(main())


def test_the_further_queues_of_a_site_cost_no_read() -> None:
    async def main() -> None:
        rig = Still("[default]\nready_limit = 4")
        store_backlog(rig, sites=1, queues=200)
        asked: list[SiteQueue] = []
        refill_soon = rig.readahead.refill_soon

        def note(site_queue: SiteQueue) -> None:
            asked.append(site_queue)
            refill_soon(site_queue)

        rig.readahead.refill_soon = note  # type: ignore[method-assign]
        rig.readahead.start()
        await rig.run(0.05)
        assert len(rig.readahead._behind_of) == 198
        assert len(asked) == 1
        rig.close()

    run_virtually(main())


# -- resolving --------------------------------------------------------------------------------------


def test_deliveries_of_one_domain_share_a_look_up() -> None:
    async def main() -> None:
        rig = Still()
        rig.resolver.is_warm = False
        rig.accept(*[make_delivery() for _ in range(10)])
        assert not rig.ready()
        await rig.run(0.1)
        assert len(rig.ready()) == 10
        assert rig.resolver.asked == ["x.example"]

    run_virtually(main())


def test_more_than_wait_for_a_look_up_come_from_disk() -> None:
    async def main() -> None:
        rig = Still()
        rig.resolver.is_warm = False
        rig.readahead.start()
        rig.accept(*[make_delivery() for _ in range(SLICE + 20)])
        assert len(rig.readahead.in_memory) == SLICE
        await rig.run(1.0)
        assert len(rig.ready()) == SLICE + 20
        rig.close()

    run_virtually(main())


def test_a_domain_that_can_not_receive_mail_bounces() -> None:
    async def main() -> None:
        rig = Still()
        no = make_reply(556, "5.1.10", "null MX")
        rig.resolver.sites["x.example"] = ResolvePermanent("x.example", "null MX", no)
        rig.accept(make_delivery())
        await rig.run(0.1)
        assert [(event.event, event.reply) for event in rig.events] == [("bounced", no)]
        assert rig.store.count() == 0
        assert rig.window.count == 0

    run_virtually(main())


def test_a_domain_that_does_not_resolve_now_is_deferred_and_not_asked_at_every_message() -> None:
    async def main() -> None:
        rig = Still()
        rig.readahead.start()
        rig.resolver.sites["x.example"] = ResolveTemporary("x.example", "SERVFAIL")
        rig.accept(make_delivery())
        await rig.run(1.0)
        assert [str(event.reply) for event in rig.events] == ["451 4.4.3 x.example: SERVFAIL"]
        rig.accept(*[make_delivery() for _ in range(5)])
        await rig.run(UNRESOLVED_RETRY_S / 2)
        assert rig.resolver.asked == ["x.example"]
        assert rig.count("deferred") == 1
        del rig.resolver.sites["x.example"]
        await rig.run(UNRESOLVED_RETRY_S)
        assert len(rig.ready()) == 5
        rig.close()

    run_virtually(main())


def test_a_domain_that_does_not_resolve_is_asked_again_when_its_delivery_is_due() -> None:
    async def main() -> None:
        rig = Still('[default]\nretry = ["2s"]\n')
        rig.readahead.start()
        rig.resolver.sites["x.example"] = ResolveTemporary("x.example", "SERVFAIL")
        rig.accept(make_delivery())
        await rig.run(1.0)
        assert (rig.resolver.asked, rig.ready()) == (["x.example"], [])
        del rig.resolver.sites["x.example"]
        await rig.run(3.0)
        assert len(rig.ready()) == 1
        rig.close()

    run_virtually(main())


def test_a_failure_that_is_forgotten_keeps_nothing_waiting() -> None:
    async def main() -> None:
        rig = Still()
        rig.resolver.is_warm = False
        rig.readahead.start()
        rig.resolver.sites["x.example"] = ResolveTemporary("x.example", "SERVFAIL")
        delivery = make_delivery()
        rig.accept(delivery)
        await rig.run(1.0)
        del rig.resolver.sites["x.example"]
        rig.readahead.arrived(delivery)
        assert rig.ready() == []
        rig.readahead.forget_failure("x.example")
        rig.readahead.arrived(delivery)
        await rig.run(0.1)
        assert rig.ready() == [delivery]
        rig.close()

    run_virtually(main())


def test_look_ups_under_way_are_bounded_and_none_is_forgotten() -> None:
    async def main() -> None:
        rig = Still(window=(10_000, 1 << 30))
        rig.resolver.is_warm = False
        rig.readahead.start()
        count = MAX_RESOLVING // 2 + 50
        rig.accept(*[make_delivery(f"d{number}.example") for number in range(count)])
        assert len(rig.readahead.in_memory) == MAX_RESOLVING // 2
        await rig.run(1.0)
        assert len(rig.ready()) == count
        rig.close()

    run_virtually(main())


# -- what is not carried here -------------------------------------------------------------------------


def test_what_no_vmta_here_carries_is_offered_and_stays_out_of_ready_queues() -> None:
    async def main() -> None:
        rig = Still()
        delivery = make_delivery(pool="elsewhere")
        rig.accept(delivery)
        assert rig.foreign == [delivery]
        assert not rig.ready()
        assert not rig.readahead.in_memory

    run_virtually(main())


def test_what_is_being_handed_over_counts_as_in_memory() -> None:
    async def main() -> None:
        rig = Still()
        rig.take_foreign = lambda delivery: True  # type: ignore[method-assign]
        rig.readahead._on_foreign = rig.take_foreign
        delivery = make_delivery(pool="elsewhere")
        rig.accept(delivery)
        assert list(rig.readahead.in_memory) == [delivery.key]
        assert rig.window.count == 1
        rig.readahead.left(delivery)
        rig.readahead.left(delivery)
        assert rig.window.count == 0

    run_virtually(main())


# -- against a naive model ----------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("arrive"), st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("blast"), st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("take"), st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.sampled_from(["deliver", "defer", "back"]), st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.sampled_from(["stop", "open"]), st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.sampled_from(["commit", "reload", "wait", "moment"]), st.just(0), st.just(0)),
)


class Naive:
    """What must have become of each delivery, whatever happens."""

    def __init__(self, rig: Still) -> None:
        self.rig = rig
        self.accepted: set[bytes] = set()
        self.delivered: list[bytes] = []
        self.in_flight: list[tuple[Delivery, SiteQueue]] = []

    def put(self, customer: int, domain: int) -> None:
        delivery = make_delivery(f"d{domain}.example", customer=f"c{customer}", now=self.rig.unix())
        self.accepted.add(delivery.key)
        self.rig.accept(delivery)

    def take(self, number: int) -> None:
        site_queues = list(self.rig.sites)
        if site_queues:
            site_queue = site_queues[number % len(site_queues)]
            delivery = self.rig.take(site_queue)
            if delivery is not None:
                self.in_flight.append((delivery, site_queue))

    def settle(self, how: str, number: int) -> None:
        if not self.in_flight:
            return
        delivery, site_queue = self.in_flight.pop(number % len(self.in_flight))
        if how == "deliver":
            self.rig.store.remove(delivery)
            self.rig.readahead.left(delivery)
            self.delivered.append(delivery.key)
        elif how == "defer":
            self.rig.defer(delivery, 2.0)
        else:
            self.rig.readahead.ready_again(delivery, site_queue)

    def stop_or_open(self, how: str, number: int) -> None:
        site_queues = list(self.rig.sites)
        if site_queues:
            site_queue = site_queues[number % len(site_queues)]
            if how == "stop":
                self.rig.readahead.stopped(site_queue)
            else:
                site_queue.is_stopped = False
                self.rig.readahead.refill_soon(site_queue)

    def reload(self) -> None:
        self.rig.readahead.put_all_back()
        self.rig.sites.clear(self.rig.pools, self.rig.share_of)

    def check(self) -> None:
        ready = [each.key for each in self.rig.ready()]
        flying = [each.key for each, _ in self.in_flight]
        resolving = [each.key for each in self.rig.readahead._resolving]
        everywhere = ready + flying + resolving
        assert len(everywhere) == len(set(everywhere))
        assert set(everywhere) == set(self.rig.readahead.in_memory)
        assert self.rig.window.count == len(everywhere)
        assert not set(everywhere) & set(self.delivered)
        behind = {name for each in self.rig.sites for queues in each.behind.values() for name in queues}
        assert behind == set(self.rig.readahead._behind_of)

    async def finish(self) -> None:
        while self.in_flight:
            self.settle("deliver", 0)
        for _ in range(200):
            await self.rig.run(0.5, 0.5)
            for number, site_queue in enumerate(list(self.rig.sites)):
                self.stop_or_open("open", number)
                while site_queue.queue:
                    self.take(number)
                    self.settle("deliver", 0)
            self.check()
            if len(self.delivered) == len(self.accepted):
                break
        self.rig.store.commit()


@pytest.mark.parametrize("is_warm", [True, False])
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
def test_nothing_is_lost_and_nothing_is_ready_twice(is_warm: bool, steps: list[tuple[str, int, int]]) -> None:
    async def main() -> None:
        rig = Still("[default]\nready_limit = 5", window=(16, 1 << 30))
        rig.resolver.is_warm = is_warm
        rig.readahead.start()
        model = Naive(rig)
        for name, first, second in steps:
            if name in ("arrive", "blast"):
                for _ in range(1 if name == "arrive" else 12):
                    model.put(first, second)
            elif name == "take":
                model.take(first)
            elif name in ("deliver", "defer", "back"):
                model.settle(name, first)
            elif name in ("stop", "open"):
                model.stop_or_open(name, first)
            elif name == "reload":
                model.reload()
            elif name == "commit":
                rig.store.commit()
            else:
                await rig.run(2.5 if name == "wait" else 0.02, 0.25)
            model.check()
        await model.finish()
        assert sorted(model.delivered) == sorted(model.accepted)
        assert rig.store.count() == 0
        rig.close()

    run_virtually(main())
