"""The configurations that the bench writes are ones that the engine takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.mailrail import LIMITS, MailrailSetup, write_configuration
from bench.throughput import next_hops
from engine.loading import build_model, load_texts


@pytest.mark.parametrize("has_dkim", [False, True])
def test_configuration_loads_and_only_limits_differ(has_dkim: bool, tmp_path: Path) -> None:
    routes = {domain: f"{host}:2610" for domain, host in next_hops(500).items()}
    write_configuration(tmp_path, MailrailSetup(2620, routes, has_dkim=has_dkim, durability="async"))
    model = build_model(load_texts(str(tmp_path / "mailrail.toml")))
    assert len(model.settings.vmtas) == 20
    assert len(model.settings.routes) == 500
    assert model.settings.engine.durability == "async"
    assert len(model.settings.customers["bench"].dkim) == has_dkim
    destination = model.policies.destination("d0.bench.example", "route:127.1.0.1:2610", ())
    policy = model.policies.effective(destination, "bench", "v0")
    assert policy.max_connections == int(LIMITS["max_connections"])
    assert policy.max_message_rate is None


def test_every_destination_has_a_next_hop_of_its_own() -> None:
    assert len(set(next_hops(600).values())) == 600
