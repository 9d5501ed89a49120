"""sites: which ready queue mail belongs in."""

from __future__ import annotations

from engine.net.site import Host, make_site
from engine.settings.model import Pool
from tests.fakes.delivery_rig import Rig, make_delivery, make_vmta
from tests.fakes.virtual_loop import run_virtually

SITE = make_site([Host("mx.x.example")])
SECTION = """
[customer.vip.default]
max_connections = 1
"""


def test_domains_of_one_site_share_a_ready_queue() -> None:
    async def main() -> None:
        sites = Rig().sites
        first = sites.find("pool", "acme", "x.example", SITE)
        assert first is not None
        assert sites.find("pool", "other", "y.example", SITE) is first
        assert sites.find("pool", "acme", "x.example", make_site([Host("mx.else")])) is not first

    run_virtually(main())


def test_a_domain_that_is_asked_for_once_takes_no_place_in_the_tables() -> None:
    async def main() -> None:
        sites = Rig().sites
        first = sites.find("pool", "acme", "x.example", SITE, is_kept=False)
        assert first is not None
        assert not sites._found
        assert sites.find("pool", "acme", "x.example", SITE) is first
        assert sites.find("pool", "acme", "x.example", SITE, is_kept=False) is first

    run_virtually(main())


def test_a_domain_with_a_section_of_its_own_has_a_ready_queue_of_its_own() -> None:
    async def main() -> None:
        sites = Rig('[domain."y.example"]\nmax_connections = 1').sites
        first = sites.find("pool", "acme", "x.example", SITE)
        second = sites.find("pool", "acme", "y.example", SITE)
        assert first is not None
        assert second is not None
        assert first is not second
        assert (first.destination.kind, second.destination.name) == ("site", "y.example")

    run_virtually(main())


def test_a_customer_with_a_section_has_paths_of_its_own() -> None:
    async def main() -> None:
        sites = Rig(SECTION).sites
        common = sites.find("pool", "acme", "x.example", SITE)
        own = sites.find("pool", "vip", "x.example", SITE)
        assert common is not None
        assert own is not None
        assert own is not common
        assert own.paths[0].policy.max_connections == 1
        assert own.paths[0].limits is common.paths[0].limits

    run_virtually(main())


def test_only_vmtas_of_the_pool_that_are_here_and_have_weight_carry() -> None:
    async def main() -> None:
        rig = Rig(vmtas={"v1": 1, "v2": 0})
        rig.pools["pool"] = Pool(name="pool", members={"v1": 3, "v2": 0, "elsewhere": 1})
        queue = rig.sites.find("pool", "acme", "x.example", SITE)
        assert queue is not None
        assert {path.vmta: weight for path, weight in queue.weights.items()} == {"v1": 3}

    run_virtually(main())


def test_a_pool_without_a_vmta_here_has_no_ready_queue() -> None:
    async def main() -> None:
        rig = Rig()
        rig.pools["far"] = Pool(name="far", members={"elsewhere": 1})
        assert rig.sites.find("far", "acme", "x.example", SITE) is None
        assert rig.sites.find("unknown", "acme", "x.example", SITE) is None
        assert rig.sites.is_carried_here("pool")
        assert not rig.sites.is_carried_here("far")
        rig.paths.own([make_vmta("elsewhere")], 0.0)
        assert rig.sites.find("far", "acme", "x.example", SITE) is not None

    run_virtually(main())


def test_routes_are_no_providers_business() -> None:
    async def main() -> None:
        rig = Rig('[provider.big]\nmx = ["*.big.example"]')
        by_mx = make_site([Host("mx.big.example")])
        routed = make_site([Host("mx.big.example")], is_route=True)
        found = [rig.sites.find("pool", "acme", "x.example", site) for site in (by_mx, routed)]
        assert [queue.destination.provider for queue in found if queue is not None] == ["big", ""]

    run_virtually(main())


def test_idle_queues_are_forgotten_and_those_in_use_are_not() -> None:
    async def main() -> None:
        rig = Rig()
        rig.accept(make_delivery())
        await rig.run(1.0)
        (queue,) = rig.sites
        assert rig.sites.drop_idle(lambda path: not path.sessions) == 0
        await rig.run(60.0)
        assert rig.sites.drop_idle(lambda path: not path.sessions) == 1
        assert len(rig.sites) == 0
        assert queue.is_gone
        rig.accept(make_delivery())
        await rig.run(1.0)
        assert rig.count("delivered") == 2

    run_virtually(main())


def test_a_queue_with_something_on_disk_behind_it_is_not_forgotten() -> None:
    async def main() -> None:
        rig = Rig()
        queue = rig.sites.find("pool", "acme", "x.example", SITE)
        assert queue is not None
        queue.wait_behind("acme", b"acme\0x.example\0")
        assert rig.sites.drop_idle(lambda path: True) == 0

    run_virtually(main())


def test_after_a_reload_queues_follow_the_new_pools() -> None:
    async def main() -> None:
        rig = Rig(vmtas={"v1": 1, "v2": 1})
        old = rig.sites.find("pool", "acme", "x.example", SITE)
        rig.sites.clear({"pool": Pool(name="pool", members={"v2": 1})}, lambda customer: 1)
        new = rig.sites.find("pool", "acme", "x.example", SITE)
        assert old is not None
        assert new is not None
        assert old.is_gone
        assert [path.vmta for path in new.paths] == ["v2"]
        assert not old.paths

    run_virtually(main())


def test_a_transaction_in_flight_during_a_reload_is_settled_in_peace() -> None:
    async def main() -> None:
        rig = Rig()
        rig.accept(make_delivery())
        while not any(peer.commands for _, _, peer in rig.peers):
            await rig.run(0.001, 0.001)
        rig.readahead.put_all_back()
        rig.sites.clear(rig.pools, rig.share_of)
        await rig.run(1.0)
        assert rig.count("delivered") == 1
        assert rig.store.count() == 0

    run_virtually(main())
