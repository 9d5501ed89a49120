"""What is remembered of a peer for a while: what it can't do although it says so.

A fault is a word ("tls": its handshake fails); the peer is an address with its port, or an MX host's name;
`terms` is what the fault depends on besides, in words: the name, version and certificate of a handshake.
Other terms are another fact, so that a policy that was mended is tried. Times are the loop's, as everywhere
in delivery; on disk they are Unix UTC, so that they hold across a restart.

Owns: which faults of which peers are known, and until when.
Never: reads a clock or a file (upkeep keeps it on disk), decides what follows from a fault.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

# Peers are found by whoever publishes MX records, so the memory has a bound: 10,000 faults are about 5 MB.
# When it is reached, the one that was remembered first goes: the peer is then tried, and learnt, again.
MAX_FAULTS = 10_000
_MAX_DETAIL = 200
SMTP_PORT = 25
TLS = "tls"  # the one fault that depends on what we offered


class Fault(NamedTuple):
    """A fault of a peer, in force until then."""

    peer: str
    fault: str
    until: float
    detail: str
    terms: str = ""


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """As it is on disk."""

    peer: str
    fault: str
    until_at: float
    detail: str
    terms: str = ""


class PeerMemory:
    """Faults of peers."""

    def __init__(self, max_faults: int = MAX_FAULTS) -> None:
        self._max_faults = max_faults
        self.changes = 0  # how many there have been: whoever keeps it on disk writes where that has grown
        self._faults: dict[tuple[str, str, str], tuple[float, str]] = {}

    def remember(self, peer: str, fault: str, until: float, detail: str = "", terms: str = "") -> None:
        """Remember a fault until that time; a later word replaces the earlier."""
        key = (peer, fault, terms)
        self._faults.pop(key, None)
        if len(self._faults) >= self._max_faults:
            del self._faults[next(iter(self._faults))]
        self._faults[key] = until, detail[:_MAX_DETAIL]
        self.changes += 1

    def knows(self, peer: str, fault: str, now: float, terms: str = "") -> bool:
        """Return whether that peer has that fault, on these terms."""
        found = self._faults.get((peer, fault, terms))
        if found is None:
            return False
        if found[0] <= now:
            del self._faults[peer, fault, terms]
            return False
        return True

    def forget(self, peer: str, fault: str, terms: str = "") -> None:
        """Take it back: the peer can, after all."""
        if self._faults.pop((peer, fault, terms), None) is not None:
            self.changes += 1

    def faults(self, now: float, peer: str = "") -> list[Fault]:
        """Return what is known, of one peer or of all, in the order in which it was learnt."""
        return [
            Fault(name, fault, until, detail, terms)
            for (name, fault, terms), (until, detail) in self._faults.items()
            if until > now and peer in ("", name)
        ]

    # -- across a restart -------------------------------------------------------------------------

    def export(self, now: float, unix_now: float) -> bytes:
        """Return everything that is in force, to be kept on disk."""
        kept = [
            _Kept(each.peer, each.fault, round(each.until - now + unix_now), each.detail, each.terms)
            for each in self.faults(now)
        ]
        return msgspec.msgpack.encode(kept)

    def restore(self, octets: bytes, now: float, unix_now: float) -> None:
        """Take over what `export` returned; a handshake of which is not known what was offered is left out.

        Raises:
            ValueError: `octets` is no such thing.
        """
        for kept in msgspec.msgpack.decode(octets, type=list[_Kept]):
            if kept.fault == TLS and not kept.terms:
                continue  # of a release that kept the address alone: it may have been another port or policy
            if kept.until_at > unix_now:
                until = kept.until_at - unix_now + now
                self.remember(kept.peer, kept.fault, until, kept.detail, kept.terms)


def peer_key(host: str, address: str, port: int) -> str:
    """Return under what name a peer's faults are remembered: another port is another server."""
    if not address:
        return host  # a unix socket
    if port == SMTP_PORT:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
