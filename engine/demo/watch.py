"""Looks at a run: gathers moments from the sinks' logs, the feeds' records and the engine's admin API.

Owns: the account and the record of what was handed over, as far as they were read.
Never: judges, shows.
"""

from __future__ import annotations

import re
import time
from collections import Counter

from engine.core.units import format_rate
from engine.demo.account import Account, PathAccount
from engine.demo.backlog import count_within
from engine.demo.progress import CustomerMoment, DestinationMoment, Moment
from engine.demo.scenario import Destination
from engine.demo.stage import Stage

RATE_OVER_S = 3.0  # the rate that is shown is the mean of so many seconds
LOG_LAG_S = 0.5  # until then a sink's line has been written (rig.sink) and read
_NUMBERS = re.compile(r"(for|after) [\d.]+.*")  # of a reason: they differ on each path


class Watch:
    """What is known of a run."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._scenario = stage.scenario
        self.account = Account(stage.scenario)
        self.handed_over: dict[tuple[str, str], float] = {}

    def read(self) -> None:
        """Read what the sinks and feeds have written since."""
        self._stage.read_handed_over(self.handed_over)
        self._stage.read_arrivals(self.account)

    @property
    def is_complete(self) -> bool:
        """Has everything been handed over, and as much arrived?"""
        has_all = len(self.handed_over) >= self._scenario.messages or not self._stage.is_feeding
        return has_all and len(self.account.copies) >= len(self.handed_over)

    def take_moment(self, started: float) -> Moment:
        """Return how a run that started then (monotonic) stands now."""
        now = time.monotonic()
        until = now - LOG_LAG_S
        span = (max(started, until - RATE_OVER_S), until)
        destinations = [self._describe(each, span) for each in self._scenario.destinations]
        return Moment(
            now - started,
            sum(each.rate_per_s for each in destinations),
            int(self._stage.ask("/status").get("counts", {}).get("stored", 0)),
            self._describe_customers(),
            destinations,
            self._find_reasons(),
        )

    def _paths(self, destination: Destination) -> list[PathAccount]:
        return [path for (_, name), path in self.account.paths.items() if name == destination.name]

    def _describe_customers(self) -> list[CustomerMoment]:
        handed_over = Counter(key[0].partition("-")[0] for key in self.handed_over)
        arrived = Counter(key[0].partition("-")[0] for key in self.account.copies)
        totals: Counter[str] = Counter()
        for (customer, _), messages in self._scenario.volumes.items():
            totals[customer] += messages
        return [
            CustomerMoment(
                each.name, each.feed, handed_over[each.name], arrived[each.name], totals[each.name]
            )
            for each in self._scenario.customers
        ]

    def _describe(self, destination: Destination, span: tuple[float, float]) -> DestinationMoment:
        paths = self._paths(destination)
        every = len(self._scenario.vmta_at)
        lately = sum(count_within(path.instants, [span]) for path in paths)
        return DestinationMoment(
            destination.name,
            format_limit(destination),
            sum(path.now_open for path in paths),
            destination.max_connections * every,
            lately / max(span[1] - span[0], RATE_OVER_S / 10),
            destination.per_path_per_s * every,
            sum(len(path.instants) for path in paths),
        )

    def _find_reasons(self) -> Counter[str]:
        """Count paths by what they wait for."""
        rows = self._stage.ask("/paths?limit=1000").get("paths", [])
        reasons = [str(row.get("reason", "")) for row in rows if row.get("ready")]
        return Counter(_NUMBERS.sub("", reason).strip() for reason in reasons if reason)


def format_limit(destination: Destination) -> str:
    """Return the limit that binds a path to this destination."""
    if destination.rate is not None:
        return f"{format_rate(destination.rate)} messages"
    return f"{destination.max_connections} connections"
