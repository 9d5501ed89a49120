"""Which addresses are never connected to, whatever DNS or a domain literal says.

Owns: the test of one address against `prohibited_networks`, IPv4 inside IPv6 included: ::ffff:127.0.0.1 is
    this host, and 64:ff9b::7f00:1 or 2002:7f00:1:: may be, where a gateway translates.
Never: knows about routes, which are exempt.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network

from engine.core.address import IPAddress, IPNetwork, parse_network

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1


class ProhibitedNetworks:
    """The networks of one configuration."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(map(_parse, networks))

    def covers(self, address: str) -> bool:
        """May this address not be connected to? What is no address may not either."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return True
        return any(form in network for form in _forms(parsed) for network in self._networks)


def _parse(network: str) -> IPNetwork:
    """Return a network; ::ffff:0:0/96 as it stands: it means the form, not all of IPv4."""
    parsed = parse_network(network)
    return ip_network(network) if not parsed.prefixlen else parsed


def _forms(address: IPAddress) -> list[IPAddress]:
    """Return the address and the IPv4 addresses inside it."""
    if isinstance(address, IPv4Address):
        return [address]
    embedded = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        embedded.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *filter(None, embedded)]
