"""The engine against a sink that hides a limit, beside the simulation of the same: do they agree?

Owns: sink and engine while it runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench.finding import tell
from bench.mailrail import LIMITS, MailrailSetup, running_mailrail
from bench.provider_sim.driving import Drive
from bench.provider_sim.providers import TOO_FAST, TOO_MANY_CONNECTIONS, Connections, Provider, Windowed
from bench.provider_sim.strategies import Learning
from bench.provider_sim.table import load_policy
from engine.core.units import parse_rate
from engine.rig.control import ask_sink
from engine.rig.processes import run_source, running_sink

SINK_HOST, SINK_PORT, PORT = "127.1.0.1", 2640, 2641
DOMAIN = "d0.bench.example"
MESSAGES = 6000
SIZE = 2000
RATE = "50/s"
LATENCY_S = 0.2
OURS = LIMITS | {"max_connections": "10", "max_message_rate": f'"{RATE}"', "retry": '["15m"]'}


class Hidden(NamedTuple):
    """What the sink hides, as a script and as a provider of the simulation."""

    name: str
    rules: list[dict[str, Any]]
    make: Callable[[], Provider]
    seconds: float


HIDDEN = (
    Hidden(
        "3 connections",
        [{"at": "connect", "above": 3, "reply": str(TOO_MANY_CONNECTIONS), "close": True}],
        lambda: Connections(3, LATENCY_S),
        60.0,
    ),
    Hidden(
        "10/s, sliding",
        [{"at": "final", "over": 10, "window_s": 1.0, "reply": str(TOO_FAST), "delay_s": LATENCY_S}],
        lambda: Windowed(10, 1.0, slides=True),
        180.0,  # for the first minute it only asks
    ),
)


class Seen(NamedTuple):
    """What the peer saw."""

    delivered: int
    deferred: int
    connections: int


def run_real() -> int:
    """Run each hidden limit, and print what came of it beside what the simulation says."""
    print(f"\npolicy {RATE} over 10 connections, {LATENCY_S:g} s a message\n")
    for hidden in HIDDEN:
        tell(f"{hidden.name}: {hidden.seconds:g} s")
        real, simulated = _measure(hidden), _simulate(hidden)
        for what, seen in (("sink", real), ("simulated", simulated)):
            print(
                f"{hidden.name:14}  {hidden.seconds:3g} s  {what:9}  delivered {seen.delivered:6,}"
                f"  deferred {seen.deferred:4,}  connections {seen.connections:4,}",
                flush=True,
            )
    return 0


def _measure(hidden: Hidden) -> Seen:
    with tempfile.TemporaryDirectory(prefix="bench-provider-", dir="/var/tmp") as directory:
        control = Path(directory) / "sink.sock"
        options: list[str | Path] = ["--listen", f"{SINK_HOST}:{SINK_PORT}", "--control", control]
        options += ["--report", "/dev/null"]
        setup = MailrailSetup(PORT, {DOMAIN: f"{SINK_HOST}:{SINK_PORT}"}, vmtas=1, shards=1, limits=OURS)
        with running_sink(*options), running_mailrail(setup):
            rules = [*hidden.rules, {"at": "final", "delay_s": LATENCY_S}]
            ask_sink(control, {"do": "script", "rules": rules})
            began = time.monotonic()
            run_source(
                "--to",
                f"127.0.0.1:{PORT}=bench@source.example",
                "--messages",
                str(MESSAGES),
                "--size",
                str(SIZE),
            )
            time.sleep(max(0.0, began + hidden.seconds - time.monotonic()))
            report = ask_sink(control, {"do": "report"})
    return Seen(report["messages"], sum(report["refused"].values()), report["connections"]["total"])


def _simulate(hidden: Hidden) -> Seen:
    policy, classify = load_policy(
        f'max_message_rate = "{parse_rate(RATE)}"\nmax_messages_per_connection = 100000\n'
    )
    drive = Drive(hidden.make(), Learning(classify), policy, LATENCY_S)
    day = drive.run(hidden.seconds)
    return Seen(day.delivered, day.deferred, day.connections)
