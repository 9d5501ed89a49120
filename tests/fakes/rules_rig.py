"""A shard's delivery with rules for replies: a Rig, and what the shard adds to it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engine.core.reply import Reply
from engine.delivery.applying import Applying
from engine.delivery.bouncing import BounceWaiting
from engine.delivery.hearing import Whence
from engine.delivery.reacting import Reacting
from engine.policy.on_reply import ReplyRule
from engine.queue.path import Path
from engine.queue.reactions import Reach
from tests.fakes.delivery_rig import Rig, make_policies
from tests.fakes.wire import ScriptedPeer


def rule(section: str = "default", **keys: Any) -> str:
    """Return an [[....on_reply]] table."""
    return f"[[{section}.on_reply]]\n" + "".join(f"{key} = {value!r}\n" for key, value in keys.items())


class RulesRig(Rig):
    """Sessions and paths that hear."""

    def __init__(self, policy: str = "", **others: Any) -> None:
        super().__init__(policy, **others)
        self.fired: list[tuple[str, str]] = []  # rule and what it reaches
        self.cancelled: list[Path] = []
        applying = Applying(self.paths, self, self.kick_soon)
        self.reacting = Reacting(self.loop, self.paths.policies, applying, self.counters, self.tell)
        self.applying = applying
        self.dispatcher.hearer = self.reacting
        self.paths.on_new = self.reacting.path_made
        self.bouncing = BounceWaiting(
            self.store,
            self.sites,
            self.readahead,
            self.dispositions,
            self.resolver,
            self.paths,
            applying,
            self.policy_for,
            self.reacting.rule,
        )
        self.readahead.start()

    def kick_soon(self, path: Path) -> None:
        self.loop.call_soon(self.dispatcher.kick, path)

    def tell(self, rule: ReplyRule, reach: Reach, reply: Reply, whence: Whence) -> None:
        self.fired.append((rule.name, str(reach)))

    def reload(self, policy: str) -> None:
        policies = make_policies(policy)
        self.paths.replace_policies(policies)
        self.reacting.use(policies)

    # -- Sessions, as Applying wants them ----------------------------------------------------------

    def trim(self) -> None:
        for session in list(self.sessions):
            others = [each for each in self.sessions if each.path is session.path and not each.is_quitting]
            if len(others) > session.path.max_connections:
                session.quit()

    def stop_opening(self, paths: Collection[Path]) -> None:
        self.cancelled += paths

    def leave_host(self, host: str) -> None:
        for session in list(self.sessions):
            if session.facts.peer.host == host:
                session.quit()

    # -- what tests ask ----------------------------------------------------------------------------

    @property
    def keys(self) -> list[str]:
        return list(self.reacting.reactions.in_force)

    def script(self, **replies: str | list[str]) -> None:
        """Have peers answer MAIL, RCPT, DATA, END with these; of a list each once, then as usual."""
        left = {
            verb: [text] * 10_000 if isinstance(text, str) else list(text) for verb, text in replies.items()
        }

        def answer(command: str) -> str | None:
            verb = "END" if command == "." else command[:4]
            return left[verb].pop(0) if left.get(verb) else None

        self.answer = lambda path, site: ScriptedPeer(answer)

    def wrote(self, verb: str = "MAIL") -> int:
        """Return how many commands of that name the peers have read."""
        return sum(command.startswith(verb) for _, _, peer in self.peers for command in peer.commands)
