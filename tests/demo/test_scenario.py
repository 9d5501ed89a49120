from __future__ import annotations

import pytest

from engine.demo.scenario import make_scenario


def test_demo_has_the_cast_that_it_promises() -> None:
    scenario = make_scenario(20_000)
    assert len(scenario.customers) == 4
    assert len(scenario.vmta_at) == 12
    assert len(scenario.destinations) == 5
    assert sum(each.rate is None for each in scenario.destinations) == 2
    assert {customer.feed for customer in scenario.customers} == {"smtp", "socket", "spool"}


def test_limits_make_the_whole_demo_last_three_quarters_of_a_minute() -> None:
    assert 40 < make_scenario(20_000).expected_s < 60


@pytest.mark.parametrize("messages", [1, 60, 1_999, 20_000])
def test_volumes_add_up(messages: int) -> None:
    assert sum(make_scenario(messages).volumes.values()) == messages


def test_every_destination_needs_the_same_time() -> None:
    scenario = make_scenario(20_000)
    for (customer, destination), messages in scenario.volumes.items():
        vmtas = sum(owner.name == customer for owner in scenario.customer_at.values())
        rate = scenario.destination_named[destination].per_path_per_s * vmtas
        assert messages / rate == pytest.approx(scenario.expected_s, rel=0.01)


def test_addresses_and_names_are_used_once() -> None:
    scenario = make_scenario(1)
    addresses = [*scenario.vmta_at, *scenario.destination_at]
    assert len(set(addresses)) == len(addresses)
    assert all(address.startswith("127.0.") for address in addresses)
    assert len({vmta.hostname for vmta in scenario.vmta_at.values()}) == 12
