"""Names of sites, and the order in which hosts are tried."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.net.site import (
    MAX_HOSTS,
    Access,
    Host,
    balance,
    make_site,
    order_hosts,
    pick_family,
    routed_host,
    with_demand,
    with_word,
)
from engine.security.demand import NO_DEMAND, REQUIRED

HOSTS = st.lists(
    st.builds(Host, st.sampled_from(["a.example", "b.example", "c.example", "d.example"]), st.integers(0, 3)),
    min_size=1,
)


def test_name_shows_equal_preferences_and_ranks():
    hosts = [Host("backup.example", 50), Host("b.example", 10), Host("a.example", 10)]
    assert make_site(hosts).name == "a.example,b.example;backup.example"


def test_preference_numbers_do_not_make_a_site_another():
    one = make_site([Host("a.example", 10), Host("b.example", 20)])
    other = make_site([Host("b.example", 99), Host("a.example", 0)])
    assert one == other


def test_order_of_preference_makes_a_site_another():
    one = make_site([Host("a.example", 10), Host("b.example", 20)])
    other = make_site([Host("a.example", 20), Host("b.example", 10)])
    assert one.name != other.name


def test_host_listed_twice_keeps_its_better_preference():
    site = make_site([Host("a.example", 20), Host("a.example", 10), Host("b.example", 15)])
    assert site.name == "a.example;b.example"


def test_hosts_past_the_bound_are_the_least_preferred():
    site = make_site(Host(f"mx{number}.example", number) for number in reversed(range(4000)))
    assert site.host_names == tuple(f"mx{number}.example" for number in range(MAX_HOSTS))


def test_route_is_named_with_ports():
    hosts = [Host("::1", 0, 25, "::1", True), Host("smart.example", 1, 587, is_routed=True)]
    site = make_site(hosts, is_route=True)
    assert site.name == "route:[::1]:25;smart.example:587"
    assert site.is_route


@given(HOSTS)
def test_name_does_not_depend_on_the_order_given(hosts):
    assert make_site(hosts) == make_site(hosts[::-1])


@given(HOSTS, st.randoms(use_true_random=False))
def test_order_respects_preference_and_leaves_nobody_out(hosts, chance):
    """RFC 5321 section 5.1."""
    site = make_site(hosts)
    ordered = order_hosts(site, chance.shuffle)
    assert sorted(ordered, key=lambda host: host.name) == sorted(site.hosts, key=lambda host: host.name)
    assert [host.preference for host in ordered] == sorted(host.preference for host in ordered)


def test_equal_preferences_are_shuffled():
    """RFC 5321 section 5.1."""
    site = make_site([Host("a.example", 10), Host("b.example", 10), Host("z.example", 20)])
    chance = random.Random(1)
    firsts = [order_hosts(site, chance.shuffle)[0].name for _ in range(100)]
    assert 30 < firsts.count("a.example") < 70
    assert "z.example" not in firsts


@pytest.mark.parametrize(
    ("address_family", "sources", "family"),
    [
        ("prefer_v4", ["192.0.2.1", "2001:db8::1"], "prefer_v4"),
        ("prefer_v6", ["192.0.2.1"], "v4"),
        ("prefer_v4", ["2001:db8::1"], "v6"),
        ("v6", ["192.0.2.1"], ""),
        ("v4", ["192.0.2.1"], "v4"),
        ("v6", ["192.0.2.1", "2001:db8::1"], "v6"),
        ("prefer_v6", [], "prefer_v6"),
    ],
)
def test_family_is_narrowed_to_those_that_have_a_source(address_family, sources, family):
    assert pick_family(address_family, sources) == family


@pytest.mark.parametrize(
    ("addresses", "most", "kept"),
    [
        (["::1", "::2", "::3", "192.0.2.1"], 3, ["::1", "::2", "192.0.2.1"]),
        (
            ["::1", "::2", "::3", "::4", "192.0.2.1", "192.0.2.2"],
            5,
            ["::1", "::2", "::3", "192.0.2.1", "192.0.2.2"],
        ),
        (["192.0.2.1", "::1"], 5, ["192.0.2.1", "::1"]),
        (["192.0.2.1", "192.0.2.2", "192.0.2.3"], 2, ["192.0.2.1", "192.0.2.2"]),
        (["::1", "192.0.2.1"], 1, ["::1"]),
        (["::1"], 0, []),
    ],
)
def test_both_families_of_a_host_are_among_what_is_tried(addresses, most, kept):
    """RFC 5321 section 5.1: "MUST try ... each of the relevant addresses" of a host, in a bound."""
    assert balance(addresses, most) == kept


def test_a_host_of_the_configuration_is_a_name_or_an_address():
    assert (routed_host("relay.example").address, routed_host("relay.example").is_routed) == ("", True)
    assert routed_host("::1").address == "::1"


def test_what_is_asked_of_tls_changes_neither_the_login_nor_the_plain_name() -> None:
    access = Access(user="news +1", password="p")
    site = make_site([Host("smart.example", is_routed=True)], is_route=True, access=access)
    asked = with_word(site, REQUIRED)
    assert asked.name != site.name
    assert asked.access == access
    assert asked.plain_name == site.plain_name == site.name
    assert with_demand(asked, NO_DEMAND) == site
