from __future__ import annotations

from collections import Counter

from engine.demo.plan import deal_messages
from engine.demo.scenario import SIZES, make_scenario


def test_plan_has_the_volume_of_each_destination() -> None:
    scenario = make_scenario(2_000)
    for customer in scenario.customers:
        domains = Counter(line.recipients[0].partition("@")[2] for line in deal_messages(scenario, customer))
        for destination in scenario.destinations:
            volume = scenario.volumes[customer.name, destination.name]
            assert sum(domains[domain] for domain in destination.hosts) == volume


def test_domains_of_a_provider_share_evenly() -> None:
    scenario = make_scenario(2_000)
    domains = Counter(
        line.recipients[0].partition("@")[2] for line in deal_messages(scenario, scenario.customers[0])
    )
    assert abs(domains["bigmail.example"] - domains["livebig.example"]) <= 1


def test_plan_is_the_same_in_each_run_and_mixes_sizes_and_destinations() -> None:
    scenario = make_scenario(2_000)
    plan = deal_messages(scenario, scenario.customers[0])
    assert plan == deal_messages(scenario, scenario.customers[0])
    assert {line.size for line in plan} == set(SIZES)
    assert len({line.recipients[0].partition("@")[2] for line in plan[:50]}) == 6
    assert len({line.id for line in plan}) == len(plan)
