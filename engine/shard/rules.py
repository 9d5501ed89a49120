"""Rules for replies in one shard: wired, kept on disk, told to other shards, shown to operators.

What a vmta meets stays with its shard, since the vmta does. What reaches a host, or all that waits of a
customer for a destination, is the other shards' matter, too: they are told at once.

Owns: when reactions are written, who is told of them; the rows of `mailrail rules`.
Never: reacts (delivery.reacting does).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.core.reply import Reply
from engine.delivery.applying import Applying
from engine.delivery.bouncing import BounceWaiting
from engine.delivery.hearing import Whence
from engine.delivery.reacting import Reacting
from engine.policy.explain import explain_rule
from engine.policy.fold import PolicySet
from engine.policy.model import Destination
from engine.policy.on_reply import ReplyRule
from engine.queue.path import Path as EnginePath
from engine.queue.reactions import STEPS, Reach, Reaction, reaching, shifted
from engine.shard.kept_reactions import KeptReactions
from engine.telemetry.events import Event, Peer

if TYPE_CHECKING:
    from engine.shard.build import Engine

KEEP_AFTER_S = 0.1  # what changes in that time goes to disk together
FAR = "reaction"  # what other shards are told

Row = dict[str, Any]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reaction).decode


class Rules:
    """The rules for replies of one shard."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        data_dir = Path(engine.model.settings.engine.data_dir)
        loop = engine.loop
        applying = Applying(engine.paths, engine.opener, self._kick_soon)
        self.reacting = Reacting(loop, engine.model.policies, applying, engine.counters, self._tell)
        self.reacting.on_far = self._tell_others
        self.reacting.on_change = self._keep_soon
        engine.dispatcher.hearer = self.reacting
        engine.paths.on_new = self.reacting.path_made
        self._kept = KeptReactions(data_dir, engine.shard, loop.time)
        self._keep_timer: Any = None
        self.bouncing = BounceWaiting(
            engine.store,
            engine.sites,
            engine.readahead,
            engine.dispositions,
            engine.resolver,
            engine.paths,
            applying,
            engine.policy_for,
            self.reacting.rule,
        )
        engine.exchange.peers.add_handlers({FAR: self._take_far})

    def open(self) -> None:
        """Go on with what was in force."""
        self._kept.open()
        self.take_over()

    def _kick_soon(self, path: EnginePath) -> None:
        self._engine.loop.call_soon(self._engine.dispatcher.kick, path)

    def use(self, policies: PolicySet) -> None:
        """Go by the rules of another generation; vmtas that are here no more take theirs along."""
        vmtas = self._engine.paths.vmtas
        in_force = self.reacting.reactions.in_force.values()
        self.reacting.let_go({each.reach.vmta for each in in_force} - {"", *vmtas})
        self.reacting.use(policies)

    def take_over(self) -> None:
        """Take over what is in force of vmtas that are here from now on, and of hosts."""
        vmtas = self._engine.paths.vmtas
        found = self._kept.read(time.time())
        self.reacting.take_over([each for each in found if not each.reach.vmta or each.reach.vmta in vmtas])

    def let_go(self, vmtas: Iterable[str]) -> None:
        """Write what reaches these vmtas for the last time: another shard goes on from there."""
        self._keep()
        self.reacting.let_go(vmtas)

    def close(self) -> None:
        """Keep everything."""
        self._keep()
        self.reacting.close()
        self.bouncing.close()

    # -- disk -------------------------------------------------------------------------------------

    def _keep_soon(self) -> None:
        if self._keep_timer is None:
            self._keep_timer = self._engine.loop.call_later(KEEP_AFTER_S, self._keep)

    def _keep(self) -> None:
        if self._keep_timer is not None:
            self._keep_timer.cancel()
            self._keep_timer = None
        vmtas = self._engine.paths.vmtas
        in_force = self.reacting.reactions.in_force.values()
        self._kept.write(in_force, lambda each: each.reach.vmta in ("", *vmtas), time.time())

    # -- other shards -----------------------------------------------------------------------------

    def _tell_others(self, reaction: Reaction) -> None:
        engine = self._engine
        body = _encode(shifted(reaction, time.time() - engine.loop.time()))
        for shard in engine.exchange.peers.up:
            engine.exchange.peers.notify(shard, FAR, body)

    def _take_far(self, _from: int, body: bytes) -> None:
        self.reacting.take_over([shifted(_decode(body), self._engine.loop.time() - time.time())])
        self._keep_soon()

    # -- events -----------------------------------------------------------------------------------

    def _tell(self, rule: ReplyRule, reach: Reach, reply: Reply, whence: Whence) -> None:
        destination = whence.destination
        event = Event("rule", time.time(), "", whence.customer, "", "", 0.0, 0, self._engine.shard)
        event.destination, event.provider = destination.name, destination.provider
        event.domain = destination.domain
        event.vmta = whence.path.vmta
        event.peer = Peer(whence.host, "")
        event.reply = reply
        event.reply_rule = rule.name
        event.action = rule.does
        event.reason = f"{rule.describe()}: {reach}"
        self._engine.events.add(event)

    # -- operators --------------------------------------------------------------------------------

    def cancel(self, key: str) -> dict[str, int]:
        """End a reaction by its key."""
        return {"cancelled": int(self.reacting.end(key, "an operator cancelled it"))}

    def describe_all(self) -> list[Row]:
        """Return what is in force, the first to end first."""
        reactions = sorted(self.reacting.reactions.in_force.values(), key=lambda each: each.until)
        return [self._describe(each) for each in reactions]

    def describe_for(self, destination: Destination, vmta: str) -> tuple[list[Row], list[Row]]:
        """Return the rules of a destination in the order of their search, and what is in force there."""
        rules = self._engine.paths.policies.rules_for(destination).rules
        in_force = [
            self._describe(each)
            for each in self.reacting.reactions.in_force.values()
            if (not vmta or each.reach.vmta in ("", vmta)) and _concerns(each, destination)
        ]
        return [msgspec.to_builtins(explain_rule(rule)) | self._counts(rule) for rule in rules], in_force

    def _counts(self, rule: ReplyRule) -> Row:
        return {
            "matched": self.reacting.matched.get(rule.name, 0),
            "fired": self.reacting.fired.get(rule.name, 0),
        }

    def _describe(self, reaction: Reaction) -> Row:
        now, to_unix = self._engine.loop.time(), time.time() - self._engine.loop.time()
        rule = self.reacting.rule(reaction.rule)
        reach = reaction.reach
        rate = reaction.rate
        return {
            "key": reaction.key,
            "rule": reaction.rule,
            "does": rule.describe() if rule is not None else reaction.does,
            **reach._asdict(),
            "since_at": reaction.since + to_unix,
            "until_at": reaction.until + to_unix,
            "count": reaction.count,
            "strength": f"{reaction.steps(now)}/{STEPS}",
            "connections": reaction.connections,
            "rate": str(rate) if rate is not None else "",
            "reply": reaction.reply,
            "where": f"{rule.origin.file}:{rule.origin.line}" if rule is not None else "",
        }


def _concerns(reaction: Reaction, destination: Destination) -> bool:
    reach = reaction.reach
    if reach.scope == "waiting":
        return reach.destination == destination.name
    return reach.scope == "host" or bool(
        reaching((reaction,), reach.vmta, destination.name, destination.provider)
    )
