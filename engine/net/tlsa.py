"""The TLSA records of a mail host, where DNSSEC vouches for them.

Owns: where they stand (the name behind the host's CNAMEs first, then its own; its own alone where they lead
    out of what is signed), the cache of them.
Never: compares them with a certificate (security.dane), decides whether they count for a domain.
Fails: ResolveTemporary: whether there are any is not known, and so the host can't be used (RFC 7672 section
    2.1.2: a bogus answer must not be read as none).
Source: RFC 7672 sections 2.2.2 and 2.2.3.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from engine.core.errors import ResolveTemporary
from engine.net.cache import LookupCache
from engine.net.dns import Answer
from engine.net.resolver import DEFAULT_KEEPING, Keeping, Questions
from engine.security.dane import TLSARecord, parse_tlsa

# RFC 7672 has no bound. A host that rolls keys of two algorithms over has 4 to 8; 4,000 are an attack on us.
MAX_RECORDS = 50
_TEMPORARY_TTL_S = 5.0  # as the resolver's


class HostTlsa(NamedTuple):
    """The records of a host; none where it has none, or DNSSEC does not cover them."""

    records: tuple[TLSARecord, ...] = ()
    base: str = ""  # the name that they stand below, which a certificate of usage 2 must bear


NO_TLSA = HostTlsa()


class TlsaFinder:
    """Finds and keeps the TLSA records of hosts."""

    def __init__(
        self,
        dns: Questions,
        keeping: Keeping = DEFAULT_KEEPING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dns = dns
        self._keeping = keeping
        self._known = LookupCache[tuple[str, int], HostTlsa | ResolveTemporary](
            keeping.size, clock, self._find
        )
        self.counts: Counter[str] = Counter()  # look-ups, by result

    def close(self) -> None:
        """Give up what is being looked up."""
        self._known.close()

    async def find(self, host: str, port: int) -> HostTlsa:
        """Return the records of a host's port.

        Raises:
            ResolveTemporary: not known now.
        """
        found = await self._known.fetch((host, port))
        if isinstance(found, ResolveTemporary):
            raise ResolveTemporary(found.name, found.detail)
        return found

    async def _find(self, key: tuple[str, int]) -> tuple[HostTlsa | ResolveTemporary, float]:
        try:
            return await self._look_up(*key)
        except ResolveTemporary as error:
            self.counts["failed"] += 1
            ttl_s = min(_TEMPORARY_TTL_S, self._keeping.negative_ttl_s)
            return ResolveTemporary(error.name, error.detail), ttl_s

    async def _look_up(self, host: str, port: int) -> tuple[HostTlsa, float]:
        addresses = await self._ask_addresses(host)
        names = dict.fromkeys([*(answer.canonical for answer in addresses if answer.canonical), host])
        if not addresses or not all(answer.is_secure for answer in addresses):
            # An alias that is signed itself may have records, wherever it leads.
            if len(names) == 1 or not (await self._dns.ask(host, "CNAME")).is_secure:
                self.counts["insecure" if addresses else "none"] += 1
                return NO_TLSA, self._keeping.negative_ttl_s
            names = {host: None}
        for base in names:
            answer = await self._dns.ask(f"_{port}._tcp.{base}", "TLSA")
            if answer.is_secure and answer.records:
                records = tuple(_parse(text) for _, text in answer.records[:MAX_RECORDS])
                self.counts["found"] += 1
                ttl_s = min(max(answer.ttl_s, self._keeping.min_ttl_s), self._keeping.max_ttl_s)
                return HostTlsa(records, base), ttl_s
        self.counts["none"] += 1
        return NO_TLSA, self._keeping.negative_ttl_s

    async def _ask_addresses(self, host: str) -> list[Answer]:
        """Return the answers that hold addresses; one family may fail where the other has some."""
        answers = await asyncio.gather(
            self._dns.ask(host, "A"), self._dns.ask(host, "AAAA"), return_exceptions=True
        )
        found = [answer for answer in answers if isinstance(answer, Answer) and answer.records]
        for answer in answers:
            if not found and isinstance(answer, BaseException):
                raise answer
        return found


def _parse(text: str) -> TLSARecord:
    """Return a record; what can't be read is one that can't be used, but is there (RFC 7672 section 2.2)."""
    try:
        return parse_tlsa(text)
    except ValueError:
        return TLSARecord(255, 255, 255, b"")
