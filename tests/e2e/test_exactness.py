"""Limits as the peer counts them: never over by one, and used, through reloads and kills of shards.

The sink alone judges. Each destination has an address of the sink for itself, so that a path is a pair of
(listening address, source address) there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from engine.rig.job import Planned, write_plan
from engine.rig.tally import highest_in_window
from tests.e2e.configuration import Configuration, free_port
from tests.e2e.engine_process import EngineProcess
from tests.e2e.judging import (
    instants_by_path,
    open_share,
    peak_connections,
    used_share,
)
from tests.e2e.sink_process import ROOT, SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(110)]

VMTAS = 20
LEAST_USED = 0.95
FINAL_DELAY_S = 0.5  # of destinations whose connections bind: a connection carries two messages a second
LOAD_S = 60.0  # of backlog for each destination: more than loading and disturbing take
# What comes between a kill and the next message of a path: back-off and start of the process, the quiet of
# 2 s after a restart, one interval of the slowest rate. Longer is a failure of its own.
RECOVERY_S = 6.0


@dataclass(frozen=True)
class Destination:
    """A recipient domain with one limit that binds."""

    number: int
    connections: int = 0
    count: int = 0
    window_s: float = 0.0

    @property
    def domain(self) -> str:
        return f"d{self.number}.exact.example"

    @property
    def listen(self) -> str:
        return f"127.0.9.{10 + self.number}"

    @property
    def policy(self) -> str:
        head = f'[domain."{self.domain}"]\n'
        if self.connections:
            return head + f"max_connections = {self.connections}\n"
        rate = f"{self.count}/{self.window_s:g}s" if self.window_s >= 1 else f"{self.count}/250ms"
        return head + f'max_message_rate = "{rate}"\nmax_connections = 4\n'

    @property
    def per_s(self) -> float:
        """Messages a second that all vmtas together may send."""
        each = self.connections / FINAL_DELAY_S if self.connections else self.count / self.window_s
        return each * VMTAS


DESTINATIONS = [
    Destination(0, connections=1),
    Destination(1, connections=2),
    Destination(2, connections=3),
    Destination(3, count=4, window_s=1.0),
    Destination(4, count=10, window_s=1.0),
    Destination(5, count=2, window_s=0.25),
    Destination(6, count=12, window_s=2.0),
    Destination(7, count=25, window_s=5.0),
]


@pytest.fixture
def exact_sink(root: Path) -> Iterator[SinkProcess]:
    slow = [
        {"at": "final", "domain": each.domain, "delay_s": FINAL_DELAY_S}
        for each in DESTINATIONS
        if each.connections
    ]
    process = SinkProcess(root, free_port("127.0.9.10"), *[each.listen for each in DESTINATIONS])
    yield process.start(slow)
    process.close()


@pytest.fixture
def exact_configuration(root: Path, exact_sink: SinkProcess) -> Configuration:
    made = Configuration(root)
    made.routes = {each.domain: f"{each.listen}:{exact_sink.port}" for each in DESTINATIONS}
    made.policies = (
        '[default]\nmax_message_rate = "unlimited"\nmax_connection_rate = "unlimited"\n'
        "max_messages_per_connection = 1000000\n" + "".join(each.policy for each in DESTINATIONS)
    )
    made.add_customer("acme", *[f"127.0.1.{number}" for number in range(1, VMTAS + 1)])
    return made


def test_limits_are_exact_through_reloads_and_kills(
    exact_configuration: Configuration, exact_sink: SinkProcess
) -> None:
    port = exact_configuration.add_smtp(customer="acme")
    engine = EngineProcess(exact_configuration)
    try:
        engine.start()
        load(exact_configuration.root, port)
        began = time.monotonic()
        kills = disturb(engine)
        ended = time.monotonic()
        arrivals, links = exact_sink.arrivals(), exact_sink.links()
    finally:
        engine.close()
    assert len(kills) == 2
    check_connections_never_over(links)
    check_rates_never_over(arrivals)
    check_backlog(engine, arrivals, ended)
    check_used(arrivals, links, [began, *kills, ended])


def load(root: Path, port: int) -> None:
    """Inject enough for every path to have backlog to the end, dealt evenly over the time."""
    plan = []
    for each in DESTINATIONS:
        for number in range(int(each.per_s * LOAD_S)):
            test_id = f"{each.number}-{number}"
            recipient = f"u{number}@{each.domain}"
            plan.append((number / each.per_s, Planned(test_id, "news@acme.example", [recipient], 1000)))
    write_plan(root / "plan.jsonl", [line for _, line in sorted(plan, key=lambda row: row[0])])
    command = [sys.executable, "-m", "engine.rig.source", "--to", f"127.0.0.1:{port}", "--sessions", "20"]
    command += ["--plan", str(root / "plan.jsonl"), "--messages", str(len(plan)), "--seconds", "30"]
    command += ["--report", str(root / "source.json")]
    assert subprocess.run(command, cwd=ROOT, timeout=40, check=False).returncode == 0


def disturb(engine: EngineProcess) -> list[float]:
    """Reload twice and kill each shard once; return the instants of the kills."""
    configuration = engine.configuration
    kills = []
    time.sleep(4.0)
    configuration.policies += '[domain."unrelated.example"]\nmax_connections = 7\n'
    engine.reload()
    time.sleep(3.0)
    for number, victim in enumerate(sorted(engine.shard_pids())):
        kills.append(time.monotonic())
        os.kill(victim, signal.SIGKILL)
        time.sleep(8.0)
        if not number:
            source = f"127.0.2.{number + 1}"
            configuration.vmtas.append({"name": "spare", "source": source, "hostname": "spare.acme.example"})
            engine.reload()
    return kills


def check_connections_never_over(links: Sequence) -> None:
    peaks = peak_connections(links)
    for each in DESTINATIONS:
        limit = each.connections or 4
        over = {key: peak for key, peak in peaks.items() if key[0] == each.listen and peak > limit}
        assert not over, f"max_connections {limit} of {each.domain}: {over}"


def check_rates_never_over(arrivals: Sequence) -> None:
    for (listen, source), instants in instants_by_path(arrivals).items():
        each = DESTINATIONS[int(listen.rpartition(".")[2]) - 10]
        if each.count:
            highest = highest_in_window(instants, each.window_s)
            limit = f"{each.count} in {each.window_s:g} s"
            assert highest <= each.count, f"{source} to {each.domain}: {highest}, allowed are {limit}"


def check_backlog(engine: EngineProcess, arrivals: Sequence, ended: float) -> None:
    """There was more to send to every destination until the end: else nothing below is said."""
    for each in DESTINATIONS:
        sent = sum(arrival.listen == each.listen and arrival.at <= ended for arrival in arrivals)
        assert sent < each.per_s * LOAD_S - each.per_s, f"{each.domain} ran dry: {sent}"


def check_used(arrivals: Sequence, links: Sequence, edges: list[float]) -> None:
    """At least 95 % of each allowance of a second or more was used, outages of the path's shard apart."""
    paths = instants_by_path(arrivals)
    poor = []
    for each in DESTINATIONS:
        if each.count and each.window_s < 1.0:
            continue
        own = {key: instants for key, instants in paths.items() if key[0] == each.listen}
        assert len(own) == VMTAS
        used = 0.0
        for key, instants in own.items():
            spans = spans_in_service(instants, edges)
            if each.connections:
                used += open_share(links, *key, each.connections, spans) / VMTAS
            else:
                used += used_share(instants, each.count, each.window_s, spans) / VMTAS
        if used < LEAST_USED:
            poor.append(f"{each.domain}: {used:.3f}")
    assert not poor, f"allowances used: {poor}"


def spans_in_service(instants: Sequence[float], edges: list[float]) -> list[tuple[float, float]]:
    """Return when a path was in service: from its first message after an edge to the next edge.

    A path whose shard was not killed has no gap there: it begins again with its next message.
    """
    spans = []
    for begin, end in pairwise(edges):
        first = next((instant for instant in instants if instant >= begin), None)
        assert first is not None
        assert first - begin <= RECOVERY_S, f"a path took {first - begin:.1f} s to send again"
        spans.append((first, end))
    return spans
