"""dispatcher: which session takes what, which path opens sessions, who waits for whom."""

from __future__ import annotations

import asyncio
import math

import pytest

from engine.delivery.dispatcher import CAP_RECHECK_S
from engine.net.site import Host, make_site
from engine.queue.ceilings import Ceiling
from engine.queue.path import Cap
from tests.fakes.delivery_rig import REFUSED, Rig, make_delivery
from tests.fakes.virtual_loop import run_virtually
from tests.fakes.wire import ScriptedPeer

ONE_PROVIDER = """
[provider.big]
domains = ["one.example", "two.example", "three.example"]
max_connections = 1
"""


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """Return how many spans overlap at most."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


class Connections:
    """Peers that note from when to when each was connected."""

    def __init__(self, rig: Rig, latency_s: float = 0.01) -> None:
        self.spans: list[tuple[float, float]] = []
        self._rig = rig
        self._latency_s = latency_s
        rig.answer = lambda path, site: self.make()

    def make(self) -> ScriptedPeer:
        peer = ScriptedPeer(latency_s=self._latency_s)
        opened_at = self._rig.loop.time()
        peer.on_over = lambda: self.spans.append((opened_at, self._rig.loop.time()))
        return peer


def test_what_arrives_is_delivered_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        rig = Rig()
        rig.accept(*[make_delivery() for _ in range(50)])
        await rig.run(3.0)
        assert (rig.count("delivered"), len(rig.events), rig.store.count()) == (50, 50, 0)
        assert not rig.readahead.in_memory
        assert rig.window.count == 0
        await rig.run(60.0)
        assert not rig.sessions

    run_virtually(main())


def test_one_message_opens_one_session_and_the_next_uses_it() -> None:
    async def main() -> None:
        rig = Rig()
        for _ in range(5):
            rig.accept(make_delivery())
            await rig.run(1.0)
        assert rig.count("delivered") == 5
        assert len(rig.peers) == 1

    run_virtually(main())


def test_max_connections_holds_as_the_peer_sees_it() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_connections = 3\nmax_messages_per_connection = 4\nidle_timeout = '2s'")
        connections = Connections(rig)
        rig.accept(*[make_delivery() for _ in range(100)])
        await rig.run(30.0)
        assert rig.count("delivered") == 100
        assert most_at_once(connections.spans) == 3
        assert len(connections.spans) >= 25

    run_virtually(main())


def test_a_rate_is_paced_and_used() -> None:
    async def main() -> None:
        rig = Rig('[default]\nmax_message_rate = "20/s"')
        rig.accept(*[make_delivery() for _ in range(200)])
        await rig.run(12.0)
        times = sorted(at for _, _, at in rig.messages())
        assert len(times) == 200
        assert all(late - early >= 1.0 for early, late in zip(times, times[20:], strict=False))
        assert times[-1] - times[0] < 10.6

    run_virtually(main())


def test_two_sites_of_one_path_with_one_connection_both_drain() -> None:
    async def main() -> None:
        rig = Rig(ONE_PROVIDER)
        connections = Connections(rig, latency_s=0.04)
        rig.accept(*[make_delivery("one.example") for _ in range(300)])
        await rig.run(0.5)
        rig.accept(*[make_delivery("two.example") for _ in range(5)])
        await rig.run(8.0)
        assert len(rig.messages(site="mx.two.example")) == 5
        assert len(rig.messages(site="mx.one.example")) < 300
        await rig.run(60.0)
        assert rig.count("delivered") == 305
        assert most_at_once(connections.spans) == 1

    run_virtually(main())


def test_three_sites_of_one_path_with_one_connection_take_turns() -> None:
    async def main() -> None:
        rig = Rig(ONE_PROVIDER)
        Connections(rig, latency_s=0.04)
        rig.readahead.start()
        for domain in ("one.example", "two.example", "three.example"):
            rig.accept(*[make_delivery(domain) for _ in range(300)])
        await rig.run(30.0)
        counts = [len(rig.messages(site=f"mx.{name}.example")) for name in ("one", "two", "three")]
        assert min(counts) > 0.5 * max(counts)
        await rig.run(90.0)
        assert rig.count("delivered") == 900
        rig.close()

    run_virtually(main())


def test_one_session_at_a_time_makes_room_for_a_starved_site() -> None:
    async def main() -> None:
        rig = Rig(ONE_PROVIDER.replace("max_connections = 1", "max_connections = 5"))
        rig.accept(*[make_delivery("one.example") for _ in range(800)])
        await rig.run(0.5)
        rig.accept(make_delivery("two.example"))
        before = len(rig.peers)
        await rig.run(1.0)
        assert len(rig.messages(site="mx.two.example")) == 1
        assert len(rig.peers) - before <= 3

    run_virtually(main())


def test_sessions_never_cross_sites() -> None:
    async def main() -> None:
        rig = Rig(ONE_PROVIDER)
        for domain in ("one.example", "two.example"):
            rig.accept(*[make_delivery(domain) for _ in range(50)])
        await rig.run(30.0)
        for _, site, peer in rig.peers:
            assert all(to.endswith(site.removeprefix("mx.")) for _, tos, _ in peer.messages for to in tos)
        assert rig.count("delivered") == 100

    run_virtually(main())


def test_weights_hold_between_idle_vmtas() -> None:
    async def main() -> None:
        rig = Rig(vmtas={"v1": 3, "v2": 1})
        for _ in range(400):
            rig.accept(make_delivery())
            await rig.run(0.05)
        assert rig.count("delivered") == 400
        assert len(rig.messages("v1")) == pytest.approx(300, abs=15)

    run_virtually(main())


def test_a_backlog_is_carried_by_all_vmtas_at_once() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_connections = 1", vmtas={"v1": 1, "v2": 1})
        rig.answer = lambda path, site: ScriptedPeer(latency_s=0.1)
        rig.accept(*[make_delivery() for _ in range(10)])
        await rig.run(10.0)
        first = rig.loop.time()
        rig.accept(*[make_delivery() for _ in range(100)])
        while rig.count("delivered") < 110:
            await rig.run(0.1)
        assert rig.loop.time() - first < 100 * 0.2 * 0.6
        assert len(rig.messages("v1")) == pytest.approx(55, abs=12)

    run_virtually(main())


def test_a_vmta_that_is_ahead_goes_on_while_there_is_work_for_both() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_connections = 1", vmtas={"v1": 1, "v2": 1})
        rig.answer = lambda path, site: ScriptedPeer(latency_s=0.1)
        rig.accept(make_delivery(), make_delivery())
        await rig.run(2.0)
        (site_queue,) = rig.sites
        rig.dispatcher.widening.widen(site_queue)
        first, second = site_queue.paths
        site_queue.passes[first] = site_queue.passes[second] + 20.0
        rig.accept(*[make_delivery() for _ in range(20)])
        await rig.run(0.15)
        assert all(path.sites["mx.x.example"].idle == 0 for path in site_queue.paths)

    run_virtually(main())


def test_mail_does_not_strand_behind_a_held_vmta() -> None:
    async def main() -> None:
        rig = Rig(vmtas={"v1": 1, "v2": 1})
        rig.paths.hold_vmta("v1", "op", "paused", math.inf)
        rig.accept(*[make_delivery() for _ in range(20)])
        await rig.run(5.0)
        assert len(rig.messages("v2")) == 20
        assert not rig.messages("v1")

    run_virtually(main())


def test_a_held_vmta_goes_on_when_it_is_released() -> None:
    async def main() -> None:
        rig = Rig()
        rig.paths.hold_vmta("v1", "op", "paused by an operator", math.inf)
        rig.accept(make_delivery())
        await rig.run(5.0)
        assert not rig.peers
        (path,) = rig.paths.paths.values()
        assert rig.dispatcher.decisions[path].reason == "held: paused by an operator"
        assert rig.dispatcher.refusals == {"held: paused by an operator": 1}
        for each in rig.paths.release_vmta("v1", "op"):
            rig.dispatcher.kick(each)
        await rig.run(1.0)
        assert rig.count("delivered") == 1

    run_virtually(main())


def test_a_hold_with_an_end_needs_nobody_to_release_it() -> None:
    async def main() -> None:
        rig = Rig()
        rig.paths.hold_vmta("v1", "slow", "slow down", rig.loop.time() + 30.0)
        rig.accept(make_delivery())
        await rig.run(29.0)
        assert not rig.peers
        await rig.run(2.0)
        assert rig.count("delivered") == 1

    run_virtually(main())


def test_a_session_takes_nothing_while_its_path_is_held() -> None:
    async def main() -> None:
        rig = Rig()
        rig.answer = lambda path, site: ScriptedPeer(latency_s=0.1)
        rig.accept(*[make_delivery() for _ in range(200)])
        await rig.run(1.0)
        rig.paths.hold_vmta("v1", "op", "paused", math.inf)
        await rig.run(1.0)
        taken = len(rig.messages())
        await rig.run(3.0)
        assert len(rig.messages()) == taken
        assert rig.count("deferred") == 0

    run_virtually(main())


def test_customers_take_turns() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_connections = 1")
        rig.answer = lambda path, site: ScriptedPeer(latency_s=0.05)
        rig.accept(*[make_delivery(customer="blast", sender="b@blast.example") for _ in range(300)])
        await rig.run(0.5)
        rig.accept(make_delivery(customer="small", sender="s@small.example"))
        asked_at = rig.loop.time()
        await rig.run(2.0)
        times = [at for sender, _, at in rig.messages() if sender == "s@small.example"]
        assert len(times) == 1
        assert times[0] - asked_at < 0.5

    run_virtually(main())


def test_shares_of_customers_are_kept() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_connections = 1", share_of={"a": 3, "b": 1}.__getitem__)
        rig.answer = lambda path, site: ScriptedPeer(latency_s=0.01)
        for customer in "ab":
            rig.accept(*[make_delivery(customer=customer, sender=f"{customer}@x") for _ in range(400)])
        while len(rig.messages()) < 400:
            await rig.run(0.1)
        senders = [sender for sender, _, _ in rig.messages()][:400]
        assert senders.count("a@x") == pytest.approx(300, abs=10)

    run_virtually(main())


def test_a_peer_that_says_421_ends_one_session_and_others_carry_on() -> None:
    async def main() -> None:
        rig = Rig("[default]\nretry = ['1m']")
        said: list[str] = []

        def answer(*_: object) -> ScriptedPeer:
            script = (lambda command: "421 4.7.0 no") if not rig.peers else (lambda command: None)
            return ScriptedPeer(lambda command: said.append(command) or script(command))  # type: ignore[func-returns-value]

        rig.answer = answer
        rig.readahead.start()
        rig.accept(*[make_delivery() for _ in range(30)])
        await rig.run(5.0)
        assert rig.count("delivered") == 29
        assert rig.count("deferred") == 1
        await rig.run(70.0)
        assert rig.count("delivered") == 30
        rig.close()

    run_virtually(main())


def test_an_unreachable_site_defers_one_for_each_try_and_keeps_the_rest() -> None:
    async def main() -> None:
        rig = Rig()
        rig.answer = lambda path, site: REFUSED
        rig.readahead.start()
        rig.accept(*[make_delivery() for _ in range(100)])
        await rig.run(10.0)
        assert rig.count("deferred") == 4  # at 0, 1, 3 and 7 s
        assert rig.store.count() == 100
        (site_queue,) = rig.sites
        assert len(site_queue.queue) == 1
        assert rig.window.count == 1
        (path,) = site_queue.paths
        assert rig.dispatcher.decisions[path].reason.startswith("back-off after 4 failures for")
        rig.answer = lambda path, site: ScriptedPeer()
        await rig.run(20.0)
        assert rig.count("delivered") == 96
        rig.close()

    run_virtually(main())


def test_a_path_that_a_cap_refused_goes_on_when_another_path_has_ended() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_messages_per_connection = 5", caps=(Cap("max_connections_per_shard", 2),))
        connections = Connections(rig)
        for number in range(5):
            rig.accept(*[make_delivery(f"d{number}.example") for _ in range(20)])
        start = rig.loop.time()
        while rig.count("delivered") < 100:
            await rig.run(0.1)
            assert rig.loop.time() - start < 2 * CAP_RECHECK_S
        assert most_at_once(connections.spans) == 2

    run_virtually(main())


def test_an_idle_session_makes_room_for_a_path_that_a_cap_refuses() -> None:
    async def main() -> None:
        rig = Rig(caps=(Cap("max_connections_per_shard", 1),))
        rig.accept(make_delivery("one.example"))
        await rig.run(1.0)
        rig.accept(make_delivery("two.example"))
        await rig.run(1.0)
        assert rig.count("delivered") == 2

    run_virtually(main())


def test_no_path_keeps_a_cap_for_itself() -> None:
    async def main() -> None:
        rig = Rig("[default]\nmax_messages_per_connection = 10", caps=(Cap("max_connections_per_shard", 1),))
        Connections(rig, latency_s=0.04)
        rig.accept(*[make_delivery("one.example") for _ in range(500)])
        await rig.run(0.3)
        rig.accept(make_delivery("two.example"))
        await rig.run(2.0)
        assert len(rig.messages(site="mx.two.example")) == 1
        assert len(rig.messages(site="mx.one.example")) < 500

    run_virtually(main())


def test_a_max_of_the_vmta_is_a_cap_over_its_paths() -> None:
    async def main() -> None:
        rig = Rig()
        connections = Connections(rig)
        rig.paths.vmta_cap("v1").limit = 1
        for number in range(3):
            rig.accept(make_delivery(f"d{number}.example"))
        await rig.run(5.0)
        assert rig.count("delivered") == 3
        await rig.run(60.0)
        assert len(connections.spans) == 3
        assert most_at_once(connections.spans) == 1

    run_virtually(main())


def test_expired_while_ready_is_not_sent() -> None:
    async def main() -> None:
        rig = Rig('[default]\nexpire_after = "1m"\nmax_connections = 1')
        rig.paths.hold_vmta("v1", "op", "paused", rig.loop.time() + 90.0)
        rig.accept(make_delivery())
        await rig.run(95.0)
        assert not rig.messages()
        assert rig.count("expired") == 1
        assert len(rig.bounced) == 1
        assert rig.store.count() == 0

    run_virtually(main())


def test_nothing_is_begun_while_paused() -> None:
    async def main() -> None:
        rig = Rig()
        rig.dispatcher.is_paused = True
        rig.accept(make_delivery())
        await rig.run(5.0)
        assert not rig.peers

    run_virtually(main())


def test_a_forgotten_path_takes_nothing_and_leaves_nothing() -> None:
    async def main() -> None:
        rig = Rig(vmtas={"v1": 1, "v2": 1})
        rig.accept(*[make_delivery() for _ in range(10)])
        await rig.run(1.0)
        gone = rig.paths.disown(["v1"])
        for path in gone:
            rig.dispatcher.forget_path(path)
        for session in list(rig.sessions):
            if session.path in gone:
                session.quit()
        carried = len(rig.messages("v1"))
        rig.accept(*[make_delivery() for _ in range(10)])
        await rig.run(2.0)
        assert len(rig.messages("v1")) == carried
        assert rig.count("delivered") == 20
        assert not any(path in rig.dispatcher.decisions for path in gone)
        assert not any(path.sites for path in gone)

    run_virtually(main())


def test_a_path_forgotten_while_it_opens_leaves_no_count_behind() -> None:
    async def main() -> None:
        rig = Rig(vmtas={"v1": 1, "v2": 1})
        rig.open_s = 1.0
        rig.answer = lambda path, site: REFUSED if path.vmta == "v1" else ScriptedPeer()
        rig.accept(*[make_delivery() for _ in range(5)])
        await rig.run(0.1)
        (site_queue,) = rig.sites
        rig.dispatcher.kick(rig.dispatcher.widening.widen(site_queue), is_missed=True)
        opening = site_queue.opening
        assert all(path.sites[site_queue.site.name].opening for path in site_queue.paths)
        for path in rig.paths.disown(["v1"]):
            rig.dispatcher.forget_path(path)
        remaining = [path.sites[site_queue.site.name].opening for path in site_queue.paths]
        assert site_queue.opening == sum(remaining) < opening
        await rig.run(5.0)
        assert site_queue.opening == 0
        assert rig.count("delivered") == 5

    run_virtually(main())


def test_a_site_that_nothing_needs_is_forgotten_by_its_path() -> None:
    async def main() -> None:
        rig = Rig(ONE_PROVIDER)
        rig.accept(make_delivery("one.example"))
        await rig.run(60.0)
        (path,) = rig.paths.paths.values()
        assert list(path.sites) == ["mx.one.example"]
        rig.sites.drop_idle(lambda path: not path.sessions)
        assert not path.sites
        assert path.is_idle(rig.loop.time())

    run_virtually(main())


def test_two_pools_share_the_sessions_of_a_path() -> None:
    async def main() -> None:
        rig = Rig()
        rig.pools["second"] = rig.pools["pool"]
        rig.accept(make_delivery())
        await rig.run(1.0)
        rig.accept(make_delivery(pool="second"), make_delivery())
        await rig.run(1.0)
        assert len(rig.peers) <= 2
        assert rig.count("delivered") == 3
        assert [event.pool for event in rig.told("delivered")].count("second") == 1

    run_virtually(main())


def test_sites_of_two_domains_with_the_same_hosts_are_one() -> None:
    async def main() -> None:
        rig = Rig()
        shared = make_site([Host("mx.shared")])
        rig.resolver.sites = {"one.example": shared, "two.example": shared}
        rig.accept(make_delivery("one.example"))
        await rig.run(1.0)
        rig.accept(make_delivery("two.example"))
        await rig.run(1.0)
        assert len(rig.peers) == 1
        assert len(rig.sites) == 1
        await asyncio.sleep(0)

    run_virtually(main())


def test_refusals_of_a_ceiling_are_counted_without_its_figures() -> None:
    async def main() -> None:
        rig = Rig()
        rig.open_s = 1000.0
        rig.accept(*[make_delivery() for _ in range(50)])
        await rig.run(0.1)
        (path,) = rig.paths.paths.values()
        for connections in (3, 2):
            path.set_ceiling(Ceiling("adaptive", "adaptive limits", connections))
            rig.dispatcher.kick(path)
        assert rig.dispatcher.refusals["max_connections of adaptive limits reached"] == 2

    run_virtually(main())
