"""Whether this shard takes new mail at all: the one place that decides it for every feed.

A shard that can't follow gets slower for everybody, deliveries too. So past a bound it says so: 421 to who
connects or begins a message by SMTP, 421 to a submission of the socket, and spool files stay where they are.
What was begun may end. Between the bound at which it begins and the one at which it ends there is a gap, and
it must have been calm for a while: a shard does not flutter.

Owns: the measures, their bounds, the reason, which is the same on every feed.
Never: refuses anything (the feeds do).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.core.reply import Reply, make_reply
from engine.settings.model import EngineSettings
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

SAMPLE_S = 0.25
CALM_S = 2.0  # below every lower bound for so long, and it is over
LAG_WEIGHT = 0.2  # of the newest sample: one long step of the loop is no overload, a second of them is

log = Log("shedding")


class Measure(NamedTuple):
    """One thing that can be too much: shedding begins at `high` and ends below `low`."""

    reason: str
    read: Callable[[], float]
    high: float
    low: float


class Shedding:
    """Decides for one shard. `reply` is None while it takes mail."""

    def __init__(
        self, counters: Counters | None = None, on_change: Callable[[str], None] = lambda _reason: None
    ) -> None:
        """Args: on_change: told the reason when it begins, "" when it is over."""
        self.reply: Reply | None = None
        self.reason = ""
        self.measures: Sequence[Measure] = ()
        self.on_change = on_change
        self.lag_s = 0.0
        self._counters = counters or Counters()
        self._calm_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._counters.watch("mailrail_shedding", self._gauge)

    def open(self) -> None:
        """Begin to look."""
        self._wait(asyncio.get_running_loop())

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def count(self, feed: str) -> Reply | None:
        """Return the reply for who comes now, and count it; None where nothing is refused."""
        if self.reply is not None:
            self._counters.counter("mailrail_shed_total", feed=feed, reason=self.reason)[0] += 1
        return self.reply

    def look(self, now: float) -> None:
        """Read every measure, and decide."""
        found = [(measure, measure.read()) for measure in self.measures]
        worst = next((each for each in found if each[1] >= each[0].high), None)
        if worst is not None:
            self._calm_since = None
            if self.reply is None:
                self._begin(*worst)
        elif self.reply is not None:
            if any(value > measure.low for measure, value in found):
                self._calm_since = None
            elif self._calm_since is None:
                self._calm_since = now
            elif now - self._calm_since >= CALM_S:
                self._end()

    def heed_lag(self, lag_s: float) -> None:
        """The loop came so much too late."""
        self.lag_s += LAG_WEIGHT * (max(lag_s, 0.0) - self.lag_s)

    def _begin(self, measure: Measure, value: float) -> None:
        self.reason = measure.reason
        self.reply = make_reply(421, "4.3.2", f"overloaded ({measure.reason}), try again later")
        log.warning("load is shed", reason=measure.reason, value=round(value, 3), bound=measure.high)
        self.on_change(self.reason)

    def _end(self) -> None:
        log.info("load is shed no more", reason=self.reason)
        self.reply, self.reason, self._calm_since = None, "", None
        self.on_change("")

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(SAMPLE_S, self._sample, loop, loop.time() + SAMPLE_S)

    def _sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.heed_lag(now - due)
        self.look(now)
        self._wait(loop)

    def _gauge(self) -> dict[tuple[str, ...], float]:
        return {(self.reason,): 1.0} if self.reason else {}


def make_measures(
    settings: EngineSettings,
    *,
    lag_s: Callable[[], float],
    staged_bytes: Callable[[], float],
    window_bytes: Callable[[], float],
    connections: Callable[[], float],
) -> list[Measure]:
    """Return what is measured, with the bounds that the settings have; a bound of 0 is none."""
    bounds = (
        ("loop lag", lag_s, settings.max_loop_lag_s, 0.5),
        ("octets staged", staged_bytes, settings.max_staged_bytes, 0.5),
        # Full is what it is for; past that is what can't be put back: mail in flight.
        ("memory window", window_bytes, 2.0 * settings.window_size_bytes, 0.75),
        ("connections", connections, settings.max_inbound_connections, 0.9),
    )
    return [Measure(reason, read, high, high * part) for reason, read, high, part in bounds if high]


NEVER = Shedding()  # for a listener that stands alone
