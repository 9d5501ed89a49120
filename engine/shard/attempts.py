"""Failures to log in, counted over all shards: who connects often meets another shard each time.

Shard 0 counts for all, and is asked before a password is looked at; a hash costs a thousand times as much.
So the limits hold exactly. While shard 0 is away a log-in waits for it, and is put off (454) where that takes
too long. What a shard has asked for is noted there as well, and told to a shard 0 that is new, which decides
nothing before: of what was counted before it died, only the tries that came through itself are forgotten.

Owns: the conversation about tries, and which of them wait.
Never: does the sums (inject.attempts does), looks at a password.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.control.peers import PeerLinks
from engine.core.errors import NetworkError
from engine.inject.attempts import UNKNOWN, Attempts, Decided

OWNER = 0
LOOK_EVERY_S = 0.05  # whether the link to a new owner stands
MAX_WAIT_S = 3.0  # a shard that died is back in one or two; clients wait for a reply to AUTH for minutes


class SharedTries:
    """The tries of all shards, as one of them sees them."""

    _peers: PeerLinks

    def __init__(self, shard: int) -> None:
        self._is_owner = shard == OWNER
        self._attempts = Attempts()  # the owner's are everybody's
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None  # while something waits
        self._waiting: deque[tuple[float, Callable[[bool], None]]] = deque()  # until when, what begins then
        self._has_told = False  # the owner knows what is known here
        self._heard: set[int] = set()  # by the owner: shards whose word has come
        self._unheard: dict[int, float] = {}  # those whose word is awaited, until then

    def handlers(self) -> dict[str, Callable[[int, Any], Any]]:
        """Return what the other shards may ask."""
        return {"auth-begin": self._take, "auth-right": self._right, "auth-known": self._adopt}

    def connect(self, peers: PeerLinks) -> None:
        """Talk over these links."""
        self._peers = peers

    def close(self) -> None:
        """Say no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def peer_changed(self, shard: int, is_up: bool) -> None:
        """Another shard came or went."""
        if self._is_owner:
            self._unheard.pop(shard, None)
            if not is_up:
                self._heard.discard(shard)
            elif shard not in self._heard:
                self._unheard[shard] = self._loop.time() + MAX_WAIT_S
        elif shard == OWNER and not is_up:
            self._has_told = False
        self._look()

    def begin(self, peer: str, user: str, now: float, decided: Decided, *, is_known: bool = False) -> None:
        """Say whether a try may be made; it counts from now on (`Tries`)."""

        def go_on(is_ready: bool) -> None:
            if not is_ready:
                decided(UNKNOWN)
            elif self._is_owner:
                decided(self._attempts.take(peer, user, self._loop.time(), is_known=is_known))
            else:
                self._ask(peer, user, decided, is_known=is_known)

        if not self._waiting and self._is_ready():
            go_on(True)
            return
        self._waiting.append((now + MAX_WAIT_S, go_on))
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    def succeed(self, peer: str, user: str, now: float) -> None:
        """It was the password."""
        self._attempts.succeed(peer, user, now)
        if not self._is_owner:
            self._peers.notify(OWNER, "auth-right", [peer, user])

    def _ask(self, peer: str, user: str, decided: Decided, *, is_known: bool) -> None:
        def answered(limit: Any, error: NetworkError | None) -> None:
            if error is None and not limit and not is_known:
                self._attempts.begin(peer, user, self._loop.time())
            decided(UNKNOWN if error is not None else limit)

        self._peers.send(OWNER, "auth-begin", [peer, user, is_known], answered)

    # -- waiting ------------------------------------------------------------------------------------

    def _is_ready(self) -> bool:
        """Whether a try can be decided; a new owner hears first what is known here."""
        if self._is_owner:
            if self._unheard:
                now = self._loop.time()
                self._unheard = {shard: until for shard, until in self._unheard.items() if until > now}
            return not self._unheard
        if not self._peers.is_up(OWNER):
            return False
        if not self._has_told:
            self._has_told = True
            self._peers.notify(OWNER, "auth-known", self._attempts.export(self._loop.time()))
        return True

    def _look(self) -> None:
        """Begin what waits, or give it up where it has waited for too long."""
        self.close()
        is_ready, now = self._is_ready(), self._loop.time()
        while self._waiting and (is_ready or self._waiting[0][0] <= now):
            self._waiting.popleft()[1](is_ready)
        if self._waiting or not is_ready:
            self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    # -- as the owner -----------------------------------------------------------------------------

    def _take(self, _shard: int, body: Any) -> asyncio.Future[str]:
        peer, user, is_known = body
        answer: asyncio.Future[str] = self._loop.create_future()

        def decided(limit: str) -> None:
            if not answer.done():  # the link may be gone
                answer.set_result(limit)

        self.begin(peer, user, self._loop.time(), decided, is_known=is_known)
        return answer

    def _right(self, _shard: int, body: Any) -> None:
        peer, user = body
        self._attempts.succeed(peer, user, self._loop.time())

    def _adopt(self, shard: int, body: Any) -> None:
        self._heard.add(shard)
        self._unheard.pop(shard, None)
        self._attempts.adopt(body, self._loop.time())
        self._look()
