"""Which domains go to named hosts instead of their MX.

The most specific pattern wins: the domain itself, then "*.example" with the longest suffix, then "*".
Hosts are tried in the order in which they are written.

Owns: the sites of `[routes]`.
Never: asks DNS (a route may name a host; whoever connects resolves it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from engine.net.site import Host, Site, make_site


class Routes:
    """The routes of one configuration; patterns and hops as `settings` has normalized them."""

    def __init__(self, hops_by_pattern: Mapping[str, Sequence[str]]) -> None:
        """Args: pattern ("*", "*.example", a domain) to "host:port", "[address]:port" and so on."""
        self._any: Site | None = None
        self._exact: dict[str, Site] = {}
        self._below: dict[str, Site] = {}  # "example" for "*.example"
        for pattern, hops in hops_by_pattern.items():
            site = make_site(map(_parse_hop, hops, range(len(hops))), is_route=True)
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
    name, _, port = hop.rpartition(":")
    name = name.strip("[]")
    return Host(name, preference, int(port), name if _is_address(name) else "", is_routed=True)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
