"""A backlog for a rate-limited destination uses the allowance of every vmta, whichever shard took it in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess
from tests.e2e.feeding import addresses, inject
from tests.e2e.judging import instants_by_path
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]

MANY = 60
PER_S = 5.0  # of each vmta: "10/2s", paced


def test_a_backlog_fed_through_one_connection_uses_both_allowances(
    configuration: Configuration, sink: SinkProcess, run_engine: Callable[..., EngineProcess]
) -> None:
    """One shard accepts all of a connection, and keeps more than its part of a short backlog."""
    configuration.policies += '[domain."slow.example"]\nmax_message_rate = "10/2s"\n'
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    port = configuration.add_smtp(customer="acme")
    sink.start()
    engine = run_engine()
    inject(port, "news@acme.example", addresses(MANY, "slow.example"))
    sink.wait_messages(MANY, 40.0)
    arrivals = sink.arrivals()
    assert len({arrival.id for arrival in arrivals}) == len(arrivals) == MANY
    by_source = {source: instants for (_, source), instants in instants_by_path(arrivals).items()}
    assert set(by_source) == {"127.0.1.1", "127.0.1.2"}
    began = min(min(instants) for instants in by_source.values())
    # While there is backlog: a second before the end, at most a permit of each shard is left over.
    ended = max(max(instants) for instants in by_source.values()) - 1.0
    for source, instants in by_source.items():
        used = sum(began <= at <= ended for at in instants) / (PER_S * (ended - began))
        assert used >= 0.9, (source, used, engine.get("/status")["counts"])
