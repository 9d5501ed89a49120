"""`mailrail retry` over the whole engine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import inject
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]


def test_poison_and_deferred_mail_leave_when_the_operator_says_so(
    configuration: Configuration, sink: SinkProcess, run_engine: Callable[..., EngineProcess]
) -> None:
    configuration.policies += 'retry = ["1h"]\n'
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    port = configuration.add_smtp(customer="acme")
    sink.start([{"at": "rcpt", "reply": "450 4.2.1 later", "times": 1, "per": "rcpt"}])
    engine = run_engine()
    inject(port, "news@acme.example", ["poison@one.example", "deferred@two.example"])
    wait_until(lambda: len(engine.events_of("deferred")) == 2, 15.0, "both deferred")
    ids = {event["recipient"]: event["id"] for event in engine.events_of("deferred")}
    engine.kill_supervisor()
    record = {ids["poison@one.example"] + "0000": {"weight": 4, "seen_at": time.time()}}
    (configuration.data_dir / "poison.json").write_text(json.dumps(record))
    engine = run_engine()
    path = f"/messages/{ids['poison@one.example']}"
    wait_until(lambda: engine.get(path)["deliveries"][0]["held"] == "poison", 10.0, "the hold is committed")
    for recipient, released in (("poison@one.example", 1), ("deferred@two.example", 0)):
        command = [sys.executable, "-m", "engine", "retry", ids[recipient], "--json"]
        command += ["-c", str(configuration.file)]
        answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
        assert (answer["due"], answer["released"]) == (1, released)
    sink.wait_messages(2)
    wait_until(lambda: len(engine.events_of("delivered")) == 2, 15.0, "both delivered")
    assert json.loads((configuration.data_dir / "poison.json").read_text()) == {}
    answer = engine.post("/retry", {"id": ids["poison@one.example"]})
    assert "no shard holds" in answer["error"]
    assert engine.stop() == 0
