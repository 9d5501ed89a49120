"""Domain to site, host to addresses: routes first, then DNS with a cache.

Owns: RFC 5321 section 5.1 (MX by preference, the domain's own address where it has no MX), null MX
    (RFC 7505), domain literals, prohibited networks; what is temporary and what permanent; the caches.
Never: connects, chooses among hosts, knows policy.
Fails: ResolveTemporary (ask again later), ResolvePermanent with the reply that bounces the message.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

from engine.core.address import literal_address, parse_domain
from engine.core.errors import ResolveError, ResolvePermanent, ResolveTemporary
from engine.core.reply import make_reply
from engine.net.cache import LookupCache
from engine.net.dns import Answer, DNSClient
from engine.net.own import NOBODY, OwnHosts, loops_back
from engine.net.prohibited import ProhibitedNetworks
from engine.net.routes import Routes
from engine.net.site import Host, Shuffle, Site, make_site
from engine.settings.model import Route

# A failure to answer is kept only as long as one storm of questions lasts; the retry schedule does the rest.
_TEMPORARY_TTL_S = 5.0
_NO_DNS_TTL_S = 86400.0  # of a site that DNS has no part in: routes and literals

_RECORD_TYPES = {
    "v4": ("A",),
    "v6": ("AAAA",),
    "prefer_v4": ("A", "AAAA"),
    "prefer_v6": ("AAAA", "A"),
}
_LOCALHOST = {"A": "127.0.0.1", "AAAA": "::1"}  # RFC 6761 section 6.3: not a question for DNS


class Questions(Protocol):
    """What the resolver needs of a DNS client."""

    async def ask(self, name: str, record_type: str) -> Answer: ...
    def close(self) -> None: ...


class Keeping(NamedTuple):
    """For how long answers are kept, in seconds, and how many of each kind."""

    min_ttl_s: float = 30.0
    max_ttl_s: float = 86400.0
    negative_ttl_s: float = 60.0
    size: int = 50_000


DEFAULT_KEEPING = Keeping()


class Resolver:
    """Finds out where mail goes. `lookup` answers from memory, `resolve` and `addresses` ask DNS."""

    def __init__(  # noqa: PLR0913 (what it is made of, given once)
        self,
        *,
        nameservers: Sequence[str] = (),
        port: int = 53,
        routes: Mapping[str, Route],
        prohibited: Iterable[str],
        own: OwnHosts = NOBODY,
        keeping: Keeping = DEFAULT_KEEPING,
        clock: Callable[[], float] = time.monotonic,
        shuffle: Shuffle = random.shuffle,
        dns: Questions | None = None,
    ) -> None:
        """Take the settings of [engine]; `clock`, `shuffle` and `dns` where a test has its own."""
        self._routes = Routes(routes)
        self._route_table = dict(routes)
        self._prohibited = ProhibitedNetworks(prohibited)
        self._own = own
        self._keeping = keeping
        self._negative_ttl_s = keeping.negative_ttl_s
        self._shuffle = shuffle
        self._dns = dns if dns is not None else DNSClient(nameservers, port)
        self._sites = LookupCache[str, Site | ResolveError](keeping.size, clock, self._find_site)
        self._addresses = LookupCache[tuple[str, str], tuple[str, ...] | ResolveError](
            keeping.size, clock, self._find_addresses
        )
        self._aliases: dict[str, str] = {}  # domains that are CNAMEs, where DNSSEC vouches for what of
        # Half the domains of a list share a few sites: one object each.
        self._known_sites: WeakValueDictionary[tuple[str, bool], Site] = WeakValueDictionary()

    @property
    def counts(self) -> dict[str, int]:
        """Questions that DNS answered, by result; none where the questions go elsewhere."""
        return getattr(self._dns, "counts", {})

    async def open(self) -> None:
        """Make ready; DNS is first asked when there is a question."""

    def close(self) -> None:
        """Give up what is being looked up."""
        self._sites.close()
        self._addresses.close()
        self._dns.close()

    def use(self, routes: Mapping[str, Route], prohibited: Iterable[str], own: OwnHosts = NOBODY) -> None:
        """Take over a new configuration; what DNS said stays."""
        self._prohibited = ProhibitedNetworks(prohibited)
        if own != self._own:
            self._own = own
            self._sites.forget(lambda *_: True)  # they were made without knowing who we are
        if dict(routes) == self._route_table:
            return
        self._route_table = dict(routes)
        self._routes = new = Routes(routes)
        self._sites.forget(
            lambda domain, site: (isinstance(site, Site) and site.is_route) or new.find(domain) is not None
        )

    def forget_failure(self, domain: str) -> None:
        """Ask again for a domain that DNS did not answer for, whatever is kept of that."""
        if isinstance(self._sites.find(domain), ResolveTemporary):
            self._sites.drop(domain)

    def lookup(self, domain: str) -> Site | None:
        """Return the site of a domain where it is known, else None: `resolve` tells more. HOT."""
        found = self._sites.find(domain)
        if found is None and self._route_table:
            found = self._routes.find(domain)  # needs no DNS, and so neither a wait nor a place in the cache
        return found if type(found) is Site else None

    async def resolve(self, domain: str) -> Site:
        """Return the site of a domain (A-labels, lower case) or of a domain literal.

        Raises:
            ResolveTemporary, ResolvePermanent: there is none now, or never will be.
        """
        found = await self._sites.fetch(domain)
        if isinstance(found, ResolveError):
            raise _fresh(found)
        return found

    async def addresses(self, host: Host, family: str) -> list[str]:
        """Return the addresses of a host in the order to try them.

        Args:
            family: "v4", "v6", "prefer_v4" or "prefer_v6"; addresses of one family are shuffled.

        Raises:
            ResolveTemporary: DNS did not answer, and no family gave an address.
            ResolvePermanent: the host has no address, or only prohibited ones; in the other family, too,
                unless it `is_narrowed`.
        """
        if host.address:
            found = [host.address] if _has_family(host.address, family) else []
        else:
            found = await self._ask_addresses(host, _RECORD_TYPES[family])
        if host.is_routed:
            allowed = found
        else:
            allowed = [address for address in found if not self._prohibited.covers(address)]
        if allowed:
            return allowed
        if found:
            detail = f"has no address that may be connected to ({', '.join(found[:3])})"
        else:
            detail = "has no address" if len(_RECORD_TYPES[family]) == 2 else f"has no IP{family} address"
        reply = make_reply(550, "5.4.4", f"Host {host.name} {detail}")
        raise ResolvePermanent(host.name, detail, reply, is_narrowed=await self._has_other(host, family))

    async def _has_other(self, host: Host, family: str) -> bool:
        """Return whether a host may have addresses that can be used in the family that was not asked for."""
        if len(_RECORD_TYPES[family]) == 2:
            return False
        other = "v4" if family == "v6" else "v6"
        try:
            if host.address:
                found = [host.address] if _has_family(host.address, other) else []
            else:
                found = await self._ask_addresses(host, _RECORD_TYPES[other])
        except ResolveError as error:
            return isinstance(error, ResolveTemporary)
        return any(host.is_routed or not self._prohibited.covers(address) for address in found)

    def may_be_ours(self, port: int) -> bool:
        """Can a host be ours at this port that `resolve`, which knows no port, took for another's?"""
        return self._own.listens_on_all(port)

    async def is_ours(self, hosts: Iterable[Host], port: int = 0) -> bool:
        """Is one of these hosts this installation, by name or by an address of either family?

        `port`: where one that names none would be connected to, where that is known.
        """
        if not self._own:
            return False
        asked = [host for host in hosts if not host.is_routed]
        if any(self._own.is_named(host.name) for host in asked):
            return True
        if any(self._own.has_any([host.address], host.port or port) for host in asked if host.address):
            return True
        named = [(host, kind) for host in asked if not host.address for kind in ("A", "AAAA")]
        answers = await asyncio.gather(*(self._addresses.fetch((host.name, kind)) for host, kind in named))
        return any(
            not isinstance(found, ResolveError) and self._own.has_any(found, host.port or port)
            for (host, _), found in zip(named, answers, strict=True)
        )

    def alias_of(self, domain: str) -> str:
        """Return the name that a resolved domain is an alias of, securely; "" where it is none."""
        return self._aliases.get(domain, "")

    async def texts(self, name: str) -> list[str]:
        """Return the TXT records of a name; none are kept.

        Raises:
            ResolveTemporary: DNS did not answer.
        """
        return [text for _, text in (await self._dns.ask(name, "TXT")).records]

    async def _ask_addresses(self, host: Host, record_types: Sequence[str]) -> list[str]:
        if host.is_routed and host.name == "localhost":
            return [_LOCALHOST[record_type] for record_type in record_types]
        answers = await asyncio.gather(
            *(self._addresses.fetch((host.name, record_type)) for record_type in record_types)
        )
        found: list[str] = []
        for answer in answers:
            if not isinstance(answer, ResolveError):
                same_family = list(answer)
                self._shuffle(same_family)
                found += same_family
        if not found:
            failures = [answer for answer in answers if isinstance(answer, ResolveError)]
            for answer in sorted(failures, key=lambda each: not isinstance(each, ResolveTemporary)):
                raise _fresh(answer)
        return found

    # -- what the caches make -------------------------------------------------------------------------

    async def _find_site(self, domain: str) -> tuple[Site | ResolveError, float]:
        site = self._routes.find(domain)
        if site is not None:
            return site, _NO_DNS_TTL_S
        address = literal_address(domain)
        if address:
            return self._literal_site(domain, address)
        try:
            answer = await self._dns.ask(domain, "MX")
            self._note_alias(domain, answer)
            if answer.is_missing:
                return _refused(domain, "5.1.2", "does not exist"), self._negative_ttl_s
            if answer.records:
                found = self._mx_site(domain, answer)
            else:
                found = await self._address_site(domain, is_secure=answer.is_secure)
            return await self._unless_ours(domain, *found)
        except ResolveTemporary as error:
            return _fresh(error), min(_TEMPORARY_TTL_S, self._negative_ttl_s)

    def _note_alias(self, domain: str, answer: Answer) -> None:
        self._aliases.pop(domain, None)
        if answer.is_secure and answer.canonical not in ("", domain):
            if len(self._aliases) >= self._keeping.size:
                del self._aliases[next(iter(self._aliases))]
            self._aliases[domain] = answer.canonical

    async def _unless_ours(
        self, domain: str, found: Site | ResolveError, ttl_s: float
    ) -> tuple[Site | ResolveError, float]:
        """The best hosts are looked at by address as well; the rest, when their turn comes (`is_ours`)."""
        if isinstance(found, Site) and await self.is_ours(
            host for host in found.hosts if not host.preference
        ):
            return loops_back(domain), ttl_s
        return found, ttl_s

    def _literal_site(self, domain: str, address: str) -> tuple[Site | ResolveError, float]:
        if self._own.has_any((address,)):
            return loops_back(domain), self._negative_ttl_s
        if self._prohibited.covers(address):
            return _refused(domain, "5.4.4", "is no address that may be connected to"), self._negative_ttl_s
        return make_site([Host(domain, address=address)]), _NO_DNS_TTL_S

    def _mx_site(self, domain: str, answer: Answer) -> tuple[Site | ResolveError, float]:
        hosts = [Host(name, preference) for preference, name in answer.records if _is_host(name)]
        for_us = self._own.better_than_us(hosts)
        if hosts and not for_us:
            return loops_back(domain), self._bounded(answer.ttl_s)
        hosts = for_us
        if hosts:
            site = make_site(hosts, is_secure=answer.is_secure)
            return self._shared(site), self._bounded(answer.ttl_s)
        if all(not name for _, name in answer.records):
            text = "does not accept mail (null MX)"
            return _refused(domain, "5.1.10", text, code=556), self._bounded(answer.ttl_s)
        return _refused(domain, "5.4.4", "has no MX host with a valid name"), self._bounded(answer.ttl_s)

    async def _address_site(self, domain: str, *, is_secure: bool) -> tuple[Site | ResolveError, float]:
        """Return the implicit MX (RFC 5321 section 5.1): the domain is its own host.

        `is_secure`: DNSSEC vouches that it has no MX.
        """
        answers = await asyncio.gather(
            self._dns.ask(domain, "A"), self._dns.ask(domain, "AAAA"), return_exceptions=True
        )
        ttls = []
        for record_type, answer in zip(("A", "AAAA"), answers, strict=True):
            if isinstance(answer, Answer) and answer.records:
                ttls.append(self._bounded(answer.ttl_s))
                self._addresses.keep((domain, record_type), _addresses_in(answer), ttls[-1])
        if ttls:
            return self._shared(make_site([Host(domain)], is_secure=is_secure)), min(ttls)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return _refused(domain, "5.1.2", "has neither MX nor address"), self._negative_ttl_s

    async def _find_addresses(self, key: tuple[str, str]) -> tuple[tuple[str, ...] | ResolveError, float]:
        try:
            answer = await self._dns.ask(*key)
        except ResolveTemporary as error:
            return _fresh(error), min(_TEMPORARY_TTL_S, self._negative_ttl_s)
        if answer.is_missing:
            detail = "does not exist"
            reply = make_reply(550, "5.4.4", f"Host {key[0]} {detail}")
            return ResolvePermanent(key[0], detail, reply), self._negative_ttl_s
        if not answer.records:
            return (), self._negative_ttl_s
        return _addresses_in(answer), self._bounded(answer.ttl_s)

    def _bounded(self, ttl_s: float) -> float:
        return min(max(ttl_s, self._keeping.min_ttl_s), self._keeping.max_ttl_s)

    def _shared(self, site: Site) -> Site:
        return self._known_sites.setdefault((site.name, site.is_secure), site)


def _refused(domain: str, enhanced: str, detail: str, code: int = 550) -> ResolvePermanent:
    return ResolvePermanent(domain, detail, make_reply(code, enhanced, f"Domain {domain} {detail}"))


def _fresh(error: ResolveError) -> ResolveError:
    """Return a copy to raise: a kept one would collect the tracebacks of all who raise it."""
    if isinstance(error, ResolvePermanent):
        return ResolvePermanent(error.name, error.detail, error.reply)
    return ResolveTemporary(error.name, error.detail)


def _is_host(name: str) -> bool:
    """Could this MX host be asked for? The root, blanks and octets that no name has are left out."""
    try:
        return not literal_address(parse_domain(name))
    except ValueError:
        return False


def _has_family(address: str, family: str) -> bool:
    return family.startswith("prefer") or (family == "v6") == (":" in address)


def _addresses_in(answer: Answer) -> tuple[str, ...]:
    return tuple(address for _, address in answer.records)
