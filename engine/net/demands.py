"""Domain to site with what the domain asks of TLS: the resolver, MTA-STS and DANE as one.

With neither of the two configured it is the resolver and nothing else.

Owns: that a site is known only when the policy of the domain is, so that no mail overtakes it.
Never: judges a host (security.demand), connects.
Fails: as net.resolver.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from engine.core.errors import ResolveError
from engine.net.cache import LookupCache
from engine.net.own import NOBODY, OwnHosts
from engine.net.resolver import Resolver
from engine.net.site import Host, Site, with_demand
from engine.net.sts import NOTHING, StsFinder, StsState
from engine.net.tlsa import NO_TLSA, HostTlsa, TlsaFinder
from engine.security.dane import has_anchor
from engine.security.demand import Demand
from engine.settings.model import Route

_MAX_VARIED = 50_000  # domains; beyond, all are made again when asked for
# Hosts whose TLSA records are looked up ahead: no attempt goes further (delivery.attempt).
_MAX_HOSTS = 5
# For so long a domain may go on sharing sessions after a host of it got its first trust anchor.
_ANCHORS_TTL_S = 300.0


class DemandResolver:
    """Finds out where mail goes, and what its domain asks of TLS."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        sts: StsFinder | None = None,
        tlsa: TlsaFinder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolver = resolver
        self._sts = sts
        self._tlsa = tlsa
        self._varied: dict[str, tuple[Site, StsState, tuple[str, ...], Site]] = {}
        self._names = LookupCache[str, tuple[str, ...]](_MAX_VARIED, clock, self._find_names)
        self.port_of: Callable[[str, Site], int] = lambda *_: (
            25
        )  # as policy says of a domain; the shard knows

    @property
    def counts(self) -> dict[str, int]:
        """Questions that DNS answered, by result."""
        return self._resolver.counts

    @property
    def sts_counts(self) -> Mapping[str, int]:
        """Policies asked for over https, by result."""
        return self._sts.counts if self._sts is not None else {}

    @property
    def dane_counts(self) -> Mapping[str, int]:
        """TLSA records looked for, by result."""
        return self._tlsa.counts if self._tlsa is not None else {}

    async def open(self) -> None:
        """Make ready."""
        await self._resolver.open()

    def close(self) -> None:
        """Give up what is being looked up."""
        self._names.close()
        if self._sts is not None:
            self._sts.close()
        if self._tlsa is not None:
            self._tlsa.close()
        self._resolver.close()

    def use(self, routes: Mapping[str, Route], prohibited: Iterable[str], own: OwnHosts = NOBODY) -> None:
        """Take over a new configuration."""
        self._resolver.use(routes, prohibited, own)

    def forget_failure(self, domain: str) -> None:
        """Ask again for a domain that DNS did not answer for."""
        self._resolver.forget_failure(domain)

    def lookup(self, domain: str) -> Site | None:
        """Return the site of a domain where all is known of it, else None: `resolve` tells more. HOT."""
        site = self._resolver.lookup(domain)
        if site is None or site.is_route or site.hosts[0].address:
            return site  # no policy is published for a route, nor for an address literal
        state = NOTHING if self._sts is None else self._sts.find(domain)
        names = self._names.find(domain) if self._is_dane(site) else ()
        return None if state is None or names is None else self._vary(domain, site, state, names)

    async def resolve(self, domain: str) -> Site:
        """Return the site of a domain.

        Raises:
            ResolveTemporary, ResolvePermanent: there is none now, or never will be.
        """
        site = await self._resolver.resolve(domain)
        if site.is_route or site.hosts[0].address:
            return site
        state = await self._sts.fetch(domain) if self._sts is not None else NOTHING
        names = await self._names.fetch(domain) if self._is_dane(site) else ()
        return self._vary(domain, site, state, names)

    async def addresses(self, host: Host, family: str) -> list[str]:
        """Return the addresses of a host in the order to try them; raises as the resolver does."""
        return await self._resolver.addresses(host, family)

    def may_be_ours(self, port: int) -> bool:
        """Can a host be ours at this port that `resolve` took for another's?"""
        return self._resolver.may_be_ours(port)

    async def is_ours(self, hosts: Iterable[Host], port: int = 0) -> bool:
        """Is one of these hosts this installation, by name or by an address of either family?"""
        return await self._resolver.is_ours(hosts, port)

    async def texts(self, name: str) -> list[str]:
        """Return the TXT records of a name; raises ResolveTemporary."""
        return await self._resolver.texts(name)

    async def tlsa(self, host: Host, port: int) -> HostTlsa:
        """Return the TLSA records of a host; none with DANE off, or where a route or a literal names it.

        Raises:
            ResolveTemporary: not known now.
        """
        if self._tlsa is None or host.is_routed or host.address:
            return NO_TLSA
        return await self._tlsa.find(host.name, port)

    def sts_of(self, domain: str) -> StsState:
        """Return what is known of a domain's policy now."""
        state = self._sts.find(domain) if self._sts is not None else None
        if state is None and domain in self._varied:
            state = self._varied[domain][1]  # it is being asked for anew
        return state or NOTHING

    def _is_dane(self, site: Site) -> bool:
        return site.is_secure and self._tlsa is not None

    async def _find_names(self, domain: str) -> tuple[tuple[str, ...], float]:
        """Return the names that a certificate may have for the domain's sake (RFC 7672 section 3.2.2).

        They matter to trust anchors alone. Everywhere else there are none, so that domains share sessions.
        """
        site = await self._resolver.resolve(domain)
        port = self.port_of(domain, site)
        asked = [self.tlsa(host, host.port or port) for host in site.hosts[:_MAX_HOSTS]]
        for found in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(found, HostTlsa) and has_anchor(found.records):
                return (domain, *filter(None, [self._resolver.alias_of(domain)])), _ANCHORS_TTL_S
            if isinstance(found, BaseException) and not isinstance(found, ResolveError):
                raise found  # of a host whose records are not to be had the attempt says it
        return (), _ANCHORS_TTL_S

    def _vary(self, domain: str, site: Site, state: StsState, names: tuple[str, ...]) -> Site:
        is_dane = self._is_dane(site)
        if state.policy is None and not is_dane:
            return site
        known = self._varied.get(domain)
        if known is not None and known[0] is site and known[1] is state and known[2] is names:
            return known[3]
        if len(self._varied) >= _MAX_VARIED:
            self._varied.clear()
        varied = with_demand(site, Demand(is_dane, state.policy, names=names))
        self._varied[domain] = (site, state, names, varied)
        return varied
