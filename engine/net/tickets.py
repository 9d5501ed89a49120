"""TLS sessions that can be resumed, by peer.

A ticket is used once (RFC 8446 appendix C.4: who reuses one can be followed), so it leaves with whoever
takes it; the connection that it opens brings the next. A resumed session proves again what its first
handshake proved, so proof has an age: past it, the peer shows its certificate anew.

Owns: which tickets are kept, and for how long.
Never: reads a clock.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Hashable

import msgspec

# Peers that we come back to within the hour. A session with its certificate is 12 kB: 12 MB for one each.
MAX_PEERS = 1000
# Sessions that open to one peer at the same time; policy's max_connections is 10 unless told otherwise.
MAX_TICKETS_OF_PEER = 8
# How long the proof of a full handshake holds. One an hour costs nothing; certificates live for weeks.
MAX_PROOF_AGE_S = 3600.0


class Ticket(msgspec.Struct, frozen=True):
    """A session to resume, and what its first handshake found of the peer's certificate."""

    session: ssl.SSLSession
    verification: str
    proven_at: float  # Unix UTC


class Tickets:
    """Tickets by peer; the least lately used peer goes first."""

    def __init__(self, max_peers: int = MAX_PEERS) -> None:
        self._max_peers = max_peers
        self._by_peer: OrderedDict[Hashable, list[Ticket]] = OrderedDict()

    def take(self, peer: Hashable, at: float) -> Ticket | None:
        """Return the newest ticket for the peer that still holds; it is gone from here."""
        tickets = self._by_peer.get(peer)
        while tickets:
            ticket = tickets.pop()
            if not tickets:
                del self._by_peer[peer]
            session = ticket.session
            lifetime_s = min(session.timeout, session.ticket_lifetime_hint or session.timeout)
            if at < session.time + lifetime_s and at < ticket.proven_at + MAX_PROOF_AGE_S:
                return ticket
        return None

    def is_full(self, peer: Hashable) -> bool:
        """Return whether the peer has given as many as it may."""
        return len(self._by_peer.get(peer, ())) >= MAX_TICKETS_OF_PEER

    def put(self, peer: Hashable, ticket: Ticket) -> None:
        """Keep a ticket that the peer gave; not while it `is_full`."""
        tickets = self._by_peer.setdefault(peer, [])
        tickets.append(ticket)
        self._by_peer.move_to_end(peer)
        if len(self._by_peer) > self._max_peers:
            self._by_peer.popitem(last=False)

    def forget(self, peer: Hashable) -> None:
        """Drop the tickets of a peer: one of them did not open a session."""
        self._by_peer.pop(peer, None)

    def clear(self) -> None:
        self._by_peer.clear()

    def __len__(self) -> int:
        return sum(map(len, self._by_peer.values()))
