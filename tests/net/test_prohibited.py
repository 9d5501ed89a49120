"""Addresses that are never connected to, in every disguise."""

from __future__ import annotations

import pytest

from engine.net.prohibited import ProhibitedNetworks
from engine.settings.model import PROHIBITED_NETWORKS

DEFAULT = ProhibitedNetworks(PROHIBITED_NETWORKS)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.0.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::25",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "localhost",
        "127.1",
        "",
    ],
)
def test_default_covers(address):
    assert DEFAULT.covers(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "2a00:1450::1a", "64:ff9b::808:808", "2002:808:808::"]
)
def test_default_leaves_public_addresses(address):
    assert not DEFAULT.covers(address)


def test_mapped_address_is_covered_by_its_ipv4_network_alone():
    networks = ProhibitedNetworks(["192.0.2.0/24"])
    assert networks.covers("::ffff:192.0.2.1")
    assert not networks.covers("::ffff:198.51.100.1")


def test_no_networks_prohibit_nothing():
    assert not ProhibitedNetworks([]).covers("127.0.0.1")


def test_network_of_mapped_addresses_is_the_ipv4_network_and_the_whole_form_is_itself():
    """RFC 4291 section 2.5.5.2."""
    networks = ProhibitedNetworks(["::ffff:192.0.2.0/120"])
    assert networks.covers("192.0.2.7")
    assert networks.covers("::ffff:192.0.2.7")
    assert not networks.covers("198.51.100.1")
    form = ProhibitedNetworks(["::ffff:0:0/96"])
    assert form.covers("::ffff:198.51.100.1")
    assert not form.covers("198.51.100.1")
