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
    assert not own.has_any(["0.0.0.0", "192.0.2.1"])  # a wildcard says nothing of who we are
    assert not own.is_named("mx.acme.example")


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
