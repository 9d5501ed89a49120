"""Which domains go to named hosts instead of their MX.

The most specific pattern wins: the domain itself, then "*.example" with the longest suffix, then "*".
Hosts are tried in the order in which they are written.

Owns: the sites of `[routes]`.
Never: asks DNS (a route may name a host; whoever connects resolves it).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.net.site import Access, Host, Site, make_site, routed_host
from engine.settings.model import Route


class Routes:
    """The routes of one configuration; patterns and hops as `settings` has normalized them."""

    def __init__(self, by_pattern: Mapping[str, Route]) -> None:
        """Args: pattern: "*", "*.example" or a domain."""
        self._any: Site | None = None
        self._exact: dict[str, Site] = {}
        self._below: dict[str, Site] = {}  # "example" for "*.example"
        for pattern, route in by_pattern.items():
            hosts = map(_parse_hop, route.hosts, range(len(route.hosts)))
            access = Access(route.user, route.password, route.tls, route.allow_plaintext_auth)
            site = make_site(hosts, is_route=True, access=access)
            if pattern == "*":
                self._any = site
            elif pattern.startswith("*."):
                self._below[pattern[2:]] = site
            else:
                self._exact[pattern] = site

    def find(self, domain: str) -> Site | None:
        """Return the site that a route gives to a domain, or None: DNS decides."""
        site = self._exact.get(domain)
        if site is not None:
            return site
        suffix = domain if self._below else ""
        while suffix:
            _, _, suffix = suffix.partition(".")
            site = self._below.get(suffix)
            if site is not None:
                return site
        return self._any


def _parse_hop(hop: str, preference: int) -> Host:
    is_lmtp = hop.startswith("lmtp:") and not hop[5:].isdigit()  # "lmtp:24" is a host of that name
    if is_lmtp:
        hop = hop[5:]
    if is_lmtp and hop.startswith("unix:"):
        return Host(hop, preference, is_routed=True, is_lmtp=True, path=hop[5:])
    name, _, port = hop.rpartition(":")
    name = name.strip("[]")
    host = routed_host(name)
    return msgspec.structs.replace(host, preference=preference, port=int(port), is_lmtp=is_lmtp)
