"""Hosts that turn mail away for now, so that a retry begins with the next one.

RFC 5321 section 5.1 has the addresses tried in order until a delivery succeeds. A host that says 4xx to MAIL
has been tried: the retry of that mail, from the same vmta, begins with the other hosts of the site, and comes
back to this one behind them. What 4xx to RCPT says is of the recipient, and a greylist wants the same host.

It costs the other hosts little: a host is passed over only until the retry is due, for an hour at most; not
where it has taken mail since; and where all hosts of a site turn mail away (those of one provider share what
they know) the order is as it was.

Owns: which hosts are passed over.
Never: opens or closes a session, but asks one to quit that waits in vain at such a host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from engine.delivery.flight import Bearer, Flight
from engine.delivery.peer_memory import PeerMemory
from engine.smtp.client import Outcome

FAULT = "mail"  # `explain` says: mail fails
MAX_S = 3600.0
MARGIN_S = 60.0  # a retry waits for rates and slots, too


class Idler(Bearer, Protocol):
    """A session that may have nothing to do."""

    @property
    def is_idle(self) -> bool: ...
    def quit(self) -> None: ...


class TurnedAway:
    """Knows the hosts that turn mail away."""

    def __init__(
        self, memory: PeerMemory, loop: asyncio.AbstractEventLoop, unix_clock: Callable[[], float]
    ) -> None:
        self._memory = memory
        self._loop = loop
        self._unix = unix_clock

    def is_passed_over(self, host: str, port: int) -> bool:
        """Return whether the other hosts of a site come first."""
        return self._memory.knows(host_key(host, port), FAULT, self._loop.time())

    def note(self, session: Idler, flight: Flight, outcome: Outcome) -> None:
        """A transaction has been settled. HOT."""
        mail = outcome.mail
        if mail is None or mail.synthetic or len(flight.site_queue.site.hosts) < 2:
            return
        peer = session.facts.peer
        if mail.is_temporary:
            wait_s = max(0.0, flight.delivery.due_at - self._unix()) + MARGIN_S
            until = self._loop.time() + min(wait_s, MAX_S)
            self._memory.remember(host_key(peer.host, peer.port), FAULT, until, str(mail))
            self._loop.call_soon(self._leave, session)
        elif outcome.final is not None and outcome.final.code < 300:
            self._memory.forget(host_key(peer.host, peer.port), FAULT)

    def _leave(self, session: Idler) -> None:
        """A session that is kept for the next message would take the retry, too."""
        if session.is_idle and self.is_passed_over(session.facts.peer.host, session.facts.peer.port):
            session.quit()


def host_key(host: str, port: int) -> str:
    """Return under what name a host is remembered, whatever its addresses."""
    return f"{host}:{port}"
