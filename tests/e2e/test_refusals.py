"""What a refusal means decides over the whole engine, not its code alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import inject
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]


def test_550_too_fast_is_tried_again_and_452_that_never_heals_bounces(
    configuration: Configuration, sink: SinkProcess, run_engine: Callable[..., EngineProcess]
) -> None:
    configuration.policies += 'retry = ["200ms"]\n[category.rate-limited]\nwait_factor = 3\n'
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    sink.start(
        [
            {
                "at": "rcpt",
                "domain": "fast.example",
                "reply": "550 5.7.1 too many messages, slow down",
                "times": 2,
            },
            {"at": "rcpt", "domain": "large.example", "reply": "452 4.3.4 message exceeds fixed size limit"},
        ]
    )
    engine = run_engine()
    inject(port, "news@acme.example", ["u@fast.example"])
    inject(port, "news@acme.example", ["u@large.example"])

    def is_taken() -> bool:
        return any(event["recipient"] == "u@fast.example" for event in engine.events_of("delivered"))

    wait_until(is_taken, 20.0, "the third attempt is taken")
    wait_until(lambda: engine.events_of("bounced"), 20.0, "the other bounces")
    deferred = engine.events_of("deferred")
    assert [(each["category"], each["rule"], each["action"]) for each in deferred] == [
        ("rate-limited", "rate", "retry_slower")
    ] * 2
    assert all(each["due_at"] - each["time"] > 0.5 for each in deferred)
    (bounced,) = engine.events_of("bounced")
    assert (bounced["category"], bounced["action"]) == ("message-too-large", "give_up")
    assert (bounced["attempt"], bounced["reply"]["code"]) == (1, 452)
    assert engine.stop() == 0


def test_block_of_one_address_is_retried_from_another(
    configuration: Configuration, sink: SinkProcess, run_engine: Callable[..., EngineProcess]
) -> None:
    configuration.policies += 'retry = ["200ms"]\n'
    configuration.engine["shards"] = 1
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    port = configuration.add_smtp(customer="acme")
    blocked = {"at": "final", "reply": "451 4.7.1 your address is blocked using zen.spamhaus.org"}
    sink.start([{**blocked, "source": "127.0.1.1"}])
    engine = run_engine()
    for number in range(6):
        inject(port, "news@acme.example", [f"u{number}@d{number}.example"])
    wait_until(lambda: len(engine.events_of("delivered")) == 6, 30.0, "all are delivered")
    assert {event["source"] for event in engine.events_of("delivered")} == {"127.0.1.2"}
    assert {event["action"] for event in engine.events_of("deferred")} <= {"other_vmta"}
    assert max((event["attempt"] for event in engine.events_of("delivered")), default=1) <= 2
    assert engine.stop() == 0
