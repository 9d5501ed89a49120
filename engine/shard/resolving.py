"""The resolver of a shard, with what recipient domains ask of TLS, as the settings say.

Owns: who asks which DNS: with DANE on everything comes from the validating resolver.
Never: asks anything itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from engine.delivery.paths import PathTable
from engine.net.demands import DemandResolver
from engine.net.dns import DNSClient
from engine.net.https import HttpsClient
from engine.net.own import own_hosts
from engine.net.resolver import Keeping, Questions, Resolver
from engine.net.site import Host, Site
from engine.net.sts import StsFinder
from engine.net.tlsa import TlsaFinder
from engine.settings.fields import split_host_and_port
from engine.settings.model import EngineSettings, Settings
from engine.store.shelf import Shelf

SHELF = "mta-sts"  # of data_dir


def make_resolver(settings: Settings) -> tuple[Shelf | None, DemandResolver]:
    """Return the resolver and, with MTA-STS on, where its policies are kept."""
    engine = settings.engine
    keeping = Keeping(
        engine.dns_min_ttl_s, engine.dns_max_ttl_s, engine.dns_negative_ttl_s, engine.dns_cache_size
    )
    dns = make_dns(engine)
    resolver = Resolver(
        routes=settings.routes,
        prohibited=engine.prohibited_networks,
        own=own_hosts(settings),
        keeping=keeping,
        dns=dns,
    )
    tlsa = TlsaFinder(dns, keeping) if engine.validating_resolver else None
    if not engine.mta_sts:
        return None, DemandResolver(resolver, tlsa=tlsa)
    shelf = Shelf(Path(engine.data_dir) / SHELF, time.time)
    fetcher = make_https(resolver, engine)
    sts = StsFinder(dns, fetcher, shelf, port=engine.mta_sts_port, keeping=keeping)
    return shelf, DemandResolver(resolver, sts=sts, tlsa=tlsa)


def make_dns(engine: EngineSettings) -> Questions:
    """Return a client of the DNS that mail is routed by."""
    if engine.validating_resolver:
        # Only here: dnspython takes 25 ms of every start to import.
        from engine.net.dnssec import ValidatingClient

        return ValidatingClient(*split_host_and_port(engine.validating_resolver))
    return DNSClient(engine.nameservers, engine.dns_port)


def make_https(resolver: Resolver | DemandResolver, engine: EngineSettings) -> HttpsClient:
    """Return a client of https servers whose addresses are those that mail may go to."""

    async def addresses_of(host: str) -> list[str]:
        return await resolver.addresses(Host(host), "prefer_v4")

    return HttpsClient(addresses_of, engine.tls_ca_file)


def port_of(paths: PathTable) -> Callable[[str, Site], int]:
    """Return what says on which port the hosts of a domain are met, as far as its destination decides."""

    def find(domain: str, site: Site) -> int:
        policies = paths.policies
        return policies.effective(policies.destination(domain, site.plain_name, site.host_names), "", "").port

    return find
