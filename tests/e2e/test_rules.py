"""Rules for replies over the whole engine: two shards, a sink that says what rules wait for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import addresses, inject
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

Run = Callable[..., EngineProcess]
SENDER = "news@acme.example"
HOLD = '[[default.on_reply]]\nname = "stop"\ncode = 421\ndo = "hold"\nfor = "1h"\n'
REFUSES_ONE = "127.0.1.1"
RETRY = 'retry = ["1s"]\n'


def rules_of(engine: EngineProcess) -> dict[str, Any]:
    return {row["key"]: row for row in engine.get("/rules")["reactions"]}


def command(configuration: Configuration, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "engine", *words, "-c", str(configuration.file)]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)


def test_a_hold_is_in_force_at_once_survives_and_ends_when_an_operator_says_so(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    """No message of the refused source arrives behind those that were on their way; others carry on."""
    configuration.policies += RETRY + "outstanding = 3\n" + HOLD
    configuration.add_customer("acme", *[f"127.0.1.{number}" for number in range(1, 5)])
    port = configuration.add_smtp(customer="acme")
    sink.start([{"at": "final", "source": REFUSES_ONE, "every": 40, "reply": "421 4.7.0 too much"}])
    engine = run_engine()
    inject(port, SENDER, addresses(300, "one.example"))
    sink.wait_messages(299, 60.0)
    wait_until(lambda: len(engine.events_of("delivered")) == 300, 20.0, "all delivered")
    (key,) = rules_of(engine)
    assert key.startswith("stop@acme-1/")
    (refused,) = [each for each in sink.arrivals() if not each.is_taken]
    behind = [each for each in sink.arrivals() if each.source == REFUSES_ONE and each.at > refused.at]
    assert len(behind) <= 30  # at most what 10 sessions had on their way
    assert all(each.at - refused.at < 0.5 for each in behind)
    (event,) = [each for each in engine.events_of("deferred") if each.get("reply_rule")]
    assert (event["reply_rule"], event["vmta"]) == ("stop", "acme-1")
    (told,) = engine.events_of("rule")
    assert (told["reply_rule"], told["action"], told["reply"]["code"]) == ("stop", "hold", 421)
    metrics = engine.get("/metrics")
    assert 'mailrail_reply_rules_total{action="hold",rule="stop"} 1' in metrics

    owner = json.loads((configuration.data_dir / "assignment.json").read_text())["vmtas"]["acme-1"]
    os.kill(engine.get("/status")["shards"][owner]["pid"], signal.SIGKILL)
    wait_until(lambda: engine.get("/status")["shards"][owner]["starts"] == 2, 20.0, "restart")
    wait_until(lambda: key in rules_of(engine), 20.0, "the hold after a kill")
    assert engine.stop() == 0
    engine = run_engine()
    assert rules_of(engine)[key]["until_at"] - time.time() > 3000

    shown = command(configuration, "explain", "one.example", "--vmta", "acme-1").stdout
    assert "stop: hold for 1h, on code 421" in shown
    assert "in force: hold for 1h, until" in shown
    assert key in shown
    listed = json.loads(command(configuration, "rules", "one.example", "--json").stdout)
    assert [row["rule"] for row in listed["rules"]] == ["stop"]
    assert [row["key"] for row in listed["reactions"]] == [key]
    assert command(configuration, "rules", "--cancel", "stop@nobody").returncode == 1
    done = command(configuration, "rules", "--cancel", key)
    assert (done.returncode, done.stdout) == (0, f"cancelled: {key}\n")
    assert rules_of(engine) == {}
    assert engine.stop() == 0
    engine = run_engine()
    assert rules_of(engine) == {}
    sink.use_rules([])
    inject(port, SENDER, addresses(200, "one.example"))
    sink.wait_messages(499, 60.0)
    assert REFUSES_ONE in {each.source for each in sink.arrivals()[-150:]}


def test_what_reaches_beyond_a_shard_is_there_within_a_second(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    purge = '[[default.on_reply]]\nname = "purge"\nmatch = "blocked"\ndo = "bounce"\nscope = "waiting"\n'
    configuration.policies += (
        'retry = ["1h"]\nbounce_message = false\n' + purge + 'for = "1h"\nsamples = ["554 5.7.1 blocked"]\n'
    )
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4")
    port = configuration.add_smtp(customer="acme")
    sink.start([{"at": "rcpt", "reply": "450 4.2.1 later"}])
    engine = run_engine()
    inject(port, SENDER, addresses(200, "one.example"))  # of 40 a shard may keep all (queue.placement)
    wait_until(lambda: len(engine.events_of("deferred")) == 200, 30.0, "all deferred for an hour")
    sink.use_rules([{"at": "rcpt", "reply": "554 5.7.1 sender domain blocked", "rcpt": "last@one.example"}])
    inject(port, SENDER, ["last@one.example"])
    wait_until(lambda: len(engine.events_of("bounced")) == 201, 5.0, "all bounced")
    bounced = engine.events_of("bounced")
    assert {event["reply_rule"] for event in bounced} == {"purge"}
    times = [event["time"] for event in bounced]
    assert max(times) - min(times) < 2.0
    assert {event.get("shard", 0) for event in bounced} == {0, 1}
    words = [event["reply"]["text"] for event in bounced if event["reply"].get("synthetic")]
    assert set(words) == {"bounced by rule purge after: 554 5.7.1 sender domain blocked"}
    assert engine.get("/status")["counts"]["stored"] == 0
    (key,) = rules_of(engine)
    assert engine.post("/rules/cancel", {"key": key})["cancelled"] == 2


def test_a_reload_brings_rules_and_takes_them_with_what_they_have_in_force(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    plain = configuration.policies + RETRY
    configuration.policies = plain + HOLD
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    sink.start([{"at": "mail", "times": 1, "reply": "421 4.7.0 too much"}])
    engine = run_engine()
    inject(port, SENDER, addresses(20, "one.example"))
    (key,) = wait_until(lambda: rules_of(engine), 10.0, "the hold")
    time.sleep(1.5)
    assert sink.count() == 0
    assert all(row["is_held"] for row in engine.get("/paths")["paths"])
    configuration.policies = plain + HOLD + 'after = "1/1m"\n'
    engine.reload()
    assert list(rules_of(engine)) == [key]
    configuration.policies = plain
    engine.reload()
    assert rules_of(engine) == {}
    sink.wait_messages(20)
    assert all(event["attempt"] <= 2 for event in engine.events_of("delivered"))
