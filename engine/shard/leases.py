"""The cap on connections over all shards, lent by one shard to the others.

Shard 0 owns the limit; every shard, that one too, borrows in advance and opens no more than it holds. An
owner that starts asks all before it grants, and what a dead shard held rests for as long as peers may
still see its connections.

Owns: the conversation about the lease, and which paths wait for it.
Never: does the sums (queue.leases does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from engine.control.peers import PeerLinks
from engine.core.errors import NetworkError
from engine.delivery.session import SLOT_AFTER_OUR_CLOSE_S
from engine.queue.leases import LeaseBorrower, LeaseOwner
from engine.queue.path import LeasedCap, Path

OWNER = 0
TICK_S = 0.05
MODEST_S = 1.0  # after a recall
AHEAD = 4  # connections in hand, so that a message rarely waits for the round trip


class ConnectionLease:
    """This shard's part of `max_connections` over all shards."""

    _peers: PeerLinks
    _kick: Callable[[Path], None]

    def __init__(self, shard: int, cap: LeasedCap) -> None:
        self._shard = shard
        self._cap = cap
        self._loop = asyncio.get_running_loop()
        self._borrower = LeaseBorrower(AHEAD)
        self._owner: LeaseOwner | None = None
        self._waiting: dict[Path, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._shards = 1
        self._modest_until = 0.0

    def handlers(self) -> dict[str, Callable[[int, Any], Any]]:
        """Return what the other shards may ask."""
        return {
            "lease-ask": self._lend,
            "lease-back": self._take_back,
            "lease-held": self._hear_held,
            "lease-recall": self._recall,
            "lease-report": self._report,
        }

    def connect(self, peers: PeerLinks, kick: Callable[[Path], None]) -> None:
        """Talk over these links; `kick(path)` when a path that waited may go on."""
        self._peers = peers
        self._kick = kick

    def use(self, limit: int, shards: int, *, is_quiet: bool = False) -> None:
        """Hold to this limit from now on; 0 is none.

        `is_quiet`: peers may still see sessions of this shard's last process, which count until they can't.
        """
        self._cap.limit = limit
        self._shards = shards
        if self._shard == OWNER and limit:
            if self._owner is None:
                self._owner = LeaseOwner(limit, range(shards))
                if is_quiet:
                    self._owner.lose(OWNER, self._loop.time() + SLOT_AFTER_OUR_CLOSE_S)
                self._owner.report(OWNER, self._borrower.held)
            self._owner.limit = limit
        if limit and self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def close(self) -> None:
        """Stop asking."""
        if self._timer is not None:
            self._timer.cancel()

    def wait(self, path: Path, reason: str) -> None:
        """A path found a cap spent: if it is this one, have it asked again when there is more."""
        if reason.startswith(self._cap.name):
            self._waiting[path] = None

    def peer_changed(self, shard: int, is_up: bool) -> None:
        """Another shard came or went."""
        if self._owner is not None and not is_up and shard != self._shard:
            self._owner.lose(shard, self._loop.time() + SLOT_AFTER_OUR_CLOSE_S)
        if shard == OWNER and is_up and self._shard != OWNER:
            self._borrower.reconnect()

    # -- as a borrower ----------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        borrower, now = self._borrower, self._loop.time()
        borrower.used = self._cap.in_use
        borrower.ahead = 0 if now < self._modest_until else AHEAD
        back = borrower.next_return()
        if back:
            self._cap.borrowed = borrower.held
            self._tell_owner("lease-back", back)
        amount = borrower.next_ask(now, len(self._waiting))
        if amount:
            self._ask(amount)
        if self._owner is not None:
            self._ask_back(now)

    def _ask(self, amount: int) -> None:
        if self._owner is not None:
            self._receive(self._owner.borrow(OWNER, amount, self._loop.time()))
            return

        def answered(granted: Any, error: NetworkError | None) -> None:
            self._receive(granted if error is None else 0)

        self._peers.send(OWNER, "lease-ask", [amount, self._borrower.held], answered)

    def _receive(self, granted: int) -> None:
        self._borrower.receive(granted, self._loop.time())
        self._cap.borrowed = self._borrower.held
        if granted:
            waiting, self._waiting = self._waiting, {}
            for path in waiting:
                self._kick(path)

    def _tell_owner(self, kind: str, amount: int) -> None:
        if self._owner is not None:
            self._owner.give_back(OWNER, amount)
        else:
            self._peers.notify(OWNER, kind, amount)

    def _recall(self, _from: int, amount: int) -> None:
        """Give back what is not in use, and keep nothing in hand for a while: another shard is short."""
        self._modest_until = self._loop.time() + MODEST_S
        self._borrower.recall(amount)

    # -- as the owner -----------------------------------------------------------------------------

    def _lend(self, shard: int, body: list[int]) -> int:
        """Grant what can be granted. A borrower says what it holds each time: that is its report, too."""
        if self._owner is None:
            return 0
        amount, held = body
        self._owner.report(shard, held)
        return self._owner.borrow(shard, amount, self._loop.time())

    def _take_back(self, shard: int, amount: int) -> None:
        if self._owner is not None:
            self._owner.give_back(shard, min(amount, self._owner.held_by(shard)))

    def _hear_held(self, shard: int, held: int) -> None:
        """Hear the answer to our question; one that a grant has overtaken says too little."""
        if self._owner is not None and self._owner.is_unheard(shard):
            self._owner.report(shard, held)

    def _ask_back(self, now: float) -> None:
        assert self._owner is not None
        for shard, amount in self._owner.recalls(now).items():
            if shard == OWNER:
                self._recall(OWNER, amount)
            else:
                self._peers.notify(shard, "lease-recall", amount)
        if self._owner.is_recovering:
            self._ask_everybody()

    def _ask_everybody(self) -> None:
        """The owner is new: hear from every shard what it holds before anything is granted."""
        assert self._owner is not None
        for shard in self._peers.up:
            if self._owner.is_unheard(shard):
                self._peers.notify(shard, "lease-report", None)

    def _report(self, _from: int, _body: Any) -> None:
        """The owner asks what we hold."""
        self._peers.notify(OWNER, "lease-held", self._borrower.held)
