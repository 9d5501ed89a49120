"""Vmtas that move between shards by a reload, under load: limits hold, nothing is lost, nothing is stranded.

The sink alone judges. A vmta moves where it begins to share an address with others of another shard, or
takes the address of one there; the shard that owned it may be killed in the middle of that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.rig.job import Planned, write_plan
from engine.rig.tally import highest_in_window
from tests.e2e.configuration import Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.feeding import inject
from tests.e2e.judging import (
    copies,
    instants_by_path,
    peak_connections,
    unexplained_duplicates,
    used_share,
)
from tests.e2e.sink_process import ROOT, Arrival, SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(170)]

VMTAS = 6
SHARED = "::1"  # what makes vmtas count together, and so belong to one shard; nothing is sent from it
FINAL_DELAY_S = 0.3
CONNECTIONS = 2
RATE, RATE_WINDOW_S = 5, 1.0
LONG, LONG_WINDOW_S = 10, 62.0
FEW_RATE = 4
AGAIN_S = 8.0  # a path sends again so soon after a move: sessions end, or a shard starts and is quiet for 2 s
LEAST_USED = 0.95
DUPLICATE_BEFORE_KILL_S = 1.25


@dataclass(frozen=True)
class Destination:
    """A recipient domain with a limit that binds, at an address of the sink for itself."""

    name: str
    listen: str
    policy: str
    messages: int

    @property
    def domain(self) -> str:
        return f"{self.name}.moves.example"


BY_CONNECTIONS = Destination("connections", "127.0.9.31", f"max_connections = {CONNECTIONS}", 1400)
BY_RATE = Destination("rate", "127.0.9.32", f'max_message_rate = "{RATE}/s"', 1200)
BY_LONG = Destination("long", "127.0.9.33", f'max_message_rate = "{LONG}/{LONG_WINDOW_S:g}s"', 36)
OF_FEW = Destination("few", "127.0.9.34", f'max_message_rate = "{FEW_RATE}/s"', 200)
DESTINATIONS = [BY_CONNECTIONS, BY_RATE, BY_LONG, OF_FEW]


@pytest.fixture
def moves_sink(root: Path) -> Iterator[SinkProcess]:
    process = SinkProcess(root, free_port("127.0.9.31"), *[each.listen for each in DESTINATIONS])
    yield process.start([{"at": "final", "domain": BY_CONNECTIONS.domain, "delay_s": FINAL_DELAY_S}])
    process.close()


@pytest.fixture
def moves_configuration(root: Path, moves_sink: SinkProcess) -> Configuration:
    made = Configuration(root)
    made.routes = {each.domain: f"{each.listen}:{moves_sink.port}" for each in DESTINATIONS}
    made.policies = (
        '[default]\nmax_message_rate = "unlimited"\nmax_connection_rate = "unlimited"\nmax_connections = 4\n'
        'max_messages_per_connection = 1000000\nretry = ["500ms"]\n'
    ) + "".join(f'[domain."{each.domain}"]\n{each.policy}\n' for each in DESTINATIONS)
    made.add_customer("acme", *[f"127.0.1.{number}" for number in range(1, VMTAS + 1)])
    made.add_customer("globex", "127.0.2.1")
    return made


class Moves:
    """The engine, and which of its vmtas are where."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine = engine
        self.reloads: list[tuple[float, float]] = []  # began, done
        self.kills: list[float] = []

    def owners(self) -> dict[str, int]:
        text = (self.engine.configuration.data_dir / "assignment.json").read_text()
        return dict(json.loads(text)["vmtas"])

    def source_of(self, name: str) -> str:
        found = self._row(name)["source"]
        return str(found if isinstance(found, str) else found[0])

    def share(self, *names: str) -> None:
        """Have these vmtas, and no others, count together."""
        for row in self.engine.configuration.vmtas:
            source = self.source_of(row["name"])
            row["source"] = [source, SHARED] if row["name"] in names else source

    def change_places(self, one: str, other: str) -> None:
        """Give each the address of the other."""
        first, second = self._row(one), self._row(other)
        first["source"], second["source"] = second["source"], first["source"]

    def reload(self, killed: int | None = None) -> None:
        """Reload; kill the shard of that number while it gives up what moves."""
        began = time.monotonic()
        before = self._count_reloaded()
        self.engine.configuration.write()
        pid = self.engine.get("/status")["shards"][killed or 0]["pid"]
        self.engine.signal(signal.SIGHUP)
        if killed is not None:
            self.kills.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self._count_reloaded() > before, 40.0, "reload")
        self.reloads.append((began, time.monotonic()))

    def _count_reloaded(self) -> int:
        """The generation is a new one before all shards have it; this comes last."""
        return self.engine.log_file.read_text().count('"event":"reloaded"')

    def _row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.engine.configuration.vmtas if row["name"] == name)


