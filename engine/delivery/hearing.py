"""Who hears what peers refuse, as soon as it was read: before anything more is written there.

Owns: the words between sessions, opening and whoever reacts.
Never: reacts (reacting does).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.core.reply import Reply
from engine.policy.model import Destination
from engine.policy.on_reply import ReplyRule
from engine.queue.path import Path


class Whence(NamedTuple):
    """Where a reply was said."""

    path: Path
    destination: Destination
    customer: str  # whose mail it answers, or made us connect
    host: str  # as its MX names it
    phase: str  # connect, ehlo, tls, mail, rcpt or data


class Hearer(Protocol):
    """Hears of refusals, and of successes where something waits for them."""

    def heard(self, reply: Reply, whence: Whence) -> ReplyRule | None:
        """A peer said this, above 399; returns the rule that says what becomes of the recipient, if any."""

    def fired_for(self, reply: Reply) -> ReplyRule | None:
        """Return what `heard` returned for the last reply, where it is this one."""

    def succeeded(self, path: Path) -> None:
        """A message was taken on a path that heeds successes."""

    def is_skipped(self, host: str) -> bool:
        """Whether a host is left out for the time being."""

    def is_in_clear(self, host: str) -> bool:
        """Whether a host gets its mail in clear, where policy allows that."""


class Deaf:
    """Hears nothing: without rules."""

    def heard(self, reply: Reply, whence: Whence) -> ReplyRule | None:  # noqa: ARG002
        return None

    def fired_for(self, reply: Reply) -> ReplyRule | None:  # noqa: ARG002
        return None

    def succeeded(self, path: Path) -> None:
        pass

    def is_skipped(self, host: str) -> bool:  # noqa: ARG002
        return False

    def is_in_clear(self, host: str) -> bool:  # noqa: ARG002
        return False
