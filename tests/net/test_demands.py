"""Domain to site with what the domain asks of TLS."""

from __future__ import annotations

import asyncio

from engine.net.demands import DemandResolver
from engine.net.own import OwnHosts
from engine.net.site import Host, make_site
from engine.net.sts import NOTHING, StsState
from engine.net.tlsa import NO_TLSA, HostTlsa
from engine.security.sts import StsPolicy

ENFORCE = StsState(StsPolicy("enforce", ("mx.example",), 86400))
PLAIN = make_site([Host("mx.example")])
SECURE = make_site([Host("mx.example")], is_secure=True)
ROUTE = make_site([Host("relay.example", port=25, is_routed=True)], is_route=True)
LITERAL = make_site([Host("[192.0.2.1]", address="192.0.2.1")])


class FakeResolver:
    def __init__(self, sites):
        self.sites = sites
        self.counts = {}

    def lookup(self, domain):
        return self.sites.get(domain)

    async def resolve(self, domain):
        return self.sites[domain]


class FakeSts:
    def __init__(self, states):
        self.states = states
        self.known = {}

    def find(self, domain):
        return self.known.get(domain)

    async def fetch(self, domain):
        return self.known.setdefault(domain, self.states.get(domain, NOTHING))


class FakeTlsa:
    async def find(self, host, port):
        return HostTlsa((), f"{host}:{port}")


def make(sites, states=None, *, dane=True):
    sts = FakeSts(states) if states is not None else None
    return DemandResolver(FakeResolver(sites), sts=sts, tlsa=FakeTlsa() if dane else None)


def resolve(resolver, domain):
    return asyncio.run(resolver.resolve(domain))


def test_site_is_known_only_with_its_policy():
    resolver = make({"a.example": PLAIN}, {"a.example": ENFORCE})
    assert resolver.lookup("a.example") is None
    site = resolve(resolver, "a.example")
    assert site.demand.sts is ENFORCE.policy
    assert resolver.lookup("a.example") is site


def test_policy_is_the_domains_and_not_the_hosts():
    """Two domains with the same hosts, one of which asks for more: sites of their own, one destination."""
    resolver = make({"a.example": PLAIN, "b.example": PLAIN}, {"a.example": ENFORCE})
    strict, lax = resolve(resolver, "a.example"), resolve(resolver, "b.example")
    assert strict.name != lax.name
    assert lax is PLAIN
    assert strict.plain_name == lax.name == "mx.example"
    assert strict.hosts == lax.hosts


def test_secure_answer_makes_dane_possible():
    assert resolve(make({"a.example": SECURE}), "a.example").demand.is_secure
    assert resolve(make({"a.example": SECURE}, dane=False), "a.example") is SECURE
    assert resolve(make({"a.example": PLAIN}), "a.example") is PLAIN


def test_new_policy_makes_another_site():
    resolver = make({"a.example": PLAIN}, {"a.example": ENFORCE})
    strict = resolve(resolver, "a.example")
    resolver._sts.known["a.example"] = NOTHING
    assert resolver.lookup("a.example") is PLAIN
    resolver._sts.known["a.example"] = ENFORCE
    assert resolver.lookup("a.example").name == strict.name


def test_routes_and_literals_have_no_policy():
    resolver = make({"a.example": ROUTE, "[192.0.2.1]": LITERAL}, {})
    assert resolver.lookup("a.example") is ROUTE
    assert resolve(resolver, "[192.0.2.1]") is LITERAL


def test_tlsa_records_are_those_of_hosts_that_dns_names():
    resolver = make({})
    assert asyncio.run(resolver.tlsa(PLAIN.hosts[0], 25)).base == "mx.example:25"
    assert asyncio.run(resolver.tlsa(ROUTE.hosts[0], 25)) is NO_TLSA
    assert asyncio.run(resolver.tlsa(LITERAL.hosts[0], 25)) is NO_TLSA
    assert asyncio.run(make({}, dane=False).tlsa(PLAIN.hosts[0], 25)) is NO_TLSA


def test_state_of_a_policy_can_be_asked_for():
    resolver = make({"a.example": PLAIN}, {"a.example": ENFORCE})
    assert resolver.sts_of("a.example") is NOTHING
    resolve(resolver, "a.example")
    assert resolver.sts_of("a.example") is ENFORCE
    assert make({}).sts_of("a.example") is NOTHING


def test_who_we_are_goes_through_to_the_resolver():
    heard = []

    class Hearing(FakeResolver):
        def use(self, *told):
            heard.append(told)

        def may_be_ours(self, port):
            return port == 25

        async def is_ours(self, hosts, port):
            return Host("mx.example") in hosts and port == 25

    resolver = DemandResolver(Hearing({}))
    own = OwnHosts(frozenset({"mx.example"}), frozenset())
    resolver.use({}, (), own)
    assert heard == [({}, (), own)]
    assert resolver.may_be_ours(25)
    assert asyncio.run(resolver.is_ours([Host("mx.example")], 25))