def test_vmtas_move_between_shards_under_load(
    moves_configuration: Configuration, moves_sink: SinkProcess
) -> None:
    ports = [moves_configuration.add_smtp(customer="acme"), moves_configuration.add_smtp(customer="globex")]
    engine = EngineProcess(moves_configuration)
    sources: list[subprocess.Popen[bytes]] = []
    try:
        engine.start()
        sources = [
            feed(engine, "acme", ports[0], [BY_CONNECTIONS, BY_RATE, BY_LONG], 100),
            feed(engine, "globex", ports[1], [OF_FEW], 20),
        ]
        moves = Moves(engine)
        moved = disturb(moves)
        for source in sources:
            source.wait(60)
        accepted = read_accepted(engine)
        assert len(accepted) > 0.98 * sum(each.messages for each in DESTINATIONS)
        wait_all_at_sink(engine, moves_sink, accepted)
        assert engine.stop() == 0
    finally:
        for source in sources:
            source.kill()
            source.wait()
        engine.close()
    arrivals = moves_sink.arrivals()
    check_duplicates(arrivals, moves.kills)
    check_connections_never_over(moves_sink)
    check_rates_never_over(arrivals)
    check_used_again(arrivals, moved, moves.reloads)
    check_rate_used(arrivals, moves.reloads)


def feed(
    engine: EngineProcess, customer: str, port: int, destinations: list[Destination], per_s: int
) -> subprocess.Popen[bytes]:
    """Start a source that offers so many messages a second, dealt over the destinations."""
    root = engine.configuration.root
    rows = [
        (number / each.messages, Planned(f"{each.name}-{number}", f"news@{customer}.example", [to], 1000))
        for each in destinations
        for number in range(each.messages)
        for to in [f"u{number}@{each.domain}"]
    ]
    write_plan(root / f"{customer}.jsonl", [line for _, line in sorted(rows, key=lambda row: row[0])])
    command = [sys.executable, "-m", "engine.rig.source", "--to", f"127.0.0.1:{port}", "--sessions", "4"]
    command += ["--plan", str(root / f"{customer}.jsonl"), "--rate", str(per_s), "--seconds", "60"]
    command += ["--reconnect", "--accepted", str(root / f"{customer}-accepted.jsonl")]
    command += ["--report", str(root / f"{customer}-report.json")]
    return subprocess.Popen(command, cwd=ROOT, process_group=0)


def disturb(moves: Moves) -> list[list[str]]:
    """Move vmtas there and back, graceful and with a kill; return the addresses that each reload moved."""
    owners = moves.owners()
    home = owners["globex-1"]
    here = [name for name, shard in owners.items() if shard == home and name != "globex-1"]
    there = [name for name, shard in owners.items() if shard != home]
    time.sleep(6.0)
    moves.share("globex-1", *there[:2])  # the one vmta of its pool goes: its mail must follow
    moves.change_places(here[0], there[2])
    moves.reload()
    assert moves.owners()["globex-1"] != home
    assert moves.owners()[here[0]] != home
    assert moves.owners()[there[2]] == home
    moved = [[moves.source_of(name) for name in ("globex-1", *there, here[0])]]
    time.sleep(8.0)
    moves.share()  # all count for themselves again, and stay
    moves.reload()
    assert moves.owners()["globex-1"] != home
    moved.append([moves.source_of(name) for name in ("globex-1", *there[:2])])
    time.sleep(8.0)
    moves.share("globex-1", *here[1:], there[2])  # and back, while its owner dies
    moves.reload(killed=1 - home)
    assert moves.owners()["globex-1"] == home
    moved.append([moves.source_of("globex-1")])
    time.sleep(8.0)
    moves.share()
    moves.reload()
    moved.append([moves.source_of(name) for name in ("globex-1", *here[1:], there[2])])
    return moved


def read_accepted(engine: EngineProcess) -> set[str]:
    files = engine.configuration.root.glob("*-accepted.jsonl")
    return {json.loads(line)["id"] for file in files for line in file.read_text().splitlines()}


