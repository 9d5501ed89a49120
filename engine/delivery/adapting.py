"""From what peers say and do to the bounds of their paths, below the policy's.

    settle    what became of a transaction      -> settled
    opening   a session opened, or none did     -> opened, failed

A refusal is a sign by its category (policy.classify), and by its code where that is 421:

    "too fast"       rate-limited; not where it speaks of one mailbox, of recipients, or of connections
    "connection"     rate-limited that speaks of connections; any other 421; a connection or handshake failed
    "unclear"        a 4xx that does not say what it concerns
    ""               all others: greylisting, a full mailbox, a bad address say nothing of the path

Owns: which reply is which sign; who is told of new bounds.
Never: decides what the bounds are (queue.adaptive), hears of paths whose policy says `adaptive = false`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from engine.core.reply import Reply
from engine.delivery.flight import Bearer
from engine.queue.adaptive import WHY_SLOW_OPEN, Adaptive
from engine.queue.ceilings import Ceiling
from engine.queue.path import Path, PathLimits
from engine.queue.width import FIRST
from engine.telemetry.events import Event
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

Sign = Literal["", "unclear", "connection", "too fast"]
_STRONGEST_FIRST: tuple[Sign, ...] = ("too fast", "connection", "unclear")

# Categories whose 4xx may mean that the peer, or what it thinks of us, is in trouble.
_UNCLEAR = frozenset(("temporary-system", "spam-block", "other"))
# RFC 3463 X.2.1: of one mailbox ("is receiving mail too quickly"); X.5.3: too many recipients in one message.
_OF_ONE_MESSAGE = frozenset(("2.1", "5.3"))
_OF_CONNECTIONS = ("connection", "session", "concurren", "simultaneous")
# What we say of a peer ourselves: no connection, a lost one, a handshake that failed (policy.categories).
_TROUBLE = frozenset(("4.4.1", "4.4.2", "4.7.5"))

FIRST_CEILING = Ceiling("adaptive", WHY_SLOW_OPEN, FIRST)

log = Log("adapting")


def sign_of(reply: Reply, category: str) -> Sign:
    """Return what a refusal is a sign of."""
    if reply.synthetic:
        return "connection" if reply.enhanced in _TROUBLE else ""
    if category == "rate-limited":
        text = reply.text.lower()
        if any(word in text for word in _OF_CONNECTIONS):
            return "connection"
        return "" if reply.enhanced[2:] in _OF_ONE_MESSAGE else "too fast"
    if reply.code == 421:
        return "connection"
    return "unclear" if reply.is_temporary and category in _UNCLEAR else ""


def worst_of(refused: Iterable[Event]) -> Sign:
    """Return the strongest sign among the recipients of one transaction."""
    signs = {sign_of(event.reply, event.category) for event in refused if event.reply is not None}
    return next((sign for sign in _STRONGEST_FIRST if sign in signs), "")


class Adapting:
    """What the peers of one shard's paths have shown."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        classify: Callable[[Reply, str], str],
        kick: Callable[[Path], None],
        counters: Counters,
        label: Callable[[str], str],
    ) -> None:
        """Args:
        classify: returns the category of a provider's reply that answers no transaction.
        kick: has a path asked anew what it may.
        """
        self._loop = loop
        self._classify = classify
        self._kick = kick
        self._counters = counters
        self._label = label

    def settled(self, session: Bearer, final: Reply | None, refused: Sequence[Event]) -> None:
        """A transaction has ended: its last reply, and the events of who was refused. HOT."""
        path = session.path
        if not path.policy.adaptive:
            return
        limits, now = path.limits, session.now
        learned = limits.learned
        if learned is None:
            learned = limits.learned = Adaptive(now)
        sign = worst_of(refused) if refused else ""
        if not sign:
            is_taken = not refused or (final is not None and final.code < 300)
            if is_taken and learned.taken(now, path.policy.max_connections):
                self._changed(limits, path)
            return
        if sign == "connection":
            is_changed = learned.troubled(now, limits.sessions - 1)  # this one ends
        elif sign == "too fast":
            is_changed = learned.too_fast(now)
        else:
            is_changed = learned.unclear(now)
        if is_changed:
            self._changed(limits, path)

    def failed(self, path: Path, reply: Reply, provider: str) -> None:
        """No address of a site took a connection; `reply` is the last that was said."""
        limits, now = path.limits, self._loop.time()
        if not path.policy.adaptive:
            return
        sign = sign_of(reply, "" if reply.synthetic else self._classify(reply, provider))
        others = limits.sessions
        if sign != "too fast" and not others:
            return  # the site is dead, or is not: path.SiteDemand
        learned = limits.learned
        if learned is None:
            learned = limits.learned = Adaptive(now)
        if sign == "too fast":
            is_changed = learned.too_fast(now)
        else:  # whatever a peer says to a connection, it has refused one; what we say may have other causes
            is_changed = (sign == "connection" or not reply.synthetic) and learned.troubled(now, others)
        if is_changed:
            self._changed(limits, path)

    def opened(self, path: Path) -> None:
        """A session has opened."""
        limits = path.limits
        learned = limits.learned
        if learned is not None and learned.opened(self._loop.time(), limits.sessions):
            self._changed(limits, path)

    def _changed(self, limits: PathLimits, path: Path) -> None:
        """Put in force what was learned."""
        before = limits.ceiling
        learned = limits.learned
        assert learned is not None
        limits.bound(learned.ceiling)
        change = "lowered" if is_lower(limits.ceiling, before) else "raised"
        label = self._label(path.destination)
        self._counters.counter("mailrail_adaptive_changes_total", destination=label, change=change)[0] += 1
        if limits.ceiling is not None and limits.ceiling.why != WHY_SLOW_OPEN:
            bound = limits.ceiling
            log.info(
                f"limits {change}",
                vmta=path.vmta,
                destination=path.destination,
                connections=bound.connections,
                rate=str(bound.rate or ""),
            )
        for each in limits.paths:
            self._loop.call_soon(self._kick, each)


def is_lower(ceiling: Ceiling | None, before: Ceiling | None) -> bool:
    """Return whether a bound allows less than the one before."""
    if ceiling is None:
        return False
    if before is None:
        return True
    if ceiling.rate is not None and (before.rate is None or ceiling.rate.per_s < before.rate.per_s):
        return True
    return bool(ceiling.connections) and (not before.connections or ceiling.connections < before.connections)
