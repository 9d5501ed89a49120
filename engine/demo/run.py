"""`mailrail demo`: the order of it all.

Owns: when a run is over, and its exit status: 0 only if the sinks' account agrees.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from rich.console import Console

from engine.demo.configuration import SHARDS
from engine.demo.progress import Progress
from engine.demo.scenario import make_scenario
from engine.demo.stage import Stage, StageError, on_stage
from engine.demo.tables import print_places, print_verdict, to_values
from engine.demo.verdict import Verdict, judge
from engine.demo.watch import Watch
from engine.shard.upkeep import QUIET_S

POLL_S = 0.25
LINGER_S = 1.0  # after all has arrived, for what may come twice
# What a run may take over what its limits alone make it last; then it is judged as it stands.
SPARE_S = 40.0


def run_demo(console: Console, messages: int, *, keep: bool = False, as_json: bool = False) -> int:
    """Run the demo; return the exit status. `as_json`: the verdict goes to stdout, the rest to `console`."""
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts jobs in the background deaf to SIGINT
        signal.signal(number, _leave)
    scenario = make_scenario(messages)
    try:
        with on_stage(scenario) as stage:
            return _Run(stage, console, keep=keep, as_json=as_json).run()
    except StageError as error:
        console.print(f"mailrail demo: {error}", highlight=False, markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 1


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class _Run:
    """One run on its stage."""

    def __init__(self, stage: Stage, console: Console, *, keep: bool, as_json: bool) -> None:
        self._stage = stage
        self._scenario = stage.scenario
        self._console = console
        self._is_kept = keep
        self._as_json = as_json
        self._watch = Watch(stage)
        self._failures: list[str] = []

    def run(self) -> int:
        with Progress(self._console) as progress:
            self._open(progress)
            started = time.monotonic()
            self._wait_complete(progress, started)
        shards = self._stage.read_shards()
        if not self._is_kept:
            self._stage.close()
        self._watch.read()
        verdict = judge(self._scenario, self._watch.account, self._watch.handed_over, shards)
        verdict.findings[:0] = self._failures
        self._print(verdict, self._last_arrival() - started)
        self._finish(verdict)
        return 0 if verdict.is_good else 1

    def _open(self, progress: Progress) -> None:
        scenario, stage = self._scenario, self._stage
        progress.say(f"{len(scenario.destinations)} sinks ...")
        stage.open_sinks()
        progress.say(f"the engine, {SHARDS} shards, {len(scenario.vmta_at)} vmtas ...")
        stage.open_engine()
        time.sleep(QUIET_S)  # a shard opens no connection sooner: its predecessor's may not have ended
        feeds = ", ".join(f"{customer.name} by {customer.feed}" for customer in scenario.customers)
        progress.say(f"{scenario.messages:,} messages: {feeds} ...")
        stage.open_feeds()

    def _wait_complete(self, progress: Progress, started: float) -> None:
        deadline = started + self._scenario.expected_s + SPARE_S
        complete_at = float("inf")
        while time.monotonic() < min(deadline, complete_at + LINGER_S):
            time.sleep(POLL_S)
            self._watch.read()
            progress.show(self._watch.take_moment(started))
            self._failures = self._stage.find_failures()
            if self._failures:
                return
            if self._watch.is_complete and complete_at == float("inf"):
                complete_at = time.monotonic()
        if complete_at == float("inf"):
            self._failures.append(f"not everything had arrived after {time.monotonic() - started:.0f} s")

    def _last_arrival(self) -> float:
        copies = self._watch.account.copies.values()
        return max((copy.at for found in copies for copy in found), default=time.monotonic())

    def _print(self, verdict: Verdict, elapsed_s: float) -> None:
        if self._as_json:
            sys.stdout.write(json.dumps(to_values(self._scenario, verdict, elapsed_s), indent=1) + "\n")
        else:
            print_verdict(self._console, self._scenario, verdict, elapsed_s)

    def _finish(self, verdict: Verdict) -> None:
        """Wait for Ctrl-C where all is kept running; keep the files where something was wrong."""
        self._stage.is_kept = not verdict.is_good
        if self._is_kept:
            print_places(self._console, self._stage.places)
            _wait_interrupt()
        if self._stage.is_kept:
            self._console.print(f"Logs and records stay in {self._stage.places.root}", soft_wrap=True)


def _wait_interrupt() -> None:
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return
