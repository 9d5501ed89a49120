"""Domain to site and host to addresses, against a name server that answers as it is told."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.core.address import parse_domain
from engine.core.errors import ResolvePermanent, ResolveTemporary
from engine.net.dns import Answer
from engine.net.own import OwnHosts
from engine.net.resolver import Keeping, Resolver
from engine.net.site import Host
from engine.settings.model import PROHIBITED_NETWORKS, Route
from tests.fakes.dns import NXDOMAIN, SERVFAIL, FakeDNS


class Setting:
    """A resolver, its server, and a clock moved by hand."""

    def __init__(self, server: FakeDNS, resolver: Resolver) -> None:
        self.server = server
        self.resolver = resolver
        self.now = 0.0


@asynccontextmanager
async def resolving(
    script: Mapping[tuple[str, str], Any],
    *,
    routes: Mapping[str, Any] | None = None,
    ttl_s: int = 300,
    **options: Any,
) -> AsyncIterator[Setting]:
    async with FakeDNS(script, ttl_s=ttl_s) as server:
        resolver = Resolver(
            nameservers=["127.0.0.1"],
            port=server.port,
            routes={pattern: Route(hosts=tuple(hosts)) for pattern, hosts in (routes or {}).items()},
            prohibited=PROHIBITED_NETWORKS,
            clock=lambda: setting.now,
            shuffle=list.sort,
            **options,
        )
        setting = Setting(server, resolver)
        await resolver.open()
        try:
            yield setting
        finally:
            resolver.close()


MX = {("acme.example", "MX"): ["20 mx2.acme.example.", "10 mx1.acme.example."]}


def test_site_holds_the_mx_hosts_by_preference(run):
    """RFC 5321 section 5.1."""

    async def scenario() -> None:
        async with resolving(MX) as setting:
            assert setting.resolver.lookup("acme.example") is None
            site = await setting.resolver.resolve("acme.example")
            assert site.name == "mx1.acme.example;mx2.acme.example"
            assert setting.resolver.lookup("acme.example") is site

    run(scenario())


def test_domains_with_the_same_hosts_share_one_site_object(run):
    async def scenario() -> None:
        script = {**MX, ("other.example", "MX"): ["5 mx1.acme.example.", "6 mx2.acme.example."]}
        async with resolving(script) as setting:
            one = await setting.resolver.resolve("acme.example")
            assert await setting.resolver.resolve("other.example") is one

    run(scenario())


@pytest.mark.parametrize("record", [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")])
def test_domain_without_mx_is_its_own_host(run, record):
    """RFC 5321 section 5.1."""

    async def scenario() -> None:
        async with resolving({("acme.example", record[0]): [record[1]]}) as setting:
            site = await setting.resolver.resolve("acme.example")
            assert site.host_names == ("acme.example",)
            assert await setting.resolver.addresses(site.hosts[0], "prefer_v4") == [record[1]]
            assert setting.server.count("acme.example", record[0]) == 1  # the fall-back's answer is kept

    run(scenario())


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        ({("other.example", "A"): ["192.0.2.1"]}, "550 5.1.2 Domain acme.example does not exist"),
        ({("acme.example", "TXT"): ["v"]}, "550 5.1.2 Domain acme.example has neither MX nor address"),
        ({("acme.example", "MX"): ["0 ."]}, "556 5.1.10 Domain acme.example does not accept mail (null MX)"),
        ({("acme.example", "MX"): ["10 ."]}, "556 5.1.10 Domain acme.example does not accept mail (null MX)"),
        (
            {("acme.example", "MX"): ["10 a\\032b.example.", "20 -."]},
            "550 5.4.4 Domain acme.example has no MX host with a valid name",
        ),
    ],
    ids=["no name", "no record", "null mx", "odd null mx", "bad names"],
)
def test_domain_that_cannot_receive_is_refused_in_words(run, script, reply):
    """RFC 5321 section 5.1, RFC 7505 section 3."""

    async def scenario() -> None:
        async with resolving(script) as setting:
            with pytest.raises(ResolvePermanent) as caught:
                await setting.resolver.resolve("acme.example")
            assert str(caught.value.reply) == reply
            assert setting.resolver.lookup("acme.example") is None

    run(scenario())


def test_null_mx_beside_real_hosts_is_left_out(run):
    """RFC 7505 section 3."""

    async def scenario() -> None:
        async with resolving({("acme.example", "MX"): ["0 .", "10 mx.acme.example."]}) as setting:
            assert (await setting.resolver.resolve("acme.example")).name == "mx.acme.example"

    run(scenario())


@pytest.mark.parametrize(
    "script",
    [
        {("acme.example", "MX"): SERVFAIL},
        {("acme.example", "A"): SERVFAIL},
        {("acme.example", "AAAA"): SERVFAIL},
    ],
    ids=["mx", "a", "aaaa"],
)
def test_failure_on_the_way_to_a_site_is_temporary(run, script):
    """RFC 5321 section 5.1."""

    async def scenario() -> None:
        async with resolving(script) as setting:
            with pytest.raises(ResolveTemporary):
                await setting.resolver.resolve("acme.example")

    run(scenario())


def test_fall_back_address_of_one_family_is_enough_when_the_other_fails(run):
    async def scenario() -> None:
        script = {("acme.example", "A"): ["192.0.2.1"], ("acme.example", "AAAA"): SERVFAIL}
        async with resolving(script) as setting:
            site = await setting.resolver.resolve("acme.example")
            assert await setting.resolver.addresses(site.hosts[0], "prefer_v6") == ["192.0.2.1"]

    run(scenario())


# -- what is kept, and for how long ---------------------------------------------------------------------


@pytest.mark.parametrize(("ttl_s", "kept_s"), [(0, 30), (1, 30), (300, 300), (10_000_000, 86_400)], ids=str)
def test_ttl_is_bounded_from_both_sides(run, ttl_s, kept_s):
    async def scenario() -> None:
        async with resolving(MX, ttl_s=ttl_s) as setting:
            await setting.resolver.resolve("acme.example")
            setting.now = kept_s - 0.1
            assert setting.resolver.lookup("acme.example") is not None
            setting.now = kept_s + 0.1
            assert setting.resolver.lookup("acme.example") is None
            assert await setting.resolver.resolve("acme.example")

    run(scenario())


def test_refusal_is_kept_for_the_negative_ttl(run):
    async def scenario() -> None:
        async with resolving({("acme.example", "MX"): NXDOMAIN}) as setting:
            for now in (0.0, 59.0):
                setting.now = now
                with pytest.raises(ResolvePermanent):
                    await setting.resolver.resolve("acme.example")
            assert setting.server.count("acme.example", "MX") == 1
            setting.now = 61.0
            setting.server.script.update(MX)
            assert (await setting.resolver.resolve("acme.example")).hosts

    run(scenario())


def test_failure_is_forgotten_where_an_operator_says_so(run):
    async def scenario() -> None:
        async with resolving({("acme.example", "MX"): SERVFAIL}) as setting:
            with pytest.raises(ResolveTemporary):
                await setting.resolver.resolve("acme.example")
            setting.server.script.update(MX)
            with pytest.raises(ResolveTemporary):
                await setting.resolver.resolve("acme.example")
            setting.resolver.forget_failure("acme.example")
            assert (await setting.resolver.resolve("acme.example")).hosts
            setting.resolver.forget_failure("acme.example")
            assert setting.resolver.lookup("acme.example") is not None

    run(scenario())


def test_failure_is_kept_only_for_a_moment(run):
    class Failing:
        asked = 0

        async def ask(self, name: str, record_type: str) -> Answer:
            self.asked += 1
            raise ResolveTemporary(name, "down")

        def close(self) -> None:
            pass

    async def scenario() -> None:
        dns = Failing()
        now = [0.0]
        resolver = Resolver(routes={}, prohibited=(), dns=dns, clock=lambda: now[0])
        for now[0], asked in ((0.0, 1), (4.0, 1), (6.0, 2)):
            with pytest.raises(ResolveTemporary, match=r"acme\.example: down"):
                await resolver.resolve("acme.example")
            assert dns.asked == asked

    run(scenario())


def test_many_who_resolve_at_once_ask_once(run):
    async def scenario() -> None:
        async with resolving(MX) as setting:
            sites = await asyncio.gather(*(setting.resolver.resolve("acme.example") for _ in range(100)))
            assert len(set(map(id, sites))) == 1
            assert setting.server.questions == [("acme.example", "MX")]

    run(scenario())


def test_caches_are_bounded(run):
    class Everything:
        async def ask(self, name: str, record_type: str) -> Answer:
            return Answer(((10, f"mx.{name}"),) if record_type == "MX" else ((0, "192.0.2.1"),), 300.0)

        def close(self) -> None:
            pass

    async def scenario() -> None:
        resolver = Resolver(routes={}, prohibited=(), dns=Everything(), keeping=Keeping(size=100))
        for number in range(1000):
            site = await resolver.resolve(f"{number}.example")
            await resolver.addresses(site.hosts[0], "prefer_v4")
        del site
        gc.collect()
        assert len(resolver._sites) == len(resolver._addresses) == len(resolver._known_sites) == 100
        assert resolver.lookup("999.example") is not None

    run(scenario())


# -- addresses -------------------------------------------------------------------------------------------

DUAL = {("mx.example", "A"): ["198.51.100.2", "198.51.100.1"], ("mx.example", "AAAA"): ["2001:db8::1"]}


@pytest.mark.parametrize(
    ("family", "addresses"),
    [
        ("v4", ["198.51.100.1", "198.51.100.2"]),
        ("v6", ["2001:db8::1"]),
        ("prefer_v4", ["198.51.100.1", "198.51.100.2", "2001:db8::1"]),
        ("prefer_v6", ["2001:db8::1", "198.51.100.1", "198.51.100.2"]),
    ],
)
def test_addresses_come_in_the_order_of_the_family(run, family, addresses):
    """RFC 5321 section 5.2."""

    async def scenario() -> None:
        async with resolving(DUAL) as setting:
            assert await setting.resolver.addresses(Host("mx.example"), family) == addresses

    run(scenario())


def test_family_that_is_not_wanted_is_not_asked_for(run):
    async def scenario() -> None:
        async with resolving(DUAL) as setting:
            await setting.resolver.addresses(Host("mx.example"), "v4")
            assert setting.server.questions == [("mx.example", "A")]

    run(scenario())


def test_alias_of_an_mx_host_is_followed(run):
    """RFC 5321 section 5.1, RFC 1034 section 3.6.2."""

    async def scenario() -> None:
        chain = ["mx.example. 300 CNAME real.example.", "real.example. 300 A 198.51.100.9"]
        async with resolving({("mx.example", "A"): chain}) as setting:
            assert await setting.resolver.addresses(Host("mx.example"), "v4") == ["198.51.100.9"]

    run(scenario())


@pytest.mark.parametrize(
    ("script", "detail"), [({}, "does not exist"), ({("mx.example", "TXT"): ["v"]}, "has no address")]
)
def test_host_without_address_is_permanent(run, script, detail):
    async def scenario() -> None:
        async with resolving(script) as setting:
            with pytest.raises(ResolvePermanent) as caught:
                await setting.resolver.addresses(Host("mx.example"), "prefer_v4")
            assert str(caught.value.reply) == f"550 5.4.4 Host mx.example {detail}"

    run(scenario())


@pytest.mark.parametrize(
    ("script", "is_narrowed"),
    [
        ({}, False),
        ({("mx.example", "TXT"): ["v"]}, False),
        ({("mx.example", "AAAA"): ["2001:db8::1"]}, True),
        ({("mx.example", "TXT"): ["v"], ("mx.example", "AAAA"): SERVFAIL}, True),
        ({("mx.example", "A"): ["10.0.0.1"]}, False),
        ({("mx.example", "A"): ["10.0.0.1"], ("mx.example", "AAAA"): ["fd00::1"]}, False),
        ({("mx.example", "A"): ["10.0.0.1"], ("mx.example", "AAAA"): ["2001:db8::1"]}, True),
    ],
)
def test_host_is_given_up_for_one_family_only_where_the_other_has_addresses(run, script, is_narrowed):
    """RFC 5321 section 5.1: what no vmta could reach is permanent, whichever family was asked for."""

    async def scenario() -> None:
        async with resolving(script) as setting:
            with pytest.raises(ResolvePermanent) as caught:
                await setting.resolver.addresses(Host("mx.example"), "v4")
            assert caught.value.is_narrowed is is_narrowed

    run(scenario())


def test_address_of_the_other_family_is_not_given_up(run):
    async def scenario() -> None:
        async with resolving({}) as setting:
            for host, is_narrowed in (
                (Host("192.0.2.1", address="192.0.2.1", is_routed=True), True),
                (Host("127.0.0.1", address="127.0.0.1", is_routed=True), True),
                (Host("[127.0.0.1]", address="127.0.0.1"), False),
            ):
                with pytest.raises(ResolvePermanent) as caught:
                    await setting.resolver.addresses(host, "v6")
                assert caught.value.is_narrowed is is_narrowed

    run(scenario())


def test_host_is_temporary_where_one_family_fails_and_the_other_has_none(run):
    async def scenario() -> None:
        async with resolving({("mx.example", "AAAA"): SERVFAIL}) as setting:
            with pytest.raises(ResolveTemporary):
                await setting.resolver.addresses(Host("mx.example"), "prefer_v4")
            with pytest.raises(ResolvePermanent, match="has no IPv4 address"):
                await setting.resolver.addresses(Host("mx.example"), "v4")

    run(scenario())


# -- prohibited networks ---------------------------------------------------------------------------------


def test_prohibited_addresses_of_an_mx_host_are_left_out(run):
    async def scenario() -> None:
        script = {
            ("mx.example", "A"): ["127.0.0.1", "198.51.100.1"],
            ("mx.example", "AAAA"): ["::ffff:127.0.0.1"],
        }
        async with resolving(script) as setting:
            assert await setting.resolver.addresses(Host("mx.example"), "prefer_v6") == ["198.51.100.1"]

    run(scenario())


@pytest.mark.parametrize(
    "records",
    [
        {("mx.example", "A"): ["10.0.0.1"]},
        {("mx.example", "AAAA"): ["fe80::1"]},
        {("mx.example", "A"): ["mx.example. 300 CNAME in.example.", "in.example. 300 A 169.254.169.254"]},
    ],
    ids=["a", "aaaa", "alias"],
)
def test_host_with_only_prohibited_addresses_is_permanent(run, records):
    async def scenario() -> None:
        async with resolving(records) as setting:
            with pytest.raises(ResolvePermanent, match="no address that may be connected to") as caught:
                await setting.resolver.addresses(Host("mx.example"), "prefer_v4")
            assert caught.value.reply.enhanced == "5.4.4"

    run(scenario())


def test_fall_back_to_a_prohibited_address_is_permanent(run):
    async def scenario() -> None:
        async with resolving({("acme.example", "A"): ["127.0.0.1"]}) as setting:
            site = await setting.resolver.resolve("acme.example")
            with pytest.raises(ResolvePermanent):
                await setting.resolver.addresses(site.hosts[0], "v4")

    run(scenario())


@pytest.mark.parametrize("literal", ["[127.0.0.1]", "[IPv6:::1]", "[IPv6:::ffff:10.0.0.1]", "[0.0.0.0]"])
def test_prohibited_literal_is_permanent(run, literal):
    async def scenario() -> None:
        async with resolving({}) as setting:
            with pytest.raises(ResolvePermanent, match="may be connected to"):
                await setting.resolver.resolve(literal)
            assert setting.server.questions == []

    run(scenario())


@pytest.mark.parametrize(
    ("literal", "address", "family"),
    [("[198.51.100.7]", "198.51.100.7", "prefer_v6"), ("[IPv6:2001:db8::7]", "2001:db8::7", "v6")],
)
def test_literal_is_its_own_host_without_dns(run, literal, address, family):
    """RFC 5321 section 4.1.3."""

    async def scenario() -> None:
        async with resolving({}) as setting:
            site = await setting.resolver.resolve(literal)
            assert site.name == literal
            assert await setting.resolver.addresses(site.hosts[0], family) == [address]
            assert setting.server.questions == []
            with pytest.raises(ResolvePermanent, match="has no IPv"):
                await setting.resolver.addresses(site.hosts[0], "v6" if family == "prefer_v6" else "v4")

    run(scenario())


def test_mx_host_that_looks_like_an_address_is_a_name(run):
    async def scenario() -> None:
        async with resolving({("acme.example", "MX"): ["10 127.0.0.1."]}) as setting:
            site = await setting.resolver.resolve("acme.example")
            with pytest.raises(ResolvePermanent):
                await setting.resolver.addresses(site.hosts[0], "prefer_v4")

    run(scenario())


# -- routes ----------------------------------------------------------------------------------------------


def test_route_goes_before_dns_and_may_lie_in_a_prohibited_network(run):
    async def scenario() -> None:
        routes = {"*": ["127.0.0.1:2526", "[::1]:2527"]}
        async with resolving(MX, routes=routes) as setting:
            site = await setting.resolver.resolve("acme.example")
            assert site.is_route
            assert setting.resolver.lookup("acme.example") is site
            assert [await setting.resolver.addresses(host, "prefer_v4") for host in site.hosts] == [
                ["127.0.0.1"],
                ["::1"],
            ]
            assert setting.server.questions == []

    run(scenario())


def test_name_in_a_route_is_asked_for_and_may_be_prohibited(run):
    async def scenario() -> None:
        routes = {"*": ["relay.example:25", "localhost:2525"]}
        async with resolving({("relay.example", "A"): ["10.0.0.7"]}, routes=routes) as setting:
            relay, localhost = (await setting.resolver.resolve("acme.example")).hosts
            assert await setting.resolver.addresses(relay, "prefer_v6") == ["10.0.0.7"]
            assert await setting.resolver.addresses(localhost, "prefer_v6") == ["::1", "127.0.0.1"]

    run(scenario())


def test_new_routes_hold_at_once_and_old_ones_are_forgotten(run):
    async def scenario() -> None:
        script = {**MX, ("kept.example", "MX"): ["10 mx.kept.example."]}
        async with resolving(script, routes={"acme.example": ["127.0.0.1:25"]}) as setting:
            resolver = setting.resolver
            for domain in ("acme.example", "kept.example"):
                await resolver.resolve(domain)
            resolver.use({"kept.example": Route(hosts=("127.0.0.1:26",))}, PROHIBITED_NETWORKS)
            assert resolver.lookup("acme.example") is None
            assert (await resolver.resolve("acme.example")).name == "mx1.acme.example;mx2.acme.example"
            assert (await resolver.resolve("kept.example")).name == "route:127.0.0.1:26"

    run(scenario())


def test_new_prohibited_networks_hold_at_once_and_dns_is_not_asked_again(run):
    async def scenario() -> None:
        async with resolving(DUAL) as setting:
            resolver = setting.resolver
            await resolver.addresses(Host("mx.example"), "v4")
            resolver.use({}, ["198.51.100.0/24"])
            with pytest.raises(ResolvePermanent):
                await resolver.addresses(Host("mx.example"), "v4")
            assert setting.server.count("mx.example", "A") == 1

    run(scenario())


# -- ourselves -------------------------------------------------------------------------------------------

OWN = OwnHosts(["us.example"], ["203.0.113.10", "2001:db8::10"])


@pytest.mark.parametrize(
    "records",
    [
        {("acme.example", "MX"): ["10 us.example.", "20 mx2.example."]},
        {("acme.example", "MX"): ["10 alias.example."], ("alias.example", "A"): ["203.0.113.10"]},
        {("acme.example", "MX"): ["10 alias.example."], ("alias.example", "AAAA"): ["2001:db8::10"]},
        {
            ("acme.example", "MX"): ["10 equal.example.", "10 alias.example."],
            ("equal.example", "A"): ["192.0.2.1"],
            ("alias.example", "A"): ["alias.example. 300 CNAME us.test.", "us.test. 300 A 203.0.113.10"],
        },
        {("acme.example", "A"): ["203.0.113.10"]},
    ],
    ids=["name", "address", "address6", "equal", "implicit"],
)
def test_domain_whose_best_host_we_are_loops(run, records):
    """RFC 5321 section 5.1: nothing is left once what is no better than us is discarded."""

    async def scenario() -> None:
        async with resolving(records, own=OWN) as setting:
            with pytest.raises(ResolvePermanent, match="leads back") as caught:
                await setting.resolver.resolve("acme.example")
            assert caught.value.reply.enhanced == "5.4.6"

    run(scenario())


@pytest.mark.parametrize("literal", ["[203.0.113.10]", "[IPv6:2001:db8::10]"])
def test_literal_of_ours_loops(run, literal):
    async def scenario() -> None:
        async with resolving({}, own=OWN) as setting:
            with pytest.raises(ResolvePermanent) as caught:
                await setting.resolver.resolve(literal)
            assert caught.value.reply.enhanced == "5.4.6"

    run(scenario())


def test_hosts_better_than_us_stay_and_those_behind_are_not_asked_for(run):
    """RFC 5321 section 5.1, for a backup MX of the domain: only the better ones remain."""
    records = {
        ("acme.example", "MX"): ["10 mx1.example.", "20 us.example.", "20 mx2.example.", "30 mx3.example."],
        ("mx1.example", "A"): ["192.0.2.1"],
    }

    async def scenario() -> None:
        async with resolving(records, own=OWN) as setting:
            assert (await setting.resolver.resolve("acme.example")).name == "mx1.example"
            asked = {name for name, _ in setting.server.questions}
            assert asked == {"acme.example", "mx1.example"}

    run(scenario())


def test_worse_host_with_an_address_of_ours_is_seen_when_its_turn_comes(run):
    async def scenario() -> None:
        records = {
            ("acme.example", "MX"): ["10 mx1.example.", "20 alias.example."],
            ("mx1.example", "A"): ["192.0.2.1"],
            ("alias.example", "A"): ["203.0.113.10"],
        }
        async with resolving(records, own=OWN) as setting:
            first, second = (await setting.resolver.resolve("acme.example")).hosts
            assert not await setting.resolver.is_ours([first])
            assert await setting.resolver.is_ours([second])

    run(scenario())


def test_a_host_that_can_not_be_looked_up_is_not_ours(run):
    async def scenario() -> None:
        records = {("acme.example", "MX"): ["10 mx1.example."], ("mx1.example", "A"): SERVFAIL}
        async with resolving(records, own=OWN) as setting:
            assert (await setting.resolver.resolve("acme.example")).name == "mx1.example"

    run(scenario())


def test_who_we_are_holds_at_once_after_a_reload(run):
    async def scenario() -> None:
        records = {("acme.example", "MX"): ["10 us.example."], ("us.example", "A"): ["192.0.2.1"]}
        async with resolving(records) as setting:
            site = await setting.resolver.resolve("acme.example")
            setting.resolver.use({}, PROHIBITED_NETWORKS)
            assert setting.resolver.lookup("acme.example") is site
            setting.resolver.use({}, PROHIBITED_NETWORKS, OWN)
            with pytest.raises(ResolvePermanent, match="leads back"):
                await setting.resolver.resolve("acme.example")

    run(scenario())


@pytest.mark.parametrize("literal", ["[203.0.113.10]", "[IPv6:::ffff:203.0.113.10]", "[IPv6:2001:db8::10]"])
def test_a_literal_of_ours_is_a_loop_in_every_form(run, literal):
    """RFC 3463 section 3.5: X.4.6. RFC 4291 section 2.5.5.2: both forms are one address."""

    async def scenario() -> None:
        async with resolving({}, own=OWN) as setting:
            with pytest.raises(ResolvePermanent, match="leads back") as caught:
                await setting.resolver.resolve(parse_domain(literal))
            assert caught.value.reply.enhanced == "5.4.6"

    run(scenario())


def test_where_we_listen_on_all_addresses_the_port_decides(run):
    async def scenario() -> None:
        records = {("acme.example", "MX"): ["10 mx1.example."], ("mx1.example", "A"): ["198.51.100.1"]}
        own = OwnHosts(wildcards=[(4, 25)], is_here=["198.51.100.1", "198.51.100.2"].__contains__)
        async with resolving(records, own=own) as setting:
            hosts = (await setting.resolver.resolve("acme.example")).hosts
            assert setting.resolver.may_be_ours(25)
            assert not setting.resolver.may_be_ours(2525)
            assert await setting.resolver.is_ours(hosts, 25)
            assert not await setting.resolver.is_ours(hosts, 2525)
            (literal,) = (await setting.resolver.resolve("[198.51.100.2]")).hosts
            assert await setting.resolver.is_ours([literal], 25)
            assert not await setting.resolver.is_ours([literal], 2525)
            assert not [name for name, _ in setting.server.questions if name.startswith("[")]

    run(scenario())


def test_route_to_ourselves_is_meant(run):
    async def scenario() -> None:
        async with resolving({}, routes={"*": ["203.0.113.10:2525"]}, own=OWN) as setting:
            site = await setting.resolver.resolve("acme.example")
            assert not await setting.resolver.is_ours(site.hosts)

    run(scenario())


@pytest.mark.parametrize(
    "records",
    [
        {
            ("mx.example", "A"): [
                "mx.example. 300 CNAME a.example.",
                "a.example. 300 CNAME b.example.",
                "b.example. 300 A 127.0.0.1",
            ]
        },
        {
            ("mx.example", "AAAA"): [
                "mx.example. 300 CNAME a.example.",
                "a.example. 300 AAAA ::ffff:127.0.0.1",
            ]
        },
        {("mx.example", "AAAA"): ["64:ff9b::7f00:1"]},
    ],
    ids=["two aliases", "mapped", "nat64"],
)
def test_no_chain_of_names_leads_into_a_prohibited_network(run, records):
    """RFC 5321 section 5.1 follows MX and CNAME; wherever that ends, `prohibited_networks` hold."""

    async def scenario() -> None:
        async with resolving({("acme.example", "MX"): ["10 mx.example."], **records}, own=OWN) as setting:
            site = await setting.resolver.resolve("acme.example")
            with pytest.raises(ResolvePermanent, match="may be connected to"):
                await setting.resolver.addresses(site.hosts[0], "prefer_v6")

    run(scenario())
