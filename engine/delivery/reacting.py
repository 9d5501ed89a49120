"""Acts on what peers refuse, as [[....on_reply]] rules say: in force before anything more is written.

    reply -> rules whose conditions hold -> the first whose trigger is reached -> reaction -> paths, hosts

Owns: which rules a reply meets, and what follows from the one that fires.
Never: searches text (policy.rule_search), counts (queue.reactions), ends a recipient (settle does, by the
rule that `heard` returns). Never sees what we said ourselves.
Hot: `heard` once for each refusal, `succeeded` only on paths that wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Protocol

from engine.core.reply import Reply
from engine.delivery.applying import Applying
from engine.delivery.hearing import Whence
from engine.policy.fold import PolicySet
from engine.policy.model import Destination
from engine.policy.on_reply import OF_HOSTS, ReplyRule
from engine.policy.rule_search import line_of
from engine.queue.path import Path
from engine.queue.reactions import (
    Reach,
    Reaction,
    Reactions,
    Strength,
    Terms,
    fewer,
    key_of,
    slowed,
)
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

OTHER_RULE = "other"
MAX_RULE_LABELS = 500  # rules with series of their own; each has one or two
APPLY_EVERY_S = 1.0  # a reaction that goes on again reaches its paths so often at most
TELL_EVERY_S = 60.0  # for each rule and what it reaches
MAX_TOLD = 10_000

log = Log("rules")


class Timers(Protocol):
    """What is needed of the loop."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], object]) -> Any: ...


