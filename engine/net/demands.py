"""Domain to site with what the domain asks of TLS: the resolver, MTA-STS and DANE as one.

With neither of the two configured it is the resolver and nothing else.

Owns: that a site is known only when the policy of the domain is, so that no mail overtakes it.
Never: judges a host (security.demand), connects.
Fails: as net.resolver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.net.own import NOBODY, OwnHosts
from engine.net.resolver import Resolver
from engine.net.site import Host, Site, with_demand
from engine.net.sts import NOTHING, StsFinder, StsState
from engine.net.tlsa import NO_TLSA, HostTlsa, TlsaFinder
from engine.security.demand import Demand
from engine.settings.model import Route

_MAX_VARIED = 50_000  # domains; beyond, all are made again when asked for


class DemandResolver:
    """Finds out where mail goes, and what its domain asks of TLS."""

    def __init__(
        self, resolver: Resolver, *, sts: StsFinder | None = None, tlsa: TlsaFinder | None = None
    ) -> None:
        self._resolver = resolver
        self._sts = sts
        self._tlsa = tlsa
        self._varied: dict[str, tuple[Site, StsState, Site]] = {}

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
        if self._sts is not None:
            self._sts.close()
        if self._tlsa is not None:
            self._tlsa.close()
        self._resolver.close()

    def use(self, routes: Mapping[str, Route], prohibited: Iterable[str], own: OwnHosts = NOBODY) -> None:
        """Take over a new configuration."""
        self._resolver.use(routes, prohibited, own)

    def lookup(self, domain: str) -> Site | None:
        """Return the site of a domain where all is known of it, else None: `resolve` tells more. HOT."""
        site = self._resolver.lookup(domain)
        if site is None or site.is_route or site.hosts[0].address:
            return site  # no policy is published for a route, nor for an address literal
        if self._sts is None:
            return self._vary(domain, site, NOTHING)
        state = self._sts.find(domain)
        return None if state is None else self._vary(domain, site, state)

    async def resolve(self, domain: str) -> Site:
        """Return the site of a domain.

        Raises:
            ResolveTemporary, ResolvePermanent: there is none now, or never will be.
        """
        site = await self._resolver.resolve(domain)
        if site.is_route or site.hosts[0].address:
            return site
        state = await self._sts.fetch(domain) if self._sts is not None else NOTHING
        return self._vary(domain, site, state)

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

    def _vary(self, domain: str, site: Site, state: StsState) -> Site:
        if state.policy is None and not (site.is_secure and self._tlsa is not None):
            return site
        known = self._varied.get(domain)
        if known is not None and known[0] is site and known[1] is state:
            return known[2]
        if len(self._varied) >= _MAX_VARIED:
            self._varied.clear()
        varied = with_demand(site, Demand(site.is_secure and self._tlsa is not None, state.policy))
        self._varied[domain] = (site, state, varied)
        return varied
