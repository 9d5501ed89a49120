"""Which hosts are this installation itself."""

from __future__ import annotations

from engine.net.own import OwnHosts, loops_back, own_hosts
from engine.net.site import Host
from engine.settings.parse import parse_settings

TEXT = """
[engine]
hostname = "mta1.example.net"
data_dir = "/a"

[[listener]]
protocol = "smtp"
listen = "198.51.100.1:25"
hostname = "mx.example.net"
trusted = true

[[listener]]
protocol = "smtp"
listen = "0.0.0.0:2525"
trusted = true

[[vmta]]
name = "v1"
source = ["203.0.113.10", "2001:db8::10"]
hostname = "mail1.acme.example"
"""


def test_names_and_addresses_of_the_configuration_are_ours() -> None:
    own = own_hosts(parse_settings("mailrail.toml", TEXT))
    for name in ("mta1.example.net", "mx.example.net", "mail1.acme.example"):
        assert own.is_named(name)
    for address in ("203.0.113.10", "2001:db8:0::10", "198.51.100.1"):
        assert own.has_any(["192.0.2.1", address])
    assert not own.has_any(["0.0.0.0", "192.0.2.1"])
    assert not own.is_named("mx.acme.example")


def test_a_listener_on_all_addresses_makes_the_hosts_ours_at_its_port() -> None:
    """RFC 5321 section 6.3: a loop is found before it is entered."""
    here = {"192.0.2.9", "2001:db8::9"}
    own = OwnHosts(wildcards=[(4, 2525)], is_here=here.__contains__)
    assert own
    assert own.has_any(["198.51.100.1", "192.0.2.9"], 2525)
    assert own.has_any(["::ffff:192.0.2.9"], 2525)
    assert not own.has_any(["192.0.2.9"], 25)  # another server's
    assert not own.has_any(["192.0.2.9"])
    assert not own.has_any(["2001:db8::9"], 2525)  # that one listens to IPv4 only
    here.clear()  # the address has left the host
    assert not own.has_any(["192.0.2.9"], 2525)
    here.add("198.51.100.1")
    assert own.has_any(["198.51.100.1"], 2525)


def test_a_wildcard_of_the_configuration_covers_loopback_and_what_the_host_has() -> None:
    own = own_hosts(parse_settings("mailrail.toml", TEXT))
    assert own.has_any(["127.5.6.7"], 2525)
    assert not own.has_any(["127.5.6.7"], 25)
    assert not own.has_any(["198.51.100.77"], 2525)
    assert own == own_hosts(parse_settings("mailrail.toml", TEXT))
    assert own != own_hosts(parse_settings("mailrail.toml", TEXT.replace("0.0.0.0", "127.0.0.1")))


def test_an_ipv4_address_is_ours_in_its_ipv6_form_too() -> None:
    """RFC 4291 section 2.5.5.2."""
    own = own_hosts(parse_settings("mailrail.toml", TEXT))
    assert own.has_any(["::ffff:203.0.113.10"])
    assert OwnHosts(addresses=["::ffff:cb00:710a"]).has_any(["203.0.113.10"])


def test_hosts_of_equal_or_worse_preference_than_ours_are_left_out() -> None:
    """RFC 5321 section 5.1."""
    own = OwnHosts(["us.example"])
    hosts = [Host("best", 5), Host("equal", 10), Host("us.example", 10), Host("worse", 20)]
    assert [host.name for host in own.better_than_us(hosts)] == ["best"]
    assert own.better_than_us(hosts[:2]) == hosts[:2]
    assert own.better_than_us([Host("us.example", 1), Host("worse", 20)]) == []


def test_nobody_is_ours_where_nothing_is_said() -> None:
    assert not OwnHosts()
    assert OwnHosts().better_than_us([Host("mx")]) == [Host("mx")]


def test_the_reply_says_loop() -> None:
    """RFC 3463 section 3.5: X.4.6, routing loop detected."""
    assert loops_back("acme.example").reply.enhanced == "5.4.6"
    assert loops_back("acme.example").reply.is_permanent
