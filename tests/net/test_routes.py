"""Patterns of routes, and their hops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.address import pattern_matches
from engine.net.routes import Routes
from engine.settings.model import Route


def routes(hops: dict[str, list[str]]) -> Routes:
    return Routes({pattern: Route(hosts=tuple(hosts)) for pattern, hosts in hops.items()})


ROUTES = routes(
    {
        "*": ["127.0.0.1:2526"],
        "*.example": ["any.relay.example:25"],
        "*.acme.example": ["acme.relay.example:25"],
        "acme.example": ["exact.relay.example:587", "[2001:db8::1]:25"],
    }
)


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("acme.example", "exact.relay.example"),
        ("news.acme.example", "acme.relay.example"),
        ("a.b.acme.example", "acme.relay.example"),
        ("other.example", "any.relay.example"),
        ("example", "127.0.0.1"),
        ("acme.test", "127.0.0.1"),
        ("notacme.example", "any.relay.example"),
        ("[192.0.2.1]", "127.0.0.1"),
    ],
)
def test_most_specific_pattern_wins(domain, host):
    assert ROUTES.find(domain).hosts[0].name == host


def test_hops_keep_their_order_ports_and_addresses():
    site = ROUTES.find("acme.example")
    assert site.name == "route:exact.relay.example:587;[2001:db8::1]:25"
    assert [(host.port, host.address) for host in site.hosts] == [(587, ""), (25, "2001:db8::1")]
    assert all(host.is_routed for host in site.hosts)


def test_domain_without_a_route_is_for_dns():
    assert routes({}).find("acme.example") is None
    assert routes({"*.example": ["127.0.0.1:25"]}).find("example") is None


LABELS = st.lists(st.sampled_from(["a", "b", "example"]), min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(st.just("*"), LABELS, LABELS.map("*.{}".format))


@given(LABELS, st.sets(PATTERNS))
def test_a_route_is_found_exactly_where_a_pattern_matches(domain, patterns):
    ports = {pattern: port for port, pattern in enumerate(patterns, 1)}
    site = routes({pattern: [f"127.0.0.1:{port}"] for pattern, port in ports.items()}).find(domain)
    matching = [pattern for pattern in patterns if pattern_matches(pattern, domain)]
    if site is None:
        assert not matching
    else:
        best = max(matching, key=lambda pattern: (pattern == domain, len(pattern)))
        assert site.hosts[0].port == ports[best]


def test_lmtp_hops_are_tcp_or_a_unix_socket():
    table = routes(
        {"a.example": ["lmtp:127.0.0.1:24", "lmtp:unix:/run/dovecot/lmtp"], "b.example": ["lmtp:24"]}
    )
    site = table.find("a.example")
    assert site.name == "route:lmtp:127.0.0.1:24;lmtp:unix:/run/dovecot/lmtp"
    tcp, unix = site.hosts
    assert (tcp.address, tcp.port, tcp.is_lmtp, tcp.path) == ("127.0.0.1", 24, True, "")
    assert (unix.address, unix.port, unix.is_lmtp, unix.path) == ("", None, True, "/run/dovecot/lmtp")
    (host,) = table.find("b.example").hosts  # of that name
    assert (host.name, host.port, host.is_lmtp) == ("lmtp", 24, False)


def test_who_logs_in_is_part_of_the_site_and_the_password_is_not():
    route = Route(hosts=("smtp.example:587",), user="acme", password="sesame", tls="verify")
    site = Routes({"a.example": route}).find("a.example")
    assert site.name == "route:smtp.example:587 as acme"
    assert (site.access.user, site.access.password, site.access.tls) == ("acme", "sesame", "verify")
    assert "sesame" not in f"{site} {site!r} {route!r} {site.access}"
