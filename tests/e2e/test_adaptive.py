"""Connections and rate follow what the peer shows, over the whole engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import addresses, inject
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

SOURCE = "127.0.1.1"
LET_IN = 3
RATE, WINDOW_S = 20, 10.0
POLICY = 'retry = ["5s"]\nmax_messages_per_connection = 10000\n'


@pytest.fixture
def port(configuration: Configuration) -> int:
    configuration.engine["shards"] = 1
    configuration.policies += POLICY
    configuration.add_customer("acme", SOURCE)
    return configuration.add_smtp(customer="acme")


def paths(engine: EngineProcess) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = engine.get("/paths")["paths"]
    return rows


def test_peer_that_lets_three_connections_in_is_asked_for_three(
    port: int, sink: SinkProcess, configuration: Configuration, run_engine: Callable[..., EngineProcess]
) -> None:
    crowded = {"at": "connect", "reply": "421 4.7.0 too many connections from your address", "close": True}
    sink.start([{**crowded, "above": LET_IN}, {"at": "final", "delay_s": 0.1}])
    engine = run_engine()
    inject(port, "news@acme.example", addresses(200, "many.example"))
    wait_until(lambda: sink.count() >= 200, 60.0, "all are delivered")
    assert not engine.events_of("bounced")
    opened = sum(link.change > 0 for link in sink.links())
    refused = opened - LET_IN
    assert 1 <= refused <= 10 - LET_IN + 3  # those that were opened at once, and few behind them
    (path,) = paths(engine)
    assert path["max_connections"] == LET_IN
    assert path["ceilings"] == [{"key": "adaptive", "why": "adaptive limits", "connections": LET_IN}]
    assert engine.stop() == 0


def test_peer_that_says_too_fast_gets_few_and_then_what_it_takes_over_a_restart_too(
    port: int, sink: SinkProcess, configuration: Configuration, run_engine: Callable[..., EngineProcess]
) -> None:
    sink.start(
        [
            {
                "at": "final",
                "reply": "450 4.7.1 too many messages, slow down",
                "over": RATE,
                "window_s": WINDOW_S,
            }
        ]
    )
    engine = run_engine()
    inject(port, "news@acme.example", addresses(300, "fast.example"))

    def is_bounded() -> bool:
        return any(path["max_message_rate"] == "1/20s" for path in paths(engine))

    wait_until(is_bounded, 20.0, "one at a time asks")
    refused = len(engine.events_of("deferred"))
    assert refused <= 20  # what was in flight
    (path,) = paths(engine)
    assert "adaptive limits" in path["reason"]
    assert engine.stop() == 0
    again = run_engine()
    inject(port, "news@acme.example", addresses(2, "fast.example"))
    wait_until(is_bounded, 20.0, "it still asks")
    wait_until(lambda: any(path["max_message_rate"] != "1/20s" for path in paths(again)), 90.0, "it goes on")
    rate = next(path["ceilings"][0]["rate"] for path in paths(again) if path["ceilings"])
    assert rate
    assert again.stop() == 0