class Reacting:
    """The reactions of one shard."""

    def __init__(
        self,
        loop: Timers,
        policies: PolicySet,
        applying: Applying,
        counters: Counters,
        tell: Callable[[ReplyRule, Reach, Reply, Whence], None],
    ) -> None:
        """Args: tell: writes the event of a rule that fired."""
        self._loop = loop
        self._applying = applying
        self._counters = counters
        self._tell = tell
        self._labels: set[str] = set()
        self.reactions = Reactions()
        self.matched: dict[str, int] = {}  # by rule, since the start; rules bound it
        self.fired: dict[str, int] = {}
        self._last: tuple[Reply, ReplyRule] | None = None
        self._timer: Any = None
        self._applied_at: dict[str, float] = {}  # of reactions in force, by key
        self._told_at: dict[str, float] = {}
        self.on_far: Callable[[Reaction], None] | None = None  # it reaches beyond this shard
        self.on_change: Callable[[], None] | None = None  # what is in force has changed: keep it
        self._use(policies)

    # -- configuration ----------------------------------------------------------------------------

    def use(self, policies: PolicySet) -> None:
        """Go by these rules from now on; what rules that are gone have set off ends, the rest stays."""
        self._use(policies)
        for reaction in list(self.reactions.in_force.values()):
            rule = self._rules.get(reaction.rule)
            if rule is None or rule.does != reaction.does or not is_scope(rule, reaction.reach.scope):
                self.end(reaction.key, "its rule is gone")
        for counts in (self.matched, self.fired):
            for name in counts.keys() - self._rules.keys():
                del counts[name]
        self._applying.apply_all(self.reactions.in_force.values(), self._loop.time())

    def _use(self, policies: PolicySet) -> None:
        self._policies = policies
        self._rules = {rule.name: rule for rules in policies.reply_rules.values() for rule in rules}

    # -- what peers say (Hearer) ------------------------------------------------------------------

    def heard(self, reply: Reply, whence: Whence) -> ReplyRule | None:
        """Count the rules that a refusal meets; do what the first that is triggered says. HOT."""
        if reply.synthetic:
            return None
        search = self._policies.rules_for(whence.destination)
        if not search.rules:
            return None
        found = search.find(reply, whence.phase, lambda: self._category_of(reply, whence))
        acted: ReplyRule | None = None
        told: ReplyRule | None = None
        for rule in found:
            self.matched[rule.name] = self.matched.get(rule.name, 0) + 1
            self._count(rule, "match")
            reach = reach_of(rule, whence)
            key, is_notice = key_of(rule.name, reach), rule.does == "notify"
            is_triggered = self.reactions.is_triggered(key, rule.after, self._loop.time())
            if not is_triggered or (acted is not None and not is_notice):
                continue
            if is_notice:
                told = told or rule
            else:
                acted = rule
            self._fire(rule, reach, reply, whence)
        decided = acted or told
        if decided is not None:
            self._last = reply, decided
        return decided

    def fired_for(self, reply: Reply) -> ReplyRule | None:
        """Return the rule that acted on this reply, if it was the last one."""
        return self._last[1] if self._last is not None and self._last[0] is reply else None

    def succeeded(self, path: Path) -> None:
        """A message was taken on a path that recovers by successes."""
        now = self._loop.time()
        for reaction in self._applying.heeding(path):
            if self.reactions.succeed(reaction, now):
                self._changed()
                self._tick()

    def is_skipped(self, host: str) -> bool:
        """Whether a rule leaves a host out. HOT: once for each host of a connection."""
        return bool(self._applying.hosts) and self._is_in_force("skip_mx", host)

    def is_in_clear(self, host: str) -> bool:
        """Whether a rule has a host's mail go in clear."""
        return bool(self._applying.hosts) and self._is_in_force("no_tls", host)

    def _is_in_force(self, does: str, host: str) -> bool:
        until = self._applying.hosts.get((does, host), 0.0)
        return until > self._loop.time()

    def _category_of(self, reply: Reply, whence: Whence) -> str:
        return self._policies.classifier.classify(reply, whence.destination.provider).category

    # -- what follows -----------------------------------------------------------------------------

    def _fire(self, rule: ReplyRule, reach: Reach, reply: Reply, whence: Whence) -> None:
        self.fired[rule.name] = self.fired.get(rule.name, 0) + 1
        self._count(rule, rule.does)
        now, key = self._loop.time(), key_of(rule.name, reach)
        self._tell_once(rule, reach, reply, whence, now)
        if not rule.for_s:
            return
        reaction = self._begin(rule, reach, reply, whence, now)
        if reaction is None:
            return
        if reaction.stepped_at < now < self._applied_at.get(key, 0.0) + APPLY_EVERY_S:
            return  # what many sessions hear at once prolongs it, and that by a moment
        self._applied_at[key] = now
        self._applying.apply(reaction, now)
        self._changed()
        self._plan(now)
        if reach.scope in ("host", "waiting") and self.on_far is not None:
            self.on_far(reaction)

    def _tell_once(self, rule: ReplyRule, reach: Reach, reply: Reply, whence: Whence, now: float) -> None:
        """Log it, and write the event, but not for each of a thousand replies that say the same."""
        key = key_of(rule.name, reach)
        if now < self._told_at.get(key, 0.0) + TELL_EVERY_S:
            return
        if len(self._told_at) >= MAX_TOLD:
            self._told_at.clear()
        self._told_at[key] = now
        log.info("rule fired", rule=rule.name, reach=str(reach), does=rule.describe(), reply=line_of(reply))
        self._tell(rule, reach, reply, whence)

    def _begin(
        self, rule: ReplyRule, reach: Reach, reply: Reply, whence: Whence, now: float
    ) -> Reaction | None:
        path = whence.path

        def strength() -> Strength:
            return Strength(
                fewer(path.max_connections, rule.connections), slowed(path.max_message_rate, rule.rate)
            )

        terms = Terms(rule.for_s, rule.does == "slow" and rule.is_gradual, rule.successes)
        reaction = self.reactions.begin(
            rule.name, rule.does, reach, terms, line_of(reply), now, strength=strength
        )
        if reaction is None:
            log.error("too many reactions in force, this one is left out", rule=rule.name, reach=str(reach))
        return reaction

    def _count(self, rule: ReplyRule, action: str) -> None:
        name = rule.name
        if name not in self._labels:
            if len(self._labels) >= MAX_RULE_LABELS:
                name = OTHER_RULE
            else:
                self._labels.add(name)
        self._counters.counter("mailrail_reply_rules_total", rule=name, action=action)[0] += 1

    # -- time -------------------------------------------------------------------------------------

    def _plan(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.reactions.next_change(now)
        if at < inf:
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        """End what is over, and let what recovers have more."""
        now = self._loop.time()
        over = self.reactions.take_ended(now)
        for reaction in over:
            self._applied_at.pop(reaction.key, None)
            self._applying.undo(reaction, now)
            log.info("reaction over", rule=reaction.rule, key=reaction.key)
        for reaction in list(self.reactions.in_force.values()):
            if reaction.does == "slow":
                self._applying.apply(reaction, now)
        if over:
            self._changed()
        self._plan(now)

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def close(self) -> None:
        """Stop the clock; what is in force is on disk."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- operators, other shards, restarts ----------------------------------------------------------

    def end(self, key: str, why: str) -> bool:
        """End a reaction; False where there is none of that key."""
        reaction = self.reactions.end(key)
        if reaction is None:
            return False
        now = self._loop.time()
        self._applied_at.pop(key, None)
        self._applying.undo(reaction, now)
        log.info("reaction ended", rule=reaction.rule, key=key, reason=why)
        self._changed()
        self._plan(now)
        return True

    def take_over(self, reactions: Iterable[Reaction]) -> None:
        """Put in force what another shard or an earlier process had in force (times of this clock)."""
        now = self._loop.time()
        for reaction in reactions:
            rule = self._rules.get(reaction.rule)
            if rule is None or rule.does != reaction.does or not reaction.steps(now):
                continue
            if self.reactions.take_over(reaction):
                self._applying.apply(reaction, now)
        self._plan(now)

    def let_go(self, vmtas: Iterable[str]) -> None:
        """Forget what reaches these vmtas: their next owner has it."""
        gone = set(vmtas)
        self._applying.forget(gone)
        for key in [each.key for each in self.reactions.in_force.values() if each.reach.vmta in gone]:
            del self.reactions.in_force[key]

    def path_made(self, path: Path, destination: Destination) -> None:
        """A path was made: what is in force reaches it, too."""
        self._applying.path_made(path, destination, self._loop.time())

    def rule(self, name: str) -> ReplyRule | None:
        """Return the rule of that name."""
        return self._rules.get(name)


def is_scope(rule: ReplyRule, scope: str) -> bool:
    """Return whether a reaction of that scope may be the rule's: a provider's may be a single site's."""
    return scope in (scope_of(rule), "path" if scope_of(rule) == "provider" else "")


def scope_of(rule: ReplyRule) -> str:
    """Return how far a rule reaches."""
    if rule.does in OF_HOSTS:
        return "host"
    return rule.scope if rule.scope in ("vmta", "provider", "customer", "waiting") else "path"


def reach_of(rule: ReplyRule, whence: Whence) -> Reach:
    """Return what a rule reaches that fires for a reply; a site without a provider is reached alone."""
    scope, destination = scope_of(rule), whence.destination
    vmta = whence.path.vmta
    if scope == "host":
        return Reach(scope, host=whence.host)
    if scope == "waiting":
        return Reach(scope, destination=destination.name, customer=whence.customer)
    if scope == "vmta":
        return Reach(scope, vmta)
    if scope == "provider" and destination.provider:
        return Reach(scope, vmta, provider=destination.provider)
    if scope == "customer":
        return Reach(scope, vmta, destination.name, customer=whence.customer)
    return Reach("path", vmta, destination.name)
