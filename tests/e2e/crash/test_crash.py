"""Kill -9 of any process of the engine at any time: nothing accepted is lost, hardly anything comes twice."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.rig.tally import highest_in_window
from tests.e2e.configuration import Configuration, free_port
from tests.e2e.crash.feeds import Feed, SMTPFeed, SocketFeed, SpoolFeed
from tests.e2e.engine_process import EngineProcess, wait_until
from tests.e2e.judging import (
    copies,
    instants_by_path,
    peak_connections,
    unexplained_duplicates,
)
from tests.e2e.sink_process import SinkProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(170)]

ROUNDS = 30
OPEN_SINK, LIMITED_SINK = "127.0.9.1", "127.0.9.2"
RATE, RATE_WINDOW_S = 15, 1.0  # binds: the feed offers 26/s to four vmtas, two of which are down after a kill
MAX_CONNECTIONS = 3
LIMITED_CONNECTIONS = 2
DUPLICATE_BEFORE_KILL_S = 1.0
# A message that was written before the kill is read, and so timed, by the sink a little after it.
SINK_LAG_S = 0.25
GREETING_S = 1.0
KNOCK_EVERY_S = 0.02

Span = tuple[float, float]


class Knocker:
    """Asks for greetings all the time and keeps on record how long each took."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.waits: list[tuple[float, float]] = []  # began, waited

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._is_over.wait(KNOCK_EVERY_S):
            began = time.monotonic()
            self._knock()
            self.waits.append((began, time.monotonic() - began))

    def _knock(self) -> None:
        """Return when greeted. A client whose connection dies with its shard connects again."""
        while not self._is_over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), 10) as link:
                    link.settimeout(10)
                    if link.recv(100).startswith(b"220"):
                        link.sendall(b"QUIT\r\n")
                        return
            except OSError:
                time.sleep(0.01)


@pytest.fixture
def crash_sink(root: Path) -> Iterator[SinkProcess]:
    process = SinkProcess(root, free_port(OPEN_SINK), OPEN_SINK, LIMITED_SINK)
    yield process.start()
    process.close()


@pytest.fixture
def crash_configuration(root: Path, crash_sink: SinkProcess) -> Configuration:
    made = Configuration(root)
    made.routes = {
        "limited.example": f"{LIMITED_SINK}:{crash_sink.port}",
        "*": f"{OPEN_SINK}:{crash_sink.port}",
    }
    made.policies = (
        "[default]\n"
        'max_message_rate = "unlimited"\nmax_connection_rate = "unlimited"\n'
        f'max_connections = {MAX_CONNECTIONS}\nretry = ["500ms"]\n'
        '[domain."limited.example"]\n'
        f'max_connections = {LIMITED_CONNECTIONS}\nmax_message_rate = "{RATE}/{RATE_WINDOW_S:g}s"\n'
    )
    made.add_customer("acme", "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4")
    made.add_customer("globex", "127.0.2.1", "127.0.2.2", "127.0.2.3", "127.0.2.4")
    made.listeners.append({"protocol": "socket", "path": str(made.socket), "customer": "globex"})
    made.listeners.append({"protocol": "spool", "path": str(made.spool), "customer": "acme"})
    return made


def test_kill_of_any_process_loses_nothing(
    crash_configuration: Configuration, crash_sink: SinkProcess
) -> None:
    """RFC 5321 section 6.1."""
    chance = random.Random(os.environ.get("CRASH_SEED", "1"))
    port = crash_configuration.add_smtp(customer="acme")
    engine = EngineProcess(crash_configuration)
    try:
        engine.start()
        feeds = make_feeds(crash_configuration, port)
        for feed in feeds:
            feed.start()
        knocker = Knocker(port)
        knocker.start()
        time.sleep(1.0)
        kills, outages, shard_outages = run_rounds(engine, chance)
        for feed in feeds:
            feed.stop()
        knocker.stop()
        accepted = wait_accepted_all_at_sink(engine, crash_sink, feeds)
        check_nothing_lost(engine, accepted)
        assert engine.stop() == 0
    finally:
        engine.close()
    check_duplicates(crash_sink, kills)
    check_limits(crash_sink)
    check_greetings(knocker, outages, shard_outages)


def make_feeds(configuration: Configuration, port: int) -> list[Feed]:
    return [
        SMTPFeed(configuration.root, port, "news@acme.example", 120),
        SocketFeed(configuration.socket, "news@globex.example", "other.example"),
        SpoolFeed(configuration.spool, "news@acme.example", "limited.example"),
    ]


