"""SMTP listeners: who may inject, and within which limits.

Each connection has a session (inject.smtp_session), which asks here whether it may stay.

Owns: what the sessions of one listener have in common; who may connect.
Never: speaks SMTP (smtp.server does), accepts or ends connections (inject.listener does).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Protocol

from engine.core.reply import Reply, make_reply
from engine.inject.context import FeedContext, Intake
from engine.inject.listener import Listener
from engine.settings.model import ListenerSettings
from engine.smtp.hello import ServerLimits
from engine.telemetry.metrics import Counters


class CheckingIntake(Intake, Protocol):
    """An acceptor that is asked before the message comes, too."""

    def check_sender(self, context: FeedContext, sender: str) -> Reply | None: ...


class SMTPListener(Listener):
    """One SMTP listener in one shard."""

    def __init__(self, settings: ListenerSettings, acceptor: CheckingIntake, counters: Counters) -> None:
        self.acceptor = acceptor
        super().__init__(settings, counters, "smtp")

    def use(self, settings: ListenerSettings) -> None:
        """Take new settings; sessions that are open keep theirs."""
        super().use(settings)
        self.limits = ServerLimits(
            settings.hostname,
            max_message_bytes=settings.max_message_size_bytes,
            max_recipients=settings.max_recipients,
            max_hold_s=settings.max_hold_s,
        )
        networks = tuple(ipaddress.ip_network(network) for network in settings.allow)
        self.may_inject = lru_cache(maxsize=4096)(lambda peer: _is_in(peer, networks))

    def refusal(self, peer: str) -> Reply | None:
        """Return why a client may not connect now, None if it may."""
        if self.is_stopping:
            return self.farewell()
        if not self.may_inject(peer):
            return make_reply(554, "5.7.1", f"{self.limits.hostname} takes no mail from {peer}")
        if self.is_full:
            return make_reply(
                421, "4.3.2", f"{self.limits.hostname} has too many connections, try again later"
            )
        return None

    def farewell(self) -> Reply:
        """Return what a stopping listener says."""
        return make_reply(421, "4.3.2", f"{self.limits.hostname} is stopping, try again later")


def _is_in(peer: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)
