"""How often somebody may try a password.

Only failures count, so that an injector who knows its password may connect as often as it likes. A user who
is attacked can still log in from where that has worked before: else anybody could lock anybody out.

Owns: failures by address and by user, in windows, bounded in number; who was right from where; the interface
    by which tries of all shards count as one (shard.attempts has that of several).
Never: checks a password, reads a clock.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from engine.core.address import parse_ip

WINDOW_S = 300.0
MAX_FAILURES_PER_ADDRESS = 20  # in a window; operators' practice (fail2ban's jails: 3 to 10 in 10 min)
MAX_FAILURES_PER_USER = 20  # over all addresses from which it has not worked before
MAX_WATCHED = 10_000  # addresses, users, pairs of both: 2 MB each; the oldest are forgotten


MAX_EXPORTED = 2_000  # keys of each kind, the most used ones: what a shard tells an owner that is new

# With the limit that forbids a try: "address", "user", "" for none, UNKNOWN where nobody can say now.
Decided = Callable[[str], None]
UNKNOWN = "unknown"


class Tries(Protocol):
    """What the passwords ask before they look at one."""

    def begin(self, peer: str, user: str, now: float, decided: Decided, *, is_known: bool = False) -> None:
        """Say whether a try may be made, and count it as a failure until `succeed` (unless `is_known`: it is
        right, and would only be told so)."""

    def succeed(self, peer: str, user: str, now: float) -> None: ...


class Attempts:
    """Failures, of whom all go through here."""

    def __init__(self) -> None:
        self._addresses = _Windows(MAX_FAILURES_PER_ADDRESS)
        self._users = _Windows(MAX_FAILURES_PER_USER)
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()

    def limit(self, peer: str, user: str, now: float) -> str:
        """Return which limit forbids another try: "address", "user" or ""."""
        block = _block(peer)
        if self._addresses.is_spent(block, now):
            return "address"
        if (user, block) not in self._good and self._users.is_spent(user, now):
            return "user"
        return ""

    def begin(self, peer: str, user: str, now: float) -> None:
        """A try begins: it counts as a failure until it is known to be none, for many may begin at once."""
        block = _block(peer)
        self._addresses.add(block, now, 1)
        if (user, block) not in self._good:
            self._users.add(user, now, 1)

    def succeed(self, peer: str, user: str, now: float) -> None:
        """It was the password."""
        block = _block(peer)
        self._addresses.add(block, now, -1)
        if (user, block) not in self._good:
            self._users.add(user, now, -1)
        _remember(self._good, (user, block))

    def take(self, peer: str, user: str, now: float, *, is_known: bool = False) -> str:
        """Begin a try where no limit forbids it; return the limit."""
        limit = self.limit(peer, user, now)
        if not limit and not is_known:
            self.begin(peer, user, now)
        return limit

    def export(self, now: float) -> list[list[tuple[str, float, int]]]:
        """Return what counts now: of addresses, of users; key, seconds left, failures."""
        return [windows.export(now) for windows in (self._addresses, self._users)]

    def adopt(self, exported: list[list[tuple[str, float, int]]], now: float) -> None:
        """Count what was exported elsewhere, too."""
        for windows, rows in zip((self._addresses, self._users), exported, strict=True):
            for key, left_s, count in rows[:MAX_EXPORTED]:
                windows.add(key, now, count, left_s)


class LocalTries:
    """The tries of an engine of one shard."""

    def __init__(self) -> None:
        self._attempts = Attempts()

    def begin(self, peer: str, user: str, now: float, decided: Decided, *, is_known: bool = False) -> None:
        """Decide at once."""
        decided(self._attempts.take(peer, user, now, is_known=is_known))

    def succeed(self, peer: str, user: str, now: float) -> None:
        """It was the password."""
        self._attempts.succeed(peer, user, now)


class _Windows:
    """Counts by key, each in a window that begins with its first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()  # key to end of window, count

    def is_spent(self, key: str, now: float) -> bool:
        ends_at, count = self._counts.get(key, (0.0, 0))
        return now < ends_at and count >= self._limit

    def add(self, key: str, now: float, amount: int, window_s: float = WINDOW_S) -> None:
        ends_at, count = self._counts.get(key, (0.0, 0))
        if now >= ends_at:
            ends_at, count = now + window_s, 0
        count += amount
        if count <= 0:
            self._counts.pop(key, None)
            return
        self._counts[key] = (ends_at, count)
        if len(self._counts) > MAX_WATCHED:
            self._counts.popitem(last=False)

    def export(self, now: float) -> list[tuple[str, float, int]]:
        found = [
            (key, ends_at - now, count) for key, (ends_at, count) in self._counts.items() if ends_at > now
        ]
        return sorted(found, key=lambda row: -row[2])[:MAX_EXPORTED]


def _remember(known: OrderedDict[tuple[str, str], None], key: tuple[str, str]) -> None:
    known[key] = None
    known.move_to_end(key)
    if len(known) > MAX_WATCHED:
        known.popitem(last=False)


def _block(peer: str) -> str:
    """Return what stands for an address: of IPv6 the /64, which is one host's to choose from."""
    if ":" not in peer:
        return peer
    try:
        address = parse_ip(peer.partition("%")[0])
    except ValueError:
        return peer
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))
