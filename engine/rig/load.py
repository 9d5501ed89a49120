"""The load of a source: which message is next, and what became of the ones before.

Owns: ids, pacing, the count of accepted, refused and uncertain messages, latencies of acceptance.
Never: touches a socket.
"""

from __future__ import annotations

import argparse
import random
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from engine.rig.job import Job, load_plan
from engine.rig.prose import make_bodies
from engine.rig.tally import summarize_latencies

REFUSED_PAUSE_S = 0.1  # before a refused message is offered again
PACE_BACKLOG_S = 0.25  # a paced load catches up at most so much after a stall


@dataclass(frozen=True)
class Target:
    """Where to send, and as whom."""

    host: str
    port: int
    sender: str


class Wakeable(Protocol):
    """A session that waits for work."""

    def wake(self) -> None:
        """Look for work again."""


class Load:
    """Hands out jobs and keeps the account."""

    def __init__(self, arguments: argparse.Namespace, record: Callable[[bytes], Any] | None) -> None:
        self._run: str = arguments.run
        self._plan = load_plan(arguments.plan) if arguments.plan else []
        self._messages: int = len(self._plan) or arguments.messages
        self._wanted = self._messages
        self._rate: float = arguments.rate
        self._recipients: int = arguments.recipients
        self._repeats: bool = arguments.until_accepted
        self._record = record
        self._domains = [arguments.domain_format.format(n) for n in range(arguments.domains)]
        self._bodies = [] if self._plan else _deal_bodies(arguments.size or [(10_000, 1)])
        self._idle: deque[Wakeable] = deque()
        self._again: deque[float] = deque()  # instants at which a refused message may be offered again
        self.offered = self.accepted = self.refused = self.uncertain = self.connect_failures = 0
        self.in_flight = 0
        self.codes: Counter[int] = Counter()
        self.uncertain_ids: list[str] = []
        self.latencies_s = array("d")
        self.started_at = self.first_at = self.last_at = time.monotonic()
        self.is_stopped = False

    def next_job(self, target: Target) -> Job | None:
        """Return a job if one is due."""
        if self.is_stopped or self.offered >= self._messages:
            return None
        if self._rate and self.offered >= self._due(time.monotonic()):
            return None
        number = self.offered
        self.offered += 1
        self.in_flight += 1
        return self._plan[number] if self._plan else self._make_job(number, target)

    def _make_job(self, number: int, target: Target) -> Job:
        domain = self._domains[number % len(self._domains)]
        recipients = [f"u{number}-{n}@{domain}" for n in range(self._recipients)]
        return Job(
            f"{self._run}-{number}", target.sender, recipients, self._bodies[number % len(self._bodies)]
        )

    def _due(self, now: float) -> float:
        due = (now - self.started_at) * self._rate
        backlog = due - self.offered
        if backlog > max(self._rate * PACE_BACKLOG_S, 1):
            self.started_at += (backlog - self._rate * PACE_BACKLOG_S) / self._rate
        return due

    def is_done(self, target: Target) -> bool:  # noqa: ARG002 - a load per target may come
        """Say whether no session is needed any more."""
        return self.is_stopped or (self.offered >= self._messages and not (self._repeats and self.in_flight))

    def wait(self, session: Wakeable) -> None:
        """Wake the session when there may be work."""
        self._idle.append(session)

    def wake(self, now: float) -> None:
        """Wake as many sessions as there is work for; the process calls this each tick."""
        while self._again and self._again[0] <= now:
            self._again.popleft()
            self._messages += 1  # a repeat is one more offer, under a new id
            self.in_flight -= 1
        if self.offered >= self._messages and not self.in_flight:
            count = len(self._idle)
        else:
            room = self._due(now) if self._rate else float(self._messages)
            count = min(len(self._idle), max(int(min(room, self._messages) - self.offered), 0))
        for _ in range(count):
            self._idle.popleft().wake()

    def note_accepted(self, job: Job, now: float) -> None:
        """Put an accepted message on record."""
        self.in_flight -= 1
        if not self.accepted:
            self.first_at = now
        self.accepted += 1
        self.last_at = now
        self.codes[250] += 1
        self.latencies_s.append(now - job.sent_at)
        if self._record is not None:
            self._record(job.record(now))

    def note_refused(self, job: Job, code: int) -> None:  # noqa: ARG002 - the id of a refused message is free
        """Count a message that was refused, or whose envelope was lost."""
        self.refused += 1
        self.codes[code] += 1
        self._finish_in_vain()

    def note_uncertain(self, job: Job) -> None:
        """Count a message whose content was sent and whose reply never came."""
        self.uncertain += 1
        self.uncertain_ids.append(job.test_id)
        self._finish_in_vain()

    def _finish_in_vain(self) -> None:
        if self._repeats:
            self._again.append(time.monotonic() + REFUSED_PAUSE_S)
        else:
            self.in_flight -= 1

    def report(self) -> dict[str, Any]:
        """Return the account as plain values."""
        elapsed = self.last_at - self.first_at
        return {
            "run": self._run,
            "wanted": self._wanted,
            "offered": self.offered,
            "accepted": self.accepted,
            "refused": self.refused,
            "uncertain": self.uncertain,
            "uncertain_ids": self.uncertain_ids,
            "connect_failures": self.connect_failures,
            "codes": {str(code): count for code, count in self.codes.items()},
            "first_at": self.first_at,
            "last_at": self.last_at,
            "rate_per_s": round((self.accepted - 1) / elapsed, 1) if elapsed > 0 else 0.0,
            "accept_latency": summarize_latencies(self.latencies_s),
        }


def _deal_bodies(sizes: list[tuple[int, int]]) -> list[bytes]:
    """Mix bodies of several sizes by weight, in an order that is the same in each run."""
    bodies = [body for size, weight in sizes for body in make_bodies(size, 16) * weight]
    if len(sizes) > 1:
        random.Random(1).shuffle(bodies)
    return bodies
