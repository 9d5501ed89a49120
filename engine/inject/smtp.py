"""SMTP listeners: who may inject, and within which limits.

Each connection has a session (inject.smtp_session), which asks here whether it may stay.

Owns: what the sessions of one listener have in common; who may connect.
Never: speaks SMTP (smtp.server does), accepts or ends connections (inject.listener does).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Protocol

from engine.core.address import IPNetwork, parse_ip, parse_network
from engine.core.reply import Reply, make_reply
from engine.inject.context import FeedContext, Intake
from engine.inject.listener import Listener
from engine.inject.passwords import Passwords
from engine.inject.shedding import NEVER, Shedding
from engine.net.certificate import Certificate
from engine.settings.model import AUTH_PROTOCOLS, ListenerSettings
from engine.smtp.access import AccessRules
from engine.smtp.hello import ServerLimits
from engine.telemetry.metrics import Counters

CERTIFICATE_TICKS = 10  # seconds between two looks at a certificate's files


class CheckingIntake(Intake, Protocol):
    """An acceptor that is asked before the message comes, too."""

    def check_sender(self, context: FeedContext, sender: str) -> Reply | None: ...


class SMTPListener(Listener):
    """One SMTP listener in one shard."""

    def __init__(
        self,
        settings: ListenerSettings,
        acceptor: CheckingIntake,
        counters: Counters,
        passwords: Passwords | None = None,
        shedding: Shedding = NEVER,
    ) -> None:
        self.acceptor = acceptor
        self.passwords = passwords or Passwords(counters)
        self.shedding = shedding
        self.certificate: Certificate | None = None
        self.opening = 0  # connections before their first SMTP octet: a proxy's header, a handshake
        self.farewells = 0  # the same, of connections that are to be refused
        self._ticks = 0
        self._tasks: set[asyncio.Task[None]] = set()
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
        self._use_certificate(settings)
        self.has_auth = settings.protocol in AUTH_PROTOCOLS
        self.is_implicit_tls = settings.protocol == "submissions"
        self.has_preamble = self.is_implicit_tls or settings.proxy_protocol
        self.may_inject = _make_matcher(settings.allow)
        self.is_proxy = _make_matcher(settings.proxy_networks)
        self.may_xclient = _make_matcher(settings.xclient_networks)

    def _use_certificate(self, settings: ListenerSettings) -> None:
        """Look at the files again, whatever their times: somebody has asked for a reload."""
        files = (settings.tls_certificate, settings.tls_key, settings.tls_min_version)
        if not settings.tls_certificate:
            self.certificate = None
        elif self.certificate is None or self.certificate.files != files:
            self.certificate = Certificate(*files)
        else:
            self.certificate.refresh(is_asked=True)

    def sweep(self) -> None:
        """One second has passed."""
        super().sweep()
        self._ticks += 1
        if self.certificate is not None and self._ticks % CERTIFICATE_TICKS == 0:
            self.certificate.refresh()

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """What a handshake that begins now uses; None where there is no certificate that could be."""
        return self.certificate.context if self.certificate is not None else None

    @property
    def rules(self) -> AccessRules:
        """What a session that begins now offers and asks for."""
        return AccessRules(
            has_starttls=self.tls_context is not None,
            requires_auth=self.has_auth,
            allows_plaintext_auth=self.settings.allow_plaintext_auth,
        )

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something of a session, until its end or ours."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def count_handshake(self, result: str) -> None:
        """A handshake is done, or failed."""
        name = "mailrail_handshakes_total"
        self._counters.counter(name, listener=self.settings.name, result=result)[0] += 1

    @property
    def takes_nobody(self) -> bool:
        """No room for one more that has not begun to speak SMTP, or load is shed."""
        return self._is_crowded or self.shedding.reply is not None

    @property
    def _is_crowded(self) -> bool:
        return len(self.sessions) + self.opening >= self.settings.max_connections

    def count_untold(self) -> None:
        """A connection was closed without a word: too many wait for theirs."""
        reason = "too many connections" if self._is_crowded else self.shedding.reason
        name = "mailrail_closed_untold_total"
        self._counters.counter(name, listener=self.settings.name, reason=reason)[0] += 1

    def refusal(self, peer: str) -> Reply | None:
        """Return why a client may not connect now, None if it may."""
        if self.is_stopping:
            return self.farewell()
        stranger = self.stranger(peer)
        if stranger is not None:
            return stranger
        if self.is_full:
            return make_reply(
                421, "4.3.2", f"{self.limits.hostname} has too many connections, try again later"
            )
        return self.shedding.count("smtp")

    def stranger(self, peer: str) -> Reply | None:
        """Return why a client may not inject at all, None if it may."""
        if self.may_inject(peer):
            return None
        return make_reply(554, "5.7.1", f"{self.limits.hostname} takes no mail from {peer}")

    def farewell(self) -> Reply:
        """Return what a stopping listener says."""
        return make_reply(421, "4.3.2", f"{self.limits.hostname} is stopping, try again later")


def _make_matcher(networks: tuple[str, ...]) -> Callable[[str], bool]:
    """Return whether an address is in one of the networks, remembered."""
    parsed = tuple(map(parse_network, networks))
    return lru_cache(maxsize=4096)(lambda peer: _is_in(peer, parsed))


def _is_in(peer: str, networks: tuple[IPNetwork, ...]) -> bool:
    try:
        address = parse_ip(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)
