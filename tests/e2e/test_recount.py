"""Another number of shards: no mail is left behind, nothing that was spent, no id that was taken."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from engine.client import SocketClient, Submission
from engine.delivery.paths import Spent, encode_spent
from engine.queue.limits import RateState, WindowState
from tests.e2e.configuration import Configuration
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import inject, make_message
from tests.e2e.judging import copies
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(110)]

SENDER = "news@c1.example"
CUSTOMERS = {f"c{number}": f"127.0.1.{number}" for number in range(1, 7)}
LIMITED, LATER = "limited.example", "later.example"
RATE, WINDOW_S = 4, 120.0
IDS = 40


@pytest.fixture
def recounted(configuration: Configuration, sink: SinkProcess) -> Configuration:
    """Six customers with a vmta each, whose long windows are unspent; other mail has to wait."""
    sink.start([{"at": "rcpt", "domain": LATER, "reply": "451 4.7.1 later"}])
    configuration.policies += (
        f'retry = ["1s"]\n[domain."{LIMITED}"]\nmax_message_rate = "{RATE}/{WINDOW_S:g}s"\nburst = {RATE}\n'
    )
    for name, source in CUSTOMERS.items():
        configuration.add_customer(name, source)
    configuration.listeners.append(
        {"protocol": "socket", "path": str(configuration.socket), "customer": "c1"}
    )
    write_unspent(configuration.data_dir / "shard-0")
    return configuration


def write_unspent(directory: Path) -> None:
    """Leave what a shard would have that has run for two minutes and sent nothing.

    Without that a shard knows nothing of the time before, and waits for as long.
    """
    now = time.time()
    spent = RateState(now, [WindowState(WINDOW_S, [now - WINDOW_S + 60.0], [0])])
    rows = [
        Spent((source,), LIMITED, now, [spent, RateState(now, []), RateState(now, [])])
        for source in CUSTOMERS.values()
    ]
    directory.mkdir(parents=True, mode=0o700)
    (directory / "limits").write_bytes(encode_spent(rows))


def test_mail_limits_and_ids_outlive_a_change_of_the_number_of_shards(
    recounted: Configuration, sink: SinkProcess
) -> None:
    ports = {name: recounted.add_smtp(customer=name) for name in CUSTOMERS}
    taken: dict[str, list[str]] = {}
    for turn, shards in enumerate((2, 3, 1), 1):
        recounted.engine["shards"] = shards
        engine = EngineProcess(recounted)
        try:
            engine.start()
            assert set(owners(recounted).values()) == set(range(shards))
            submit(recounted, taken, IDS + 5 * turn)
            for name, port in ports.items():
                count = 1 if shards > 1 else RATE
                inject(port, f"news@{name}.example", [f"{turn}-{n}@{LIMITED}" for n in range(count)])
            each = turn if shards > 1 else RATE
            allowed = Counter(dict.fromkeys(CUSTOMERS.values(), each))
            wait_until(lambda: limited(sink) >= allowed, 15.0, "mail within the allowance")  # noqa: B023
            time.sleep(1.0)
            assert limited(sink) == allowed, "each has spent what it had, and no more"
            if shards == 1:
                sink.use_rules([])
                wait_until(lambda: len(delivered(sink)) == len(taken), 20.0, "all mail of all stores")
                left = [path.name for path in recounted.data_dir.glob("shard-*")]
                assert sorted(left) == ["shard-0", "shard-1", "shard-2"], "asked what they know, for a day"
            assert engine.stop() == 0
        finally:
            engine.close()
    check_sent_once(sink, taken)


def submit(configuration: Configuration, taken: dict[str, list[str]], count: int) -> None:
    """Offer the first so many ids, again where they were taken; every repeat gets the first answer."""
    waiting = {f"s{number}" for number in range(count)}
    deadline = time.monotonic() + 20.0
    with SocketClient(str(configuration.socket)) as client:
        while waiting:
            assert time.monotonic() < deadline, f"not taken: {waiting}"
            for reply in client.submit_all(make_submissions(sorted(waiting))):
                if not reply.is_accepted:
                    assert reply.is_temporary, reply
                    continue
                given_id = str(reply.id)
                waiting.discard(given_id)
                assert taken.setdefault(given_id, list(reply.message_ids)) == list(reply.message_ids)


def make_submissions(ids: Iterable[str]) -> Iterable[Submission]:
    for each in ids:
        to = f"{each}@{LATER}"
        message = make_message(SENDER, to, each)
        yield Submission(id=each, sender=SENDER, recipients=[to], message=message, idempotent=True)


def owners(configuration: Configuration) -> dict[str, int]:
    return dict(json.loads((configuration.data_dir / "assignment.json").read_text())["vmtas"])


def limited(sink: SinkProcess) -> Counter[str]:
    """Return how much mail under the long window came from which source."""
    return Counter(each.source for each in sink.arrivals() if each.recipients[0].endswith(LIMITED))


def delivered(sink: SinkProcess) -> set[str]:
    return {recipient for _, recipient in copies(sink.arrivals()) if recipient.endswith(LATER)}


def check_sent_once(sink: SinkProcess, taken: dict[str, list[str]]) -> None:
    found = {key: instants for key, instants in copies(sink.arrivals()).items() if key[1].endswith(LATER)}
    assert {test_id for test_id, _ in found} == set(taken)
    twice = [key for key, instants in found.items() if len(instants) > 1]
    assert not twice, f"taken twice: {twice[:5]}"
