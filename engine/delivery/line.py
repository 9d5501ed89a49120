"""The transport of a session and its clock: a peer that takes longer than policy allows is left.

Owns: the deadline of what is waited for; whether it was we who closed.
Never: knows transactions (session does).
Source: RFC 5321 section 4.5.3.2.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any

from msgspec import structs

from engine.net.extensions import Extensions
from engine.policy.model import Policy

# A transport that had us pause has more than this: asyncio's and uvloop's default (under TLS it is higher).
_LOW_WATER_BYTES = 16_384


class Line(asyncio.Protocol):
    """One open connection, as far as time goes."""

    __slots__ = (
        "_given",
        "_now",
        "_policy",
        "_timeouts",
        "_unsent_bytes",
        "_we_closed",
        "deadline",
        "extensions",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, policy: Policy, extensions: Extensions) -> None:
        self.extensions = extensions
        self._given = policy
        self._policy = within_limits(policy, extensions)
        self._timeouts = session_timeouts(policy)
        self._now = asyncio.get_running_loop().time
        self._unsent_bytes = 0  # when it was looked at last; 0: the transport takes what we write
        self._we_closed = False
        self.deadline = self._now() + policy.idle_timeout_s

    @property
    def now(self) -> float:
        """Loop time."""
        return self._now()

    @property
    @abstractmethod
    def waiting_for(self) -> str | None:
        """What the peer owes us, as `session_timeouts` names it."""

    @property
    @abstractmethod
    def phase(self) -> str:
        """What it waits for, for people."""

    @abstractmethod
    def lose(self, reason: str) -> None:
        """End the session; what is in flight is settled as lost for that reason."""

    def use_policy(self, policy: object) -> None:
        """Go by the path's policy as it is now: a reload may have changed it since the last transaction."""
        if policy is not self._given:
            assert isinstance(policy, Policy)
            self._given = policy
            self._policy = within_limits(policy, self.extensions)
            self._timeouts = session_timeouts(policy)

    def check_deadline(self, now: float) -> None:
        """Leave a peer that takes nothing of what we write, or owes us a reply, for too long."""
        if self._unsent_bytes:
            unsent_bytes = self.transport.get_write_buffer_size()
            if unsent_bytes < self._unsent_bytes:  # RFC 5321 section 4.5.3.2.5: the timer is for each block
                self._unsent_bytes = unsent_bytes
                self.deadline = now + self._policy.content_timeout_s
                return
        self.lose(f"timed out waiting for {self.phase}")

    @property
    def least_unsent_bytes(self) -> int:
        """How much of what was written has not left this host; a transport that has failed tells no more."""
        unsent_bytes = self.transport.get_write_buffer_size()
        return max(unsent_bytes, _LOW_WATER_BYTES) if self._unsent_bytes else unsent_bytes

    def abort(self) -> None:
        """Close at once; what is in flight is settled as lost."""
        self._we_closed = True
        self.transport.abort()

    def pause_writing(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self.deadline = self._now() + self._policy.content_timeout_s

    def resume_writing(self) -> None:
        self._unsent_bytes = 0
        self.deadline = self._now() + self._timeouts[self.waiting_for]


def session_timeouts(policy: Policy) -> dict[Any, float]:
    """Return the timer for each thing that a conversation waits for (RFC 5321 section 4.5.3.2)."""
    return {
        "rset": policy.rset_timeout_s,
        "mail": policy.mail_timeout_s,
        "rcpt": policy.rcpt_timeout_s,
        "data": policy.data_timeout_s,
        "final": policy.final_timeout_s,
        "quit": policy.quit_timeout_s,
        None: policy.content_timeout_s,
    }


def within_limits(policy: Policy, extensions: Extensions) -> Policy:
    """Return the policy towards a peer that names limits of its own (RFC 9422): the smaller ones hold."""
    if not (extensions.mail_max or extensions.rcpt_max):
        return policy
    messages, recipients = policy.max_messages_per_connection, policy.max_recipients_per_message
    return structs.replace(
        policy,
        max_messages_per_connection=min(messages, extensions.mail_max or messages),
        max_recipients_per_message=min(recipients, extensions.rcpt_max or recipients),
    )