def wait_all_at_sink(engine: EngineProcess, sink: SinkProcess, accepted: set[str]) -> None:
    def missing() -> list[str]:
        return sorted(accepted - {test_id for test_id, _ in copies(sink.arrivals())})

    deadline = time.monotonic() + 60
    while (lost := missing()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not lost, f"{len(lost)} of {len(accepted)} not at the sink: {lost[:10]}; {engine.get('/paths')}"


def check_duplicates(arrivals: Sequence[Arrival], kills: list[float]) -> None:
    late = [kill + 0.25 for kill in kills]
    found = unexplained_duplicates(copies(arrivals), late, DUPLICATE_BEFORE_KILL_S)
    assert not found, f"{len(found)} duplicates: {found[:5]}"


def check_connections_never_over(sink: SinkProcess) -> None:
    for (listen, source), peak in peak_connections(sink.links()).items():
        limit = CONNECTIONS if listen == BY_CONNECTIONS.listen else 4
        assert peak <= limit, f"{source} had {peak} connections to {listen}, {limit} allowed"


def check_rates_never_over(arrivals: Sequence[Arrival]) -> None:
    limits = {
        BY_RATE.listen: (RATE, RATE_WINDOW_S),
        BY_LONG.listen: (LONG, LONG_WINDOW_S),
        OF_FEW.listen: (FEW_RATE, 1.0),
    }
    for (listen, source), instants in instants_by_path(arrivals).items():
        if listen in limits:
            count, window_s = limits[listen]
            highest = highest_in_window(instants, window_s)
            assert highest <= count, f"{source} sent {highest} to {listen}, {count} in {window_s:g} s allowed"


def check_used_again(
    arrivals: Sequence[Arrival], moved: list[list[str]], reloads: list[tuple[float, float]]
) -> None:
    """What moved sends again soon after."""
    for sources, (_, done) in zip(moved, reloads, strict=True):
        for source in sources:
            after = [each.at for each in arrivals if each.source == source and each.at > done]
            assert after, f"{source} sent nothing after the reload at {done:.1f}"
            assert after[0] - done <= AGAIN_S, f"{source} sent again after {after[0] - done:.1f} s"


def check_rate_used(arrivals: Sequence[Arrival], reloads: list[tuple[float, float]]) -> None:
    """Between the reloads each path that counts for itself uses its allowance.

    Those are all, between the second, which ended all sharing, and the third.
    """
    paths = {key: rows for key, rows in instants_by_path(arrivals).items() if key[0] == BY_RATE.listen}
    assert len(paths) == VMTAS
    ((_, begin), (end, _)) = next(pair for pair in list(pairwise(reloads))[1:])
    for (_, source), instants in paths.items():
        first = next(instant for instant in instants if instant >= begin)
        used = used_share(instants, RATE, RATE_WINDOW_S, [(first, end)])
        assert used >= LEAST_USED, f"{source} used {used:.3f} of its rate"


def test_open_sessions_give_way_to_a_new_name_and_a_lowered_limit(
    configuration: Configuration, sink: SinkProcess
) -> None:
    sink.start([{"at": "final", "domain": "x.example", "delay_s": FINAL_DELAY_S}])
    policies = configuration.policies
    configuration.policies += "max_connections = 4\n"
    configuration.add_customer("acme", "127.0.1.1")
    port = configuration.add_smtp(customer="acme")
    engine = EngineProcess(configuration)
    try:
        moves = Moves(engine.start())
        inject(port, "news@acme.example", [f"u{number}@x.example" for number in range(40)])
        wait_until(lambda: max(peak_connections(sink.links()).values(), default=0) == 4, 10.0, "4 sessions")
        configuration.vmtas[0]["hostname"] = "new.acme.example"
        configuration.policies = policies + "max_connections = 1\n"
        moves.reload()
        inject(port, "news@acme.example", [f"v{number}@x.example" for number in range(5)])
        sink.wait_messages(45, 30.0)
        assert not engine.events_of("deferred", "bounced")
    finally:
        engine.close()
    arrivals = sink.arrivals()
    assert len(arrivals) == 45
    ((_, done),) = moves.reloads
    settled = done + FINAL_DELAY_S + 0.5  # what was in flight has ended, and every session of before with it
    late = [each for each in arrivals if each.at > settled]
    assert {each.ehlo for each in late} == {"new.acme.example"}
    assert sum(link.change for link in sink.links() if link.at < settled) <= 1
