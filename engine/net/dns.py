"""One DNS question over aiodns, answered by a value.

Owns: the seam to aiodns and c-ares; how long we wait; that only records which belong to the question
    count (the name asked for, or the end of its CNAME chain).
Never: caches for long, knows about mail.
Fails: ResolveTemporary where there is no answer (time-out, SERVFAIL, REFUSED, garbage).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiodns import DNSResolver
from aiodns.error import DNSError
from pycares import (
    QUERY_TYPE_A,
    QUERY_TYPE_AAAA,
    QUERY_TYPE_CNAME,
    QUERY_TYPE_MX,
    QUERY_TYPE_TXT,
    TXTRecordData,
)
from pycares import errno as ares

from engine.core.errors import ResolveTemporary
from engine.net.lanes import Lanes

# c-ares shortens its first wait to a few times a server's usual latency (250 ms at least) and doubles it
# from try to try: five tries are 8 s of patience with a server that is fast otherwise.
_TIMEOUT_S = 2.0
_TRIES = 5
_DEADLINE_S = 20.0  # in all; resolvers themselves give up on a broken zone after about 10 s

_MAX_YOUNG = 128  # questions just asked; the socket's buffer holds that many answers
_MAX_OLD = 2048  # without an answer yet, 4 kB each; as many as delivery.resolving has domains
_MAX_CNAMES = 10  # in a chain; unbound's and BIND's own limits are 11 and 16

# c-ares keeps answers of its own, for up to an hour, without a bound on their number and with no way to
# turn that off through pycares. A fresh channel after so many questions bounds its memory to some 10 MB.
_QUESTIONS_PER_CHANNEL = 10_000

_TYPES = {"A": QUERY_TYPE_A, "AAAA": QUERY_TYPE_AAAA, "MX": QUERY_TYPE_MX, "TXT": QUERY_TYPE_TXT}
_MISSING = frozenset((ares.ARES_ENOTFOUND, ares.ARES_EBADNAME))


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What DNS says: records (none where the name has none of that type), or that the name is missing.

    A record is (preference, host) for MX, (0, address) for A and AAAA, (0, text) for TXT. `ttl_s` is that of
    the shortest-lived record on the way, 0 where there is none. `is_secure`: DNSSEC vouches for all of it,
    its absence included; `canonical` is the name at the end of the CNAME chain (both from net.dnssec only).
    """

    records: tuple[tuple[int, str], ...] = ()
    ttl_s: float = 0.0
    is_missing: bool = False
    is_secure: bool = False
    canonical: str = ""


class DNSClient:
    """Asks the nameservers that it was given, or those of /etc/resolv.conf."""

    def __init__(self, nameservers: Sequence[str] = (), port: int = 53) -> None:
        """Args: nameservers: addresses; none means those of /etc/resolv.conf. port: theirs."""
        self._servers = [
            f"[{server}]:{port}" if ":" in server else f"{server}:{port}" for server in nameservers
        ]
        self._port = port
        self._lanes = Lanes(_MAX_YOUNG, _MAX_OLD, _DEADLINE_S)
        self._asked = 0
        self._dns: DNSResolver | None = None
        self.counts = {"found": 0, "temporary": 0, "permanent": 0}

    async def ask(self, name: str, record_type: str) -> Answer:
        """Ask for records of one type: "MX", "A", "AAAA" or "TXT".

        Raises:
            ResolveTemporary: nobody answered, or not sensibly.
        """
        try:
            answer = await self._ask(name, record_type)
        except ResolveTemporary:
            self.counts["temporary"] += 1
            raise
        self.counts["found" if answer.records else "permanent"] += 1
        return answer

    async def _ask(self, name: str, record_type: str) -> Answer:
        async def query() -> Any:
            dns = self._channel()  # kept alive by this name until its answer is here
            return await dns.query_dns(name, record_type)

        try:
            result = await self._lanes.run(query)
        except TimeoutError as error:
            raise ResolveTemporary(name, f"{record_type}: {error}") from None
        except DNSError as error:
            return _translate(name, record_type, error)
        except UnicodeError:
            return Answer(is_missing=True)
        return _read_answer(name, _TYPES[record_type], result)

    def close(self) -> None:
        """Give up the questions under way: they raise ResolveTemporary."""
        if self._dns is not None:
            self._dns.cancel()
            self._dns = None

    def _channel(self) -> DNSResolver:
        if self._dns is None or self._asked >= _QUESTIONS_PER_CHANNEL:
            # The old channel lives until its last question is answered: `ask` holds it.
            self._dns = DNSResolver(
                self._servers or None,
                asyncio.get_running_loop(),
                timeout=_TIMEOUT_S,
                tries=_TRIES,
                udp_port=self._port,
                tcp_port=self._port,
            )
            self._asked = 0
        self._asked += 1
        return self._dns


def _translate(name: str, record_type: str, error: DNSError) -> Answer:
    code, text = error.args[0], error.args[-1]
    if code == ares.ARES_ENODATA:
        return Answer()
    if code in _MISSING:
        return Answer(is_missing=True)
    raise ResolveTemporary(name, f"{record_type}: {text}") from None


def _read_answer(name: str, record_type: int, result: Any) -> Answer:
    """Return the records at the end of the CNAME chain; what else the server adds is nobody's word."""
    aliases = {_clean(each.name): each for each in result.answer if each.type == QUERY_TYPE_CNAME}
    owner, ttls = _clean(name), []
    for _ in range(_MAX_CNAMES):
        alias = aliases.get(owner)
        if alias is None:
            break
        ttls.append(alias.ttl)
        owner = _clean(alias.data.cname)
    found = [each for each in result.answer if each.type == record_type and _clean(each.name) == owner]
    ttls += [each.ttl for each in found]
    return Answer(tuple(_read_record(each.data) for each in found), float(min(ttls, default=0)))


def _read_record(data: Any) -> tuple[int, str]:
    if isinstance(data, TXTRecordData):
        return 0, data.data.decode("utf-8", "replace")
    exchange = getattr(data, "exchange", None)
    return (0, data.addr) if exchange is None else (data.priority, _clean(exchange))


def _clean(name: str) -> str:
    return name.rstrip(".").lower()
