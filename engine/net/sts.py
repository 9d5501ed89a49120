"""The MTA-STS policy in force for a domain: announced by DNS, fetched over https, kept for its max_age.

What protects is what was fetched once: a policy that is kept stays in force until it ends, whatever DNS or
the policy host say meanwhile, or whether they can be reached at all. Only a new policy replaces it.

Owns: when DNS and the policy host are asked, what is kept and for how long.
Never: speaks https (net.https), keeps octets on disk itself (load and save are given), judges a host.
Fails: never; a domain whose policy can't be had for the first time has none (RFC 8461 section 3.3), and
    `problem` says why.
Source: RFC 8461 sections 3, 5.1 and 10.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec

from engine.core.errors import ResolveTemporary
from engine.net.cache import LookupCache
from engine.net.dns import Answer
from engine.net.https import FetchFailed
from engine.net.resolver import DEFAULT_KEEPING, Keeping, Questions
from engine.security.sts import MAX_POLICY_BYTES, StsPolicy, parse_policy, parse_record
from engine.security.tally import STS_POLICY_INVALID
from engine.telemetry.log import Log

REFRESH_S = 86_400.0  # RFC 8461 section 3.3: "refresh frequency of once a day" before a policy ends
RETRY_S = 300.0  # section 3.3: "at least 5 minutes" between tries of a fetch that failed
WHILE_REFRESHING_S = 60.0
_MIN_RECHECK_S = 60.0  # of the TXT record: each look costs a question for every domain that mail goes to
_MAX_FAILED = 50_000

log = Log("sts")


class Problem(msgspec.Struct, frozen=True):
    """Why a domain that announces a policy has none here: a result type of RFC 8460, and words."""

    result: str
    detail: str


class StsState(msgspec.Struct, frozen=True):
    """What is known of a domain: the policy in force (of mode enforce or testing), or none."""

    policy: StsPolicy | None = None
    problem: Problem | None = None


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A policy as it is kept on disk. Instants are Unix UTC seconds."""

    id: str
    fetched_at: float
    policy: StsPolicy

    @property
    def ends_at(self) -> float:
        return self.fetched_at + self.policy.max_age_s

    @property
    def refresh_at(self) -> float:
        return self.fetched_at + min(REFRESH_S, self.policy.max_age_s / 2)


class Fetcher(Protocol):
    """What is needed of an https client."""

    async def get(self, url: str, *, media_type: str, max_bytes: int) -> bytes: ...


class Shelf(Protocol):
    """Where policies outlive the process; all shards have the same."""

    def load(self, domain: str) -> bytes | None: ...
    def save(self, domain: str, octets: bytes, ends_at: float) -> None: ...


NOTHING = StsState()

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


