"""Rules for replies that have fired: what each reaches, until when, and how a slowed path recovers.

A rule fires when its trigger is reached: so many matches within a window, for one path, vmta or host. What
follows and lasts is a reaction. It has a key, RULE@WHAT-IT-REACHES, and ends by itself. Times are of one
clock, which the caller reads; `shifted` carries them to another.

    slow    full strength for `for_s`; then, if it is gradual, back in STEPS steps over as long again;
            `step_after` successes each take back one step before its time
    others  in force for `for_s`, over at once

Owns: counts towards triggers, reactions in force; both bounded.
Never: applies one (delivery.reacting does), reads a clock, knows what a rule asks of a reply.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple

import msgspec

from engine.core.units import Rate

STEPS = 5  # of which four lie in the time of recovery: 4/5, 3/5, 2/5, 1/5 of the full strength
# A rule that fires again while it slows does so by another step, but not for what was said to the sessions
# that were open all at once: at most one step a minute (adaptive limits keep to the same).
STEP_EVERY_S = 60.0
MAX_REACTIONS = 2_000  # in force; about 400 octets each, written to disk when one changes
MAX_TRIGGERS = 20_000  # counted towards; the one that was quiet longest is forgotten first
MAX_REPLY_CHARS = 300

_SLOWEST = Rate(1, 3600.0)  # no factor goes below this: a path that nothing leaves learns nothing


class Reach(NamedTuple):
    """What a reaction reaches; "" where that makes no difference."""

    scope: str  # path, vmta, provider, customer, host or waiting
    vmta: str = ""
    destination: str = ""
    provider: str = ""
    customer: str = ""
    host: str = ""

    def __str__(self) -> str:
        return "/".join([each for each in self[1:] if each])


class Terms(NamedTuple):
    """How long a reaction lasts, and how it ends."""

    for_s: float
    is_gradual: bool = False
    step_after: int = 0  # successes; 0: time alone ends it


class Reaction(msgspec.Struct, array_like=True, gc=False):
    """A rule that fired, in force."""

    key: str
    rule: str
    does: str
    reach: Reach
    reply: str  # what the peer said
    terms: Terms
    since: float
    full_until: float
    until: float
    count: int = 1  # how often its trigger was reached
    connections: int = 0  # slow, at full strength; 0: says nothing of them
    rate: Rate | None = None
    stepped_at: float = 0.0  # when it was last made stronger
    steps_back: int = 0  # taken by successes
    successes: int = 0  # towards the next

    def steps(self, now: float) -> int:
        """Return how much of it is in force, in steps of STEPS; 0: it is over."""
        if now >= self.until:
            return 0
        gone = 0
        if now >= self.full_until:
            step_s = (self.until - self.full_until) / (STEPS - 1)
            gone = 1 + int((now - self.full_until) / step_s)
        return max(0, STEPS - gone - self.steps_back)

    def changes_at(self, now: float) -> float:
        """Return when more of it is over."""
        if now < self.full_until or self.until <= self.full_until:
            return self.full_until
        step_s = (self.until - self.full_until) / (STEPS - 1)
        return min(self.until, self.full_until + step_s * (1 + int((now - self.full_until) / step_s)))


class Strength(NamedTuple):
    """How far a path is slowed: what it may have at most, at full strength."""

    connections: int = 0
    rate: Rate | None = None


def key_of(rule: str, reach: Reach) -> str:
    """Return the key of a reaction, as operators give it to cancel it."""
    return f"{rule}@{reach}"


def slowed(rate: Rate | None, by: float | Rate | None) -> Rate | None:
    """Return a rate times a factor, or the value that stands instead; None: nothing is said of it."""
    if isinstance(by, Rate) or by is None:
        return by
    return None if rate is None else scale(rate, by)


def fewer(connections: int, by: float | None) -> int:
    """Return a number of connections times a factor (at least 1), or the value that stands instead."""
    if by is None:
        return 0
    return int(by) if by >= 1 else max(1, int(connections * by))


def scale(rate: Rate, factor: float) -> Rate:
    """Return a rate of about `factor` times as much, in the same window where that holds one whole."""
    wanted = rate.count * factor
    if wanted >= 1.0:
        return Rate(int(wanted), rate.window_s)
    return Rate(1, min(rate.window_s / wanted, max(_SLOWEST.window_s, rate.window_s)))


def between(target: float, whole: float, steps: int) -> float:
    """Return what lies so many steps of STEPS from the whole towards the target, each step by one factor."""
    share = steps / STEPS
    return float(whole ** (1.0 - share) * target**share)


def bounds(reaction: Reaction, policy: Strength, now: float) -> Strength:
    """Return what a slowed path may have now; `policy`: what it has without."""
    steps = reaction.steps(now)
    connections, rate = reaction.connections, reaction.rate
    if connections and policy.connections > connections:
        connections = max(1, int(between(connections, policy.connections, steps)))
    if rate is not None and steps < STEPS:
        whole = policy.rate.per_s if policy.rate else rate.per_s * (STEPS / max(1, steps))
        if whole > rate.per_s:
            rate = scale(rate, between(rate.per_s, whole, steps) / rate.per_s)
    return Strength(connections, rate)


class Reactions:
    """All reactions of one shard, and what counts towards others."""

    def __init__(self, max_reactions: int = MAX_REACTIONS, max_triggers: int = MAX_TRIGGERS) -> None:
        self._max_reactions = max_reactions
        self._max_triggers = max_triggers
        self._triggers: OrderedDict[str, deque[float]] = OrderedDict()
        self.in_force: dict[str, Reaction] = {}
        self.changes = 0  # how many there were: whoever keeps them on disk writes where that has grown

    def is_triggered(self, key: str, after: Rate, now: float) -> bool:
        """Count one match towards a trigger; return whether it is reached."""
        if after.count == 1:
            return True
        times = self._triggers.get(key)
        if times is None or times.maxlen != after.count:
            times = self._triggers[key] = deque(times or (), after.count)
            if len(self._triggers) > self._max_triggers:
                self._triggers.popitem(last=False)
        else:
            self._triggers.move_to_end(key)
        times.append(now)
        return len(times) == after.count and now - times[0] < after.window_s

    def begin(
        self,
        rule: str,
        does: str,
        reach: Reach,
        terms: Terms,
        reply: str,
        now: float,
        *,
        strength: Callable[[], Strength] = Strength,
    ) -> Reaction | None:
        """Put a reaction in force, or on again: its time begins anew. None: there are too many.

        Args:
            strength: returns how far to slow from here; asked at most once in STEP_EVERY_S.
        """
        key = key_of(rule, reach)
        reply = reply[:MAX_REPLY_CHARS]
        full_until = now + terms.for_s
        until = full_until + terms.for_s * terms.is_gradual
        known = self.in_force.get(key)
        if known is None:
            if len(self.in_force) >= self._max_reactions:
                return None
            known = Reaction(key, rule, does, reach, reply, terms, now, full_until, until, 0)
            self.in_force[key] = known
        self.changes += 1
        known.count += 1
        known.reply, known.terms, known.steps_back, known.successes = reply, terms, 0, 0
        known.full_until, known.until = full_until, until
        if does == "slow" and (known.count == 1 or now - known.stepped_at >= STEP_EVERY_S):
            known.connections, known.rate = strength()
            known.stepped_at = now
        return known

    def take_over(self, reaction: Reaction) -> bool:
        """Put in force what another shard, or an earlier process, had in force; False: it is known."""
        known = self.in_force.get(reaction.key)
        if known is not None and known.until >= reaction.until:
            return False
        if known is None and len(self.in_force) >= self._max_reactions:
            return False
        self.in_force[reaction.key] = reaction
        self.changes += 1
        return True

    def succeed(self, reaction: Reaction, now: float) -> bool:
        """Count a delivery towards the end of a reaction; return whether that takes back a step."""
        if not reaction.terms.step_after:
            return False
        reaction.successes += 1
        if reaction.successes < reaction.terms.step_after:
            return False
        reaction.successes = 0
        reaction.steps_back += 1
        if reaction.steps(now) == 0:
            reaction.until = now
        self.changes += 1
        return True

    def end(self, key: str) -> Reaction | None:
        """Take a reaction back, and what counts towards it."""
        self._triggers.pop(key, None)
        found = self.in_force.pop(key, None)
        self.changes += found is not None
        return found

    def take_ended(self, now: float) -> list[Reaction]:
        """Take out those that are over."""
        over = [each for each in self.in_force.values() if each.until <= now or not each.steps(now)]
        for each in over:
            del self.in_force[each.key]
        self.changes += bool(over)
        return over

    def next_change(self, now: float) -> float:
        """Return when one is over, or less of it is in force; inf: none is."""
        return min((each.changes_at(now) for each in self.in_force.values()), default=inf)


def shifted(reaction: Reaction, by_s: float) -> Reaction:
    """Return a reaction in the times of another clock, which shows `by_s` more."""
    return msgspec.structs.replace(
        reaction,
        since=reaction.since + by_s,
        full_until=reaction.full_until + by_s,
        until=reaction.until + by_s,
        stepped_at=reaction.stepped_at + by_s,
    )


def reaching(reactions: Iterable[Reaction], vmta: str, destination: str, provider: str) -> list[Reaction]:
    """Return those that reach a path."""
    return [each for each in reactions if _reaches(each.reach, vmta, destination, provider)]


def _reaches(reach: Reach, vmta: str, destination: str, provider: str) -> bool:
    if reach.vmta != vmta:
        return False
    if reach.scope == "vmta":
        return True
    if reach.scope == "provider":
        return reach.provider == provider
    return reach.destination == destination