def run_rounds(engine: EngineProcess, chance: random.Random) -> tuple[list[float], list[Span], list[Span]]:
    """Kill a process each round; return the instants, and the spans without supervisor and without a shard.

    The next round begins when all shards are up again, so that never two are down at once.
    """
    kills: list[float] = []
    outages: list[Span] = []
    shard_outages: list[Span] = []
    for _ in range(ROUNDS):
        time.sleep(chance.uniform(0.1, 1.5))
        victim = chance.choice([engine.pid, *engine.shard_pids()])
        kills.append(time.monotonic())
        if victim == engine.pid:
            engine.kill_supervisor()
            engine.start()
            outages.append((kills[-1], time.monotonic()))
        else:
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: is_followed(engine, victim), 20.0, "another shard in its place")
            shard_outages.append((kills[-1], time.monotonic()))
    assert min(len(outages), len(shard_outages)) >= ROUNDS // 10, (
        "hardly a supervisor, or a shard, was killed"
    )
    return kills, outages, shard_outages


def is_followed(engine: EngineProcess, victim: int) -> bool:
    """Return whether the supervisor has noticed that a shard died, and all are up again."""
    shards = engine.get("/status")["shards"]
    return all(shard["is_up"] and shard["pid"] != victim for shard in shards)


def wait_accepted_all_at_sink(engine: EngineProcess, sink: SinkProcess, feeds: list[Feed]) -> dict[str, str]:
    """Return what was accepted, once all of it is at the sink; fail with what is missing."""
    spool = next(feed for feed in feeds if isinstance(feed, SpoolFeed))
    wait_until(lambda: not spool.left(), 20.0, "an empty spool")
    assert not spool.failed()
    accepted: dict[str, str] = {}
    for feed in feeds:
        own = feed.accepted()
        assert len(own) > 500, f"{type(feed).__name__}: only {len(own)} accepted, no load to speak of"
        accepted |= own

    def missing() -> list[str]:
        taken = {test_id for test_id, _ in copies(sink.arrivals())}
        return sorted(set(accepted) - taken)

    deadline = time.monotonic() + 40
    while (lost := missing()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not lost, (
        f"{len(lost)} of {len(accepted)} not at the sink: {lost[:10]};"
        f" {engine.get('/status')['counts']}; paths: {engine.get('/paths')['paths']}"
    )
    return accepted


def check_nothing_lost(engine: EngineProcess, accepted: dict[str, str]) -> None:
    """Every accepted message has its final event."""

    def without() -> list[str]:
        told = {event["recipient"] for event in engine.events_of("delivered")}
        return sorted(set(accepted.values()) - told)

    wait_until(lambda: not without(), 10.0, f"final events of {without()[:10]}")


def check_duplicates(sink: SinkProcess, kills: list[float]) -> None:
    """A duplicate's first copy reached the sink at most a second before a kill."""
    late = [kill + SINK_LAG_S for kill in kills]
    found = unexplained_duplicates(copies(sink.arrivals()), late, DUPLICATE_BEFORE_KILL_S + SINK_LAG_S)
    shown = [
        (key, [round(at - kills[0], 3) for at in instants], [round(kill - kills[0], 3) for kill in kills])
        for key, instants in found[:5]
    ]
    assert not found, f"{len(found)} duplicates that no kill explains: {shown}"


def check_limits(sink: SinkProcess) -> None:
    """Connections and rates, as the sink counts them, from accept to end of file."""
    peaks, highest_of = peak_connections(sink.links()), {}
    for (listen, source), peak in peaks.items():
        limit = LIMITED_CONNECTIONS if listen == LIMITED_SINK else MAX_CONNECTIONS
        assert peak <= limit, f"{source} had {peak} connections to {listen}, {limit} allowed"
    for (listen, source), instants in instants_by_path(sink.arrivals()).items():
        if listen == LIMITED_SINK:
            highest = highest_of[source] = highest_in_window(instants, RATE_WINDOW_S)
            assert highest <= RATE, f"{source} sent {highest} in {RATE_WINDOW_S:g} s, {RATE} allowed"
    assert max(highest_of.values()) == RATE, "the rate never bound"
    assert max(peak for (listen, _), peak in peaks.items() if listen == OPEN_SINK) == MAX_CONNECTIONS


def check_greetings(knocker: Knocker, outages: list[Span], shard_outages: list[Span]) -> None:
    """While a shard is down, nobody waits: whoever came while there was a supervisor."""
    judged = [
        (began, wait)
        for began, wait in knocker.waits
        if not any(began < end and began + wait > begin for begin, end in outages)
    ]
    assert len(judged) > 300
    for begin, end in shard_outages:
        near = [(began, wait) for began, wait in knocker.waits if began < end and began + wait > begin]
        assert set(near) & set(judged), f"nobody knocked while a shard was down, {begin} to {end}: {near}"
    longest = max(judged, key=lambda each: each[1])
    assert longest[1] <= GREETING_S, f"waited {longest[1]:.2f} s for a greeting"
