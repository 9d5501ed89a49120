"""The sinks' account against the scenario: each thing that disagrees is a finding in words.

Judged: nothing lost, nothing twice, nothing that was never handed over; each customer's mail from its own
sources, under their EHLO names, at the right sink; no path over its rate in any half-open window, or over
its connections at any instant; each limit used for at least `ENOUGH` of what it allows while there is backlog.

Owns: what "agrees" means.
Never: reads a clock or a file; forgives anything but one message at the edges of a span.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from engine.demo.account import Account, Copy
from engine.demo.backlog import Spans, connection_seconds, count_within, drop_start, find_backlog, length_s
from engine.demo.scenario import Destination, Scenario
from engine.rig.tally import highest_in_window

ENOUGH = 0.95  # of each allowance
EXAMPLES = 3  # of each kind of finding that are named; all are counted
EDGE = 1  # a paced span may begin just after a message and end just before one

HandedOver = Mapping[tuple[str, str], float]  # (id, recipient) -> monotonic instant


class PathUse(NamedTuple):
    """One path measured against its limits."""

    customer: str
    source: str
    destination: str
    messages: int
    highest_rate: int  # in any window of the destination's rate; 0 where there is none
    highest_open: int
    backlog_s: float
    used: float  # share of the binding allowance while there was backlog


class SourceCount(NamedTuple):
    """What came from one source address under one EHLO name."""

    customer: str
    source: str
    ehlo: str
    messages: int


class Verdict(NamedTuple):
    """What the sinks say about a run."""

    findings: list[str]
    handed_over: int
    arrived: int
    lost: int
    duplicates: int
    sources: list[SourceCount]
    paths: list[PathUse]

    @property
    def is_good(self) -> bool:
        """Do the sinks agree with everything that the engine promised?"""
        return not self.findings


class Judge:
    """Judges one run."""

    def __init__(
        self, scenario: Scenario, account: Account, handed_over: HandedOver, shards: Mapping[str, int]
    ) -> None:
        """Args: shards: source address -> the shard that owns its vmta."""
        self._scenario = scenario
        self._account = account
        self._handed_over = handed_over
        self._shards = shards
        self._findings: list[str] = []
        self._owner = {customer.name: customer for customer in scenario.customers}

    def judge(self) -> Verdict:
        """Return the verdict."""
        copies = self._account.copies
        lost = [key for key in self._handed_over if key not in copies]
        twice = [key for key, found in copies.items() if len(found) > 1]
        unknown = [key for key in copies if key not in self._handed_over]
        self._find("lost", lost, lambda key: f"{key[0]} for {key[1]}")
        self._find("delivered more than once", twice, lambda key: f"{key[0]} for {key[1]}")
        self._find("delivered, but never handed over", unknown, lambda key: f"{key[0]} for {key[1]}")
        if len(self._handed_over) != self._scenario.messages:
            self._findings.append(
                f"{len(self._handed_over):,} of {self._scenario.messages:,} messages were handed over"
            )
        self._check_ways()
        return Verdict(
            self._findings,
            len(self._handed_over),
            sum(len(found) for found in copies.values()),
            len(lost),
            sum(len(found) - 1 for found in copies.values()),
            self._count_sources(),
            self._measure_paths(),
        )

    def _find[Thing](self, what: str, things: Iterable[Thing], describe: Callable[[Thing], str]) -> None:
        """Add one finding for all things of a kind, if there are any."""
