"""From a refusal to what is done about it: its category, by the policies' rules, and that category's action.

Owns: how category, attempts and code make a disposition.
Never: classifies (policy.classify), retries or bounces anything (settle).
"""

from __future__ import annotations

from typing import NamedTuple

from engine.core.envelope import Delivery
from engine.core.reply import Reply
from engine.policy.categories import FINAL
from engine.policy.fold import PolicySet
from engine.policy.on_reply import ReplyRule
from engine.telemetry.events import Event


class Judgement(NamedTuple):
    """What a refusal means for one recipient."""

    category: str
    rule: str  # that found the category; "" where it was none
    action: str
    wait_factor: int  # of the time to the next attempt
    reply_rule: str = ""  # that the reply has met
    wait_least_s: float = 0.0  # before the next attempt

    def overruled(self, rule: ReplyRule | None) -> Judgement:
        """Return what a rule for replies makes of it."""
        if rule is None:
            return self
        found = self._replace(reply_rule=rule.name)
        if rule.does == "bounce":
            return found._replace(action="give_up")
        if rule.does != "retry":
            return found
        action = "other_vmta" if rule.vmta == "other" else "retry" if self.action in FINAL else self.action
        return found._replace(action=action, wait_least_s=rule.in_s)

    @property
    def disposition(self) -> str:
        """Whether the recipient bounces, or is tried again."""
        return "bounced" if self.action in FINAL else "deferred"

    def mark(self, event: Event, delivery: Delivery) -> None:
        """Write it into the event, and what it says of the next attempt into the delivery."""
        event.category = self.category
        event.rule = self.rule
        event.action = self.action
        event.reply_rule = self.reply_rule
        if self.action not in FINAL:
            delivery.wait_least_s = max(delivery.wait_least_s, self.wait_least_s)
            delivery.avoid = event.vmta if self.action == "other_vmta" else ""
            delivery.wait_factor = max(delivery.wait_factor, self.wait_factor)


class Judge:
    """Applies the policies in force."""

    def __init__(self, policies: PolicySet) -> None:
        self.use(policies)

    def use(self, policies: PolicySet) -> None:
        """Go by these policies from now on; compiles their rules."""
        self._classify = policies.classifier.classify
        self._rows = policies.categories

    def judge(self, reply: Reply, provider: str, attempts: int, *, is_permanent: bool) -> Judgement:
        """Judge a reply that refuses a recipient. HOT.

        Args:
            provider: the destination's, or "".
            attempts: made by now, this one included.
            is_permanent: by its code.
        """
        category, rule, basis = self._classify(reply, provider)
        row = self._rows[category]
        action = row.action(basis, is_permanent=is_permanent, attempts=attempts)
        return Judgement(category, rule, action, row.wait_factor if action == "retry_slower" else 1)

    def category(self, reply: Reply, provider: str) -> str:
        """Return the category of a reply that answers no transaction."""
        return self._classify(reply, provider).category

    def judge_settled(self, disposition: str, reply: Reply, provider: str, attempts: int) -> Judgement:
        """Judge a reply where it is settled already what becomes of the mail.

        A peer that refuses the connection, whatever its code, has refused no recipient: it is tried again.
        """
        found = self.judge(reply, provider, attempts, is_permanent=reply.is_permanent)
        if found.disposition == disposition:
            return found
        return found._replace(action="give_up" if disposition == "bounced" else "retry", wait_factor=1)
