from __future__ import annotations

from pathlib import Path

from engine.core.units import Rate
from engine.demo.configuration import SHARDS, Places, format_policies, format_settings
from engine.demo.scenario import make_scenario
from engine.loading import Texts, build_model, load_texts

SCENARIO = make_scenario(100)


def load(root: Path) -> Texts:
    places = Places(root, 2600, 8025, {"acme": 2525, "globex": 2526})
    places.policies.mkdir()
    places.config.write_text(format_settings(SCENARIO, places))
    (places.policies / "demo.toml").write_text(format_policies(SCENARIO))
    return load_texts(str(places.config))


def test_configuration_is_one_that_the_engine_takes(tmp_path: Path) -> None:
    settings = build_model(load(tmp_path)).settings
    assert settings.engine.shards == SHARDS
    assert settings.engine.durability == "sync"
    assert {vmta.v4: vmta.hostname for vmta in settings.vmtas.values()} == {
        source: vmta.hostname for source, vmta in SCENARIO.vmta_at.items()
    }
    assert {row.customer: row.protocol for row in settings.listeners} == {
        customer.name: customer.feed for customer in SCENARIO.customers
    }


def test_policies_say_the_limits_of_the_scenario(tmp_path: Path) -> None:
    policies = build_model(load(tmp_path)).policies
    for domain, expected in SCENARIO.destination_of.items():
        destination = policies.destination(domain, "route:127.0.0.1:25", ())
        policy = policies.effective(destination)
        assert destination.name == expected.name
        assert policy.max_connections == expected.max_connections
        assert policy.max_message_rate == expected.rate
    assert SCENARIO.destination_named["bigmail"].rate == Rate(10, 1.0)


def test_routes_lead_to_the_sinks(tmp_path: Path) -> None:
    routes = build_model(load(tmp_path)).settings.routes
    assert {domain: route.hosts for domain, route in routes.items()} == {
        domain: (f"{host}:2600",) for domain, host in SCENARIO.host_of.items()
    }
