"""tickets: each is used once, holds as long as it may, and there is a bound."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.net.tickets import MAX_PROOF_AGE_S, MAX_TICKETS_OF_PEER, Ticket, Tickets

NOW = 1_700_000_000.0


def ticket(*, given_at: float = NOW, timeout: int = 7200, hint: int = 7200, proven_at: float = NOW) -> Ticket:
    session: Any = SimpleNamespace(time=int(given_at), timeout=timeout, ticket_lifetime_hint=hint)
    return Ticket(session, "verified", proven_at)


def test_a_ticket_is_used_once():
    """RFC 8446 appendix C.4: "Clients SHOULD NOT reuse a ticket for multiple connections"."""
    tickets = Tickets()
    given = ticket()
    tickets.put("mx", given)
    assert tickets.take("mx", NOW) is given
    assert tickets.take("mx", NOW) is None
    assert len(tickets) == 0


def test_tickets_are_the_peers_that_gave_them():
    tickets = Tickets()
    tickets.put("mx1", ticket())
    assert tickets.take("mx2", NOW) is None
    assert len(tickets) == 1


def test_the_newest_goes_first():
    tickets = Tickets()
    first, second = ticket(), ticket()
    tickets.put("mx", first)
    tickets.put("mx", second)
    assert tickets.take("mx", NOW) is second
    assert tickets.take("mx", NOW) is first


def test_a_ticket_ends_when_the_peer_says():
    """RFC 8446 section 4.6.1: ticket_lifetime, in seconds from the time of issuance."""
    tickets = Tickets()
    for given in (ticket(hint=100), ticket(timeout=100), ticket(timeout=100, hint=0)):
        tickets.put("mx", given)
        assert tickets.take("mx", NOW + 100.0) is None
        tickets.put("mx", given)
        assert tickets.take("mx", NOW + 99.0) is given


def test_a_certificate_is_shown_anew_after_an_hour_however_often_it_was_resumed():
    tickets = Tickets()
    renewed = ticket(given_at=NOW + MAX_PROOF_AGE_S - 1.0)
    tickets.put("mx", renewed)
    assert tickets.take("mx", NOW + MAX_PROOF_AGE_S) is None


def test_the_least_lately_used_peer_goes_where_the_bound_is_reached():
    tickets = Tickets(max_peers=2)
    for peer in ("mx1", "mx2", "mx1", "mx3"):
        tickets.put(peer, ticket())
    assert tickets.take("mx2", NOW) is None
    assert tickets.take("mx1", NOW) is not None


def test_one_peer_has_so_many_and_no_more():
    tickets = Tickets()
    for _ in range(MAX_TICKETS_OF_PEER):
        assert not tickets.is_full("mx")
        tickets.put("mx", ticket())
    assert tickets.is_full("mx")
    tickets.take("mx", NOW)
    assert not tickets.is_full("mx")


def test_a_peers_tickets_can_be_forgotten():
    tickets = Tickets()
    tickets.put("mx", ticket())
    tickets.forget("mx")
    tickets.forget("mx")
    assert tickets.take("mx", NOW) is None
