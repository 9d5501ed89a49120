"""`durability = "async"`: what it still promises. Mail is answered, delivered once, and kept over a stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from engine.client import SocketClient, Submission
from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import addresses, inject, make_message
from tests.e2e.judging import copies
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(30)]

Run = Callable[..., EngineProcess]

SENDER = "news@acme.example"
COMMITTED_S = 1.0  # a commit is due every 0.2 s; the rest is for a busy machine
NOT_NOW = {"at": "mail", "reply": "451 4.3.2 not now"}


@pytest.fixture
def configuration(configuration: Configuration) -> Configuration:
    """One customer, asynchronous commits."""
    configuration.engine["durability"] = "async"
    configuration.policies += 'retry = ["1s"]\n'
    configuration.add_customer("acme", "127.0.1.1", "127.0.1.2")
    return configuration


def assert_taken_once(sink: SinkProcess, sent: dict[str, str]) -> None:
    """Everything that was accepted reached the sink, and nothing twice."""
    taken = copies(sink.arrivals())
    assert sorted(taken) == sorted(sent.items())
    assert all(len(instants) == 1 for instants in taken.values())


def assert_all_goes(sink: SinkProcess, sent: dict[str, str]) -> None:
    """The sink refuses nothing from now on, and gets what is left."""
    sink.use_rules([])
    sink.wait_messages(len(sent))
    assert_taken_once(sink, sent)


def serve(
    configuration: Configuration, sink: SinkProcess, run_engine: Run, rule: dict[str, Any]
) -> tuple[EngineProcess, int]:
    """Start sink and engine; return the engine and the port of its SMTP listener."""
    port = configuration.add_smtp(customer="acme")
    sink.start([rule])
    return run_engine(), port


def wait_stored(engine: EngineProcess, count: int) -> None:
    """Wait until the stores hold so many deliveries."""
    wait_until(
        lambda: engine.get("/status")["counts"].get("stored", 0) == count, 10, f"{count} deliveries stored"
    )


def test_mail_of_every_feed_is_answered_and_delivered_once(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    port = configuration.add_smtp(customer="acme")
    configuration.listeners += [
        {"protocol": "socket", "path": str(configuration.socket), "customer": "acme"},
        {"protocol": "spool", "path": str(configuration.spool), "customer": "acme"},
    ]
    sink.start()
    engine = run_engine()
    sent = inject(port, SENDER, addresses(50, "one.example", "two.example"), prefix="smtp")
    by_socket = {f"socket-{n}": rcpt for n, rcpt in enumerate(addresses(50, "one.example", "two.example"))}
    with SocketClient(str(configuration.socket)) as client:
        rows = [
            Submission(sender=SENDER, recipients=[rcpt], message=make_message(SENDER, rcpt, test_id))
            for test_id, rcpt in by_socket.items()
        ]
        assert all(reply.is_accepted and reply.message_ids for reply in client.submit_all(rows))
    by_spool = {f"spool-{n}": rcpt for n, rcpt in enumerate(addresses(20, "one.example", "two.example"))}
    for test_id, rcpt in by_spool.items():
        draft = configuration.spool / "tmp" / test_id
        draft.write_bytes(make_message(SENDER, rcpt, test_id))
        draft.rename(configuration.spool / "new" / test_id)
    sent |= by_socket | by_spool
    sink.wait_messages(120)
    assert_taken_once(sink, sent)
    wait_until(lambda: len(engine.events_of("delivered")) == 120, 10, "120 delivered events")
    assert len(engine.events_of("accepted")) == 120
    wait_until(
        lambda: not [path for path in configuration.spool.rglob("*") if path.name in by_spool],
        10,
        "spool files are gone, once their messages are on the disk",
    )
    wait_stored(engine, 0)
    assert engine.stop() == 0


def test_a_stop_right_after_the_last_answer_keeps_the_backlog(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    """The last answers are younger than a commit: it is the stop that puts them on the disk."""
    engine, port = serve(configuration, sink, run_engine, NOT_NOW)
    sent = inject(port, SENDER, addresses(100, "one.example", "two.example"))
    assert engine.stop() == 0
    assert sink.count() == 0
    assert len(engine.events_of("accepted")) == 100
    engine = run_engine()
    assert_all_goes(sink, sent)
    wait_until(lambda: len(engine.events_of("delivered")) == 100, 10, "100 delivered events")
    assert engine.stop() == 0


def test_a_stop_amid_deliveries_repeats_none(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    """What was delivered just before the stop is known to be, though its removal was not yet committed."""
    configuration.policies += "max_connections = 2\n"
    engine, port = serve(configuration, sink, run_engine, {"at": "final", "delay_s": 0.05})
    sent = inject(port, SENDER, addresses(150, "one.example"))
    assert engine.stop() == 0
    first_run = sink.count()
    assert len(engine.events_of("delivered")) == first_run < 150
    engine = run_engine()
    assert_all_goes(sink, sent)
    assert engine.stop() == 0


def test_what_is_older_than_a_commit_survives_the_death_of_a_shard(
    configuration: Configuration, sink: SinkProcess, run_engine: Run
) -> None:
    engine, port = serve(configuration, sink, run_engine, NOT_NOW)
    sent = inject(port, SENDER, addresses(50, "one.example", "two.example"))
    time.sleep(COMMITTED_S)
    shards = engine.shard_pids()
    for pid in shards:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(shards) & set(engine.shard_pids()), 5, "the shards are gone")
    wait_until(lambda: len(engine.shard_pids()) == len(shards), 10, "their successors")
    engine.wait_up()
    assert_all_goes(sink, sent)
    assert engine.stop() == 0
