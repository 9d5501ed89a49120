"""Who an injector is: names and passwords against the hashes of the configuration.

A hash takes tens of milliseconds and megabytes: it is computed in a thread, one at a time, and only so many
may wait. What was right is remembered by a keyed digest until the next reload, so that an injector who
connects for each message costs one hash. A failure is answered at a fixed time after it was asked, and a name
that there is not costs a hash too: nobody learns from a clock which names there are.

Owns: the thread, the digests, the order of checks; what is counted and logged of them.
Never: speaks AUTH (smtp.auth does).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from engine.core.reply import Reply, make_reply
from engine.inject.attempts import UNKNOWN, LocalTries, Tries
from engine.settings.model import Customer
from engine.settings.password import (
    DEFAULT_LOG2_N,
    DEFAULT_P,
    DEFAULT_R,
    KEY_BYTES,
    SALT_BYTES,
    PasswordHash,
    matches,
)
from engine.smtp.auth import Credentials
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

MAX_WAITING = 32  # hashes of 80 ms: who is last waits under 3 s; the next is told to come again
FAILURE_S = 2.0  # from the password to the answer that it is wrong
MAX_REMEMBERED = 10_000  # digests of 32 octets
DIGEST_KEY_BYTES = 32

ACCEPTED = make_reply(235, "2.7.0", "Authentication successful")
WRONG = make_reply(535, "5.7.8", "Authentication credentials invalid")
BUSY = make_reply(454, "4.7.0", "Too many log-ins at once, try again later")
UNCOUNTED = make_reply(454, "4.7.0", "Log-ins can't be checked now, try again later")
TOO_MANY_FOR_USER = make_reply(454, "4.7.0", "Too many failures for this user, try again later")
TOO_MANY_FOR_ADDRESS = make_reply(421, "4.7.0", "Too many failures from your address, try again later")

# With the reply, and the user that it is, "" where that is not shown.
Told = Callable[[Reply, str], None]
Matcher = Callable[[PasswordHash, bytes], bool]

log = Log("auth")


class Passwords:
    """The credentials of all customers, in one shard."""

    def __init__(self, counters: Counters, tries: Tries | None = None, *, match: Matcher = matches) -> None:
        """Args:
        tries: what limits them; those of this shard alone where none is given.
        match: what compares a password with a hash, in a thread.
        """
        self._counters = counters
        self._match = match
        self._tries = tries or LocalTries()
        self._executor: ThreadPoolExecutor | None = None  # made when first needed
        self._waiting = 0
        self._digest_key = os.urandom(DIGEST_KEY_BYTES)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._known: dict[str, tuple[str, PasswordHash]] = {}
        self._nobody: PasswordHash | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def use(self, customers: Mapping[str, Customer]) -> None:
        """Take the credentials of a configuration; what was right before is looked at again."""
        self._known = {
            each.user: (customer.name, each.password)
            for customer in customers.values()
            for each in customer.credentials
        }
        self._remembered.clear()
        dearest = max((hashed for _, hashed in self._known.values()), key=lambda h: h.cost, default=None)
        self._nobody = dearest

    def customer_of(self, user: str) -> str:
        """Return whose credentials those are, "" for nobody's."""
        found = self._known.get(user)
        return found[0] if found is not None else ""

    def check(self, credentials: Credentials, listener: str, peer: str, told: Told) -> None:
        """Say whether those are right: `told` is called once, perhaps before this returns."""
        user = credentials.user
        is_known = self._digest(credentials) in self._remembered
        is_busy = not is_known and self._waiting >= MAX_WAITING  # then nothing is looked at, nor counted

        def decided(limit: str) -> None:
            if not is_known and not is_busy:
                self._waiting -= 1
            if limit == UNKNOWN or (is_busy and not limit):
                self._count(listener, "busy")
                log.warning("authentication put off", listener=listener, peer=peer, user=user)
                told(BUSY if is_busy else UNCOUNTED, "")
            elif limit:
                self._count(listener, "limited")
                log.warning("authentication refused", listener=listener, peer=peer, user=user, limit=limit)
                told(TOO_MANY_FOR_ADDRESS if limit == "address" else TOO_MANY_FOR_USER, "")
            elif is_known:
                self._count(listener, "accepted")
                told(ACCEPTED, user)
            else:
                self._begin(credentials, listener, peer, told)

        if not is_known and not is_busy:
            self._waiting += 1  # while the others are asked, too
        now = asyncio.get_running_loop().time()
        self._tries.begin(peer, user, now, decided, is_known=is_known or is_busy)

    def _begin(self, credentials: Credentials, listener: str, peer: str, told: Told) -> None:
        self._waiting += 1
        look = self._look(credentials, listener, peer, told)
        task = asyncio.get_running_loop().create_task(look)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End what is being computed."""
        for task in [*self._tasks]:
            task.cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    async def _look(self, credentials: Credentials, listener: str, peer: str, told: Told) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            is_right = await self._is_right(credentials)
        finally:
            self._waiting -= 1
        if is_right:
            self._tries.succeed(peer, credentials.user, loop.time())
            self._count(listener, "accepted")
            told(ACCEPTED, credentials.user)
            return
        self._count(listener, "failed")
        log.warning("authentication failed", listener=listener, peer=peer, user=credentials.user)
        await asyncio.sleep(max(0.0, began + FAILURE_S - loop.time()))
        told(WRONG, "")

    async def _is_right(self, credentials: Credentials) -> bool:
        """Compare in the thread; what a reload has changed meanwhile counts."""
        known = self._known.get(credentials.user)
        hashed = known[1] if known is not None else self._dummy()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "passwords")
        loop = asyncio.get_running_loop()
        is_equal = await loop.run_in_executor(self._executor, self._match, hashed, credentials.password)
        if not is_equal or known is None or self._known.get(credentials.user) != known:
            return False
        self._remembered[self._digest(credentials)] = None
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return True

    def _dummy(self) -> PasswordHash:
        """Return what stands for a user that there is not: as dear as the dearest, and nobody's password."""
        if self._nobody is None:
            self._nobody = PasswordHash(
                DEFAULT_LOG2_N, DEFAULT_R, DEFAULT_P, bytes(SALT_BYTES), bytes(KEY_BYTES)
            )
        return self._nobody

    def _digest(self, credentials: Credentials) -> bytes:
        name = credentials.user.encode()
        message = len(name).to_bytes(2, "big") + name + credentials.password
        return hmac.digest(self._digest_key, message, hashlib.sha256)

    def _count(self, listener: str, result: str) -> None:
        self._counters.counter("mailrail_authentications_total", listener=listener, result=result)[0] += 1