class StsFinder:
    """Finds, keeps and refreshes policies."""

    def __init__(
        self,
        dns: Questions,
        fetcher: Fetcher,
        shelf: Shelf,
        *,
        port: int = 443,
        keeping: Keeping = DEFAULT_KEEPING,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """`port`: of the policy hosts; only tests have another than 443."""
        self._dns = dns
        self._fetcher = fetcher
        self._shelf = shelf
        self._port = port
        self._keeping = keeping
        self._clock = clock
        self._unix = unix_clock
        self._states = LookupCache[str, StsState](keeping.size, clock, self._look_up)
        self._failed: dict[str, tuple[float, Problem]] = {}  # domain to: no fetch before then, and why
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self.counts: Counter[str] = Counter()  # fetches, by result

    def close(self) -> None:
        """Give up what is under way."""
        self._states.close()
        for task in self._refreshing.values():
            task.cancel()

    def find(self, domain: str) -> StsState | None:
        """Return what is known of a domain, None where it must be asked for. HOT."""
        return self._states.find(domain)

    async def fetch(self, domain: str) -> StsState:
        """Return the policy in force for a domain, asked for where it is not known."""
        return await self._states.fetch(domain)

    async def refreshed(self) -> None:
        """Wait for the refreshes under way."""
        await asyncio.gather(*self._refreshing.values())

    # -- finding ----------------------------------------------------------------------------------

    async def _look_up(self, domain: str) -> tuple[StsState, float]:
        kept = self._load(domain)
        try:
            answer = await self._dns.ask(f"_mta-sts.{domain}", "TXT")
        except ResolveTemporary as error:
            log.debug("record not to be had", domain=domain, reason=str(error))
            return _state_of(kept), _MIN_RECHECK_S
        policy_id = parse_record(text for _, text in answer.records)
        if policy_id is None:
            return _state_of(kept), self._recheck_s(answer, kept)
        if kept is None:
            return await self._first(domain, policy_id, answer)
        if policy_id != kept.id or self._unix() >= kept.refresh_at:
            self._refresh_soon(domain, policy_id)
            return _state_of(kept), min(WHILE_REFRESHING_S, max(kept.ends_at - self._unix(), 0.0))
        return _state_of(kept), self._recheck_s(answer, kept)

    async def _first(self, domain: str, policy_id: str, answer: Answer) -> tuple[StsState, float]:
        """Nothing is kept: mail waits for the fetch, or goes without a policy where that fails."""
        fetched = await self._fetch(domain, policy_id)
        if isinstance(fetched, Problem):
            return StsState(problem=fetched), min(RETRY_S, self._recheck_s(answer, None))
        return _state_of(fetched), self._recheck_s(answer, fetched)

    def _recheck_s(self, answer: Answer, kept: Kept | None) -> float:
        """Return for how long the record need not be looked at again."""
        ttl_s = answer.ttl_s if answer.records else self._keeping.negative_ttl_s
        recheck_s = min(max(ttl_s, _MIN_RECHECK_S), self._keeping.max_ttl_s)
        if kept is None:
            return recheck_s
        left = [at - self._unix() for at in (kept.refresh_at, kept.ends_at)]
        return max(0.0, min([recheck_s, *(each for each in left if each > 0)]))

    # -- fetching ---------------------------------------------------------------------------------

    def _refresh_soon(self, domain: str, policy_id: str) -> None:
        """Fetch anew while what is kept stays in force."""
        if domain in self._refreshing or self._failed.get(domain, (0.0,))[0] > self._clock():
            return
        task = asyncio.get_running_loop().create_task(self._refresh(domain, policy_id))
        self._refreshing[domain] = task
        task.add_done_callback(lambda _: self._refreshing.pop(domain, None))

    async def _refresh(self, domain: str, policy_id: str) -> None:
        fetched = await self._fetch(domain, policy_id)
        if isinstance(fetched, Kept):
            self._states.keep(domain, _state_of(fetched), _MIN_RECHECK_S)

    async def _fetch(self, domain: str, policy_id: str) -> Kept | Problem:
        """Return the policy of a domain, saved; or why there is none, which is remembered for a while."""
        failed = self._failed.get(domain)
        if failed is not None and failed[0] > self._clock():
            return failed[1]
        host = f"mta-sts.{domain}"
        authority = host if self._port == 443 else f"{host}:{self._port}"
        try:
            octets = await self._fetcher.get(
                f"https://{authority}/.well-known/mta-sts.txt",
                media_type="text/plain",
                max_bytes=MAX_POLICY_BYTES,
            )
            policy = parse_policy(octets)
        except FetchFailed as error:
            return self._note_failed(domain, Problem(error.result, str(error)[:200]))
        except ValueError as error:
            return self._note_failed(domain, Problem(STS_POLICY_INVALID, str(error)[:200]))
        self._failed.pop(domain, None)
        self.counts["fetched"] += 1
        kept = Kept(policy_id, self._unix(), policy)
        self._shelf.save(domain, _encode(kept), kept.ends_at)
        log.info("policy fetched", domain=domain, id=policy_id, mode=policy.mode, max_age=policy.max_age_s)
        return kept

    def _note_failed(self, domain: str, problem: Problem) -> Problem:
        self.counts[problem.result] += 1
        if len(self._failed) >= _MAX_FAILED:
            self._failed.clear()
        self._failed[domain] = (self._clock() + RETRY_S, problem)
        log.warning("no policy fetched", domain=domain, result=problem.result, reason=problem.detail)
        return problem

    def _load(self, domain: str) -> Kept | None:
        """Return what is kept of a domain, unless it has ended."""
        octets = self._shelf.load(domain)
        if octets is None:
            return None
        try:
            kept = _decode(octets)
        except msgspec.MsgspecError as error:
            log.error("kept policy unreadable", domain=domain, reason=str(error))
            return None
        return kept if kept.ends_at > self._unix() else None


def _state_of(kept: Kept | None) -> StsState:
    """Mode none withdraws a policy: it replaces what was kept, and asks for nothing (section 8.3)."""
    return StsState(kept.policy) if kept is not None and kept.policy.mode != "none" else NOTHING
