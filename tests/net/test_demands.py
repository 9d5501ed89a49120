"""Domain to site with what the domain asks of TLS."""

from __future__ import annotations

import asyncio

from engine.core.errors import ResolveTemporary
from engine.net.demands import DemandResolver
from engine.net.own import OwnHosts
from engine.net.site import Host, make_site
from engine.net.sts import NOTHING, StsState
from engine.net.tlsa import NO_TLSA, HostTlsa
from engine.security.dane import TLSARecord
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

    def alias_of(self, domain):
        return "real.example" if domain == "alias.example" else ""


class FakeSts:
    def __init__(self, states):
        self.states = states
        self.known = {}

    def find(self, domain):
        return self.known.get(domain)

    async def fetch(self, domain):
        return self.known.setdefault(domain, self.states.get(domain, NOTHING))


class FakeTlsa:
    records = ()

    async def find(self, host, port):
        if isinstance(self.records, Exception):
            raise self.records
        return HostTlsa(self.records, f"{host}:{port}")


def make(sites, states=None, *, dane=True, records=()):
    sts = FakeSts(states) if states is not None else None
    tlsa = FakeTlsa()
    tlsa.records = records
    return DemandResolver(FakeResolver(sites), sts=sts, tlsa=tlsa if dane else None)


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


def test_domain_shares_no_session_where_a_trust_anchor_may_vouch_by_its_name():
    """RFC 7672 section 3.2.2: the next-hop domain, and what it is an alias of, are names to compare."""
    anchor, key = TLSARecord(2, 0, 1, b"x" * 32), TLSARecord(3, 1, 1, b"x" * 32)
    sites = {"a.example": SECURE, "b.example": SECURE, "alias.example": SECURE}
    resolver = make(sites, records=(key, anchor))
    assert resolver.lookup("a.example") is None  # whom it shares with depends on the records
    ours, other = resolve(resolver, "a.example"), resolve(resolver, "b.example")
    assert resolver.lookup("a.example") is ours
    assert (ours.demand.names, other.demand.names) == (("a.example",), ("b.example",))
    assert ours.name != other.name
    assert ours.plain_name == other.plain_name == "mx.example"
    assert resolve(resolver, "alias.example").demand.names == ("alias.example", "real.example")
    resolver = make(sites, records=(key,))
    assert resolve(resolver, "a.example").name == resolve(resolver, "b.example").name


def test_records_that_are_not_to_be_had_leave_the_site_known():
    """The attempt says of which host, and goes on to the next."""
    resolver = make({"a.example": SECURE}, records=ResolveTemporary("mx.example", "SERVFAIL"))
    assert resolve(resolver, "a.example").demand.names == ()


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
