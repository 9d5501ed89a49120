"""The scenarios, and what is printed of each: by every strategy, over one day.

Owns: which scenarios there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.provider_sim.driving import MINUTE_S, Day, Drive
from bench.provider_sim.providers import (
    TOO_FAST,
    Connections,
    Greylisting,
    Provider,
    Reputation,
    Span,
    Troubled,
    Windowed,
)
from bench.provider_sim.strategies import Backoff, Fixed, Learning, Strategy
from engine.core.reply import Reply
from engine.loading import load_shipped_policies
from engine.policy.model import Destination, Policy
from engine.policy.parse import parse_policies

HOUR_S = 3600.0
LATENCY_S = 0.2
SLOW_S = 2.0  # of the provider that counts connections: three of them carry 1.5 a second
RECOVERED = 0.9  # of capacity
POLICY = 'max_message_rate = "3/s"\nmax_connections = 10\n'


class Scenario(NamedTuple):
    """A provider, made anew for each run."""

    name: str
    make: Callable[[], Provider]
    latency_s: float = LATENCY_S


class Row(NamedTuple):
    """One scenario by one strategy."""

    scenario: str
    strategy: str
    delivered: int
    share: float  # of the hidden capacity
    deferred: float  # share of attempts, greylisting left out
    refused_connections: int
    recovery_s: float | None  # None: never


STRATEGIES: dict[str, Callable[[Callable[[Reply], str]], Strategy]] = {
    "fixed": Fixed,
    "back-off": Backoff,
    "adaptive": Learning,
}

SCENARIOS = (
    Scenario("60/min", lambda: Windowed(60, 60.0)),
    Scenario("20/min, sliding", lambda: Windowed(20, 60.0, slides=True)),
    Scenario("500/10min, sliding", lambda: Windowed(500, 600.0, slides=True)),
    Scenario("3,600/h", lambda: Windowed(3600, HOUR_S)),
    Scenario("500/h", lambda: Windowed(500, HOUR_S)),
    Scenario("100/h, sliding", lambda: Windowed(100, HOUR_S, slides=True)),
    Scenario("3 connections", lambda: Connections(3, SLOW_S), SLOW_S),
    Scenario("60/min, a tenth greylisted", lambda: Greylisting(Windowed(60, 60.0))),
    Scenario("1/s, reputation", lambda: Reputation(1.0)),
    Scenario("60/min, 3 h of trouble", lambda: Troubled(Windowed(60, 60.0), [Span(4 * HOUR_S, 7 * HOUR_S)])),
    Scenario(
        "1/s, 3 x 20 min of trouble",
        lambda: Troubled(
            Windowed(1, 1.0), [Span(h * HOUR_S, h * HOUR_S + 1200.0) for h in (3, 9, 15)], TOO_FAST
        ),
    ),
    Scenario("as the policy says", lambda: Provider(3.0)),
)


def run_row(scenario: str, strategy: str) -> Row:
    """Run one."""
    found = next(each for each in SCENARIOS if each.name == scenario)
    policy, classify = load_policy()
    provider = found.make()
    day = Drive(provider, STRATEGIES[strategy](classify), policy, found.latency_s).run()
    return Row(
        scenario,
        strategy,
        day.delivered,
        day.delivered / provider.capacity(),
        day.deferred / max(1, day.deferred + day.delivered + day.greylisted),
        day.refused_connections,
        recovery_s(day, provider),
    )


def load_policy(text: str = POLICY) -> tuple[Policy, Callable[[Reply], str]]:
    """Return the shipped policy with the limits of the scenarios, and what its rules call a reply."""
    policies = parse_policies([*load_shipped_policies(), ("scenarios.toml", "[default]\n" + text)])
    policy = policies.effective(Destination("provider", "site", "", ""), "", "")
    classifier = policies.classifier
    return policy, lambda reply: classifier.classify(reply, "").category


def recovery_s(day: Day, provider: Provider) -> float | None:
    """Return how long after the last trouble (or the start) a whole window had RECOVERED of its capacity."""
    first = int(provider.recovers_at / MINUTE_S)
    size = int(provider.window_s / MINUTE_S)
    wanted = RECOVERED * provider.per_s * size * MINUTE_S
    for begin in range(first, len(day.per_minute) - size + 1):
        if sum(day.per_minute[begin : begin + size]) >= wanted:
            return (begin - first) * MINUTE_S
    return None


def format_rows(rows: list[Row]) -> str:
    """Return the table."""
    cells = [
        ["provider hides", "limits", "delivered", "of capacity", "deferred", "refused conn.", "recovers in"]
    ]
    for row in rows:
        recovery = "never" if row.recovery_s is None else f"{row.recovery_s / 60:,.0f} min"
        cells.append(
            [
                row.scenario if row.strategy == rows[0].strategy else "",
                row.strategy,
                f"{row.delivered:,}",
                f"{row.share:.1%}",
                f"{row.deferred:.2%}",
                f"{row.refused_connections:,}",
                recovery,
            ]
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
