"""Settings as values: what they answer, and what they never print."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec
import pytest

from engine.settings.model import (
    AUTH_PROTOCOLS,
    PROHIBITED_NETWORKS,
    SMTP_PROTOCOLS,
    AdminSettings,
    Customer,
    EgressProxy,
    EngineSettings,
    Route,
    Settings,
    VirtualMTA,
)

ENGINE = EngineSettings(hostname="mta.example", data_dir="/data")


def make_settings(*customers: Customer) -> Settings:
    return Settings(
        engine=ENGINE,
        admin=AdminSettings(),
        listeners=(),
        vmtas={},
        pools={},
        customers={customer.name: customer for customer in customers},
        routes={},
    )


@pytest.mark.parametrize(
    ("v4", "v6", "addresses"),
    [
        ("192.0.2.1", "", ["192.0.2.1"]),
        ("", "2001:db8::1", ["2001:db8::1"]),
        ("192.0.2.1", "2001:db8::1", ["192.0.2.1", "2001:db8::1"]),
    ],
)
def test_a_vmta_has_the_addresses_that_it_names(v4: str, v6: str, addresses: list[str]) -> None:
    assert VirtualMTA(name="v", v4=v4, v6=v6, hostname="v.example").addresses == addresses


def test_a_sender_is_the_first_customers_who_may_use_it() -> None:
    settings = make_settings(
        Customer(name="one", pool="p", senders=("news@acme.example",)),
        Customer(name="two", pool="p", senders=("*@b.example", "*@acme.example")),
        Customer(name="three", pool="p", senders=("*",)),
    )
    found = [settings.sender_of(sender) for sender in ("news@acme.example", "x@acme.example", "x@c.example")]
    assert [customer.name if customer else None for customer in found] == ["one", "two", "three"]


def test_a_sender_that_nobody_may_use_is_nobodys() -> None:
    settings = make_settings(Customer(name="one", pool="p", senders=("*@acme.example",)))
    assert settings.sender_of("x@c.example") is None
    assert settings.sender_of("") is None


@pytest.mark.parametrize(
    "secret",
    [
        EgressProxy(kind="socks5", host="proxy.example", port=1080, user="ann", password="secret"),
        Route(hosts=("relay.example:587",), user="ann", password="secret"),
    ],
)
def test_whatever_prints_a_password_holder_does_not_print_the_password(secret: object) -> None:
    for text in (str(secret), repr(secret), f"{secret}", f"{[secret]}"):
        assert "secret" not in text


def test_a_proxy_is_told_as_it_is_written() -> None:
    assert str(EgressProxy(kind="haproxy", host="2001:db8::1", port=5000)) == "haproxy:[2001:db8::1]:5000"
    assert str(EgressProxy(kind="socks5", host="192.0.2.1", port=1080)) == "socks5:192.0.2.1:1080"


def test_a_route_is_told_with_whom_it_logs_in_as() -> None:
    assert repr(Route(hosts=("a:25", "b:25"))) == "Route(a:25, b:25)"
    assert repr(Route(hosts=("a:25",), user="ann")) == "Route(a:25 as ann)"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "0.0.0.0",
        "::1",
        "::",
        "::ffff:192.0.2.1",
        "fe80::1",
        "fd00::1",
        "255.255.255.255",
    ],
)
def test_addresses_that_lead_nowhere_outside_are_prohibited(address: str) -> None:
    found = ip_address(address)
    networks = [ip_network(each) for each in PROHIBITED_NETWORKS]
    assert any(found in network for network in networks if network.version == found.version)


@pytest.mark.parametrize("address", ["8.8.8.8", "203.0.113.1", "2001:4860::1", "172.32.0.1", "100.128.0.1"])
def test_addresses_of_the_world_are_not(address: str) -> None:
    found = ip_address(address)
    networks = [ip_network(each) for each in PROHIBITED_NETWORKS]
    assert not any(found in network for network in networks if network.version == found.version)


def test_who_submits_does_so_by_smtp() -> None:
    assert set(AUTH_PROTOCOLS) < set(SMTP_PROTOCOLS)


def test_settings_in_force_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        ENGINE.hostname = "other.example"  # type: ignore[misc]
    assert msgspec.structs.replace(ENGINE, hostname="other.example").hostname == "other.example"
