"""Where a domain's mail goes: its ordered MX set, or its route.

A site's name is canonical: two domains with the same hosts in the same order of preference have
the same site, whatever the preference numbers are. Hosts that share a preference are joined by
",", ranks by ";": "mx1.example,mx2.example;backup.example". A route's name is "route:" and its
hosts with their ports, and who logs in there: "route:smtp.example:587 as ann".

Owns: the shape and the name of sites and hosts, and the order in which hosts are tried.
Never: asks DNS, draws chance (`shuffle` comes in by argument).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from itertools import groupby
from typing import Any

import msgspec

from engine.security.demand import NO_DEMAND, Demand

# Where a domain lists more, the least preferred are left out: nobody reaches the 21st
# (Postfix tries 5 addresses, smtp_mx_address_limit), and a lie of 4,000 hosts stays small.
MAX_HOSTS = 20

Shuffle = Callable[[list[Any]], None]  # random.shuffle, or a test's own


class Host(msgspec.Struct, frozen=True, gc=False):
    """One host of a site.

    `address` is set where the host is an address literal, so that DNS is not asked.
    `port` is None where policy says the port. `is_routed`: a route names this host, so that it may
    lie in a prohibited network. `path` is that of a unix socket, where the host is one.
    """

    name: str
    preference: int = 0
    port: int | None = None
    address: str = ""
    is_routed: bool = False
    is_lmtp: bool = False
    path: str = ""

    def __str__(self) -> str:
        return f"lmtp:{self._place()}" if self.is_lmtp else self._place()

    def _place(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        name = f"[{self.name}]" if ":" in self.name and self.name[0] != "[" else self.name
        return name if self.port is None else f"{name}:{self.port}"


class Access(msgspec.Struct, frozen=True):
    """How a route is let in, and what it needs of TLS ("": policy decides)."""

    user: str = ""
    password: str = ""
    tls: str = ""
    allows_plaintext: bool = False

    def __repr__(self) -> str:  # whatever prints it never prints the password
        return f"Access({self.user!r}, tls={self.tls!r})"


NO_ACCESS = Access()


class Site(msgspec.Struct, frozen=True, weakref=True):
    """The hosts that take a domain's mail, most preferred first; equal preferences by name.

    Mail that asks something of TLS has a site of its own, whose name ends in what it asks: the queues and
    sessions of a site are nobody else's. Its destination, and so its limits, are those of `plain_name`.
    """

    name: str
    hosts: tuple[Host, ...]
    is_route: bool = False
    is_secure: bool = False  # DNSSEC vouches for the MX answer that it came from
    demand: Demand = NO_DEMAND
    access: Access = NO_ACCESS

    @property
    def plain_name(self) -> str:
        """The name without what is asked of TLS."""
        return self.name if self.demand == NO_DEMAND else self.name.rpartition(" +")[0]

    @property
    def host_names(self) -> tuple[str, ...]:
        """The names that provider patterns are matched against."""
        return tuple(host.name for host in self.hosts)


def with_demand(site: Site, demand: Demand) -> Site:
    """Return the site of mail that asks this of TLS; itself where that is what it is."""
    if demand == site.demand:
        return site
    key = demand.key
    name = f"{site.plain_name} +{key.replace(' ', '+')}" if key else site.plain_name
    return msgspec.structs.replace(site, name=name, demand=demand)


def with_word(site: Site, word: str) -> Site:
    """Return the site of mail that has a word of its own on TLS (security.demand)."""
    return with_demand(site, msgspec.structs.replace(site.demand, word=word)) if word else site


def make_site(
    hosts: Iterable[Host], *, is_route: bool = False, is_secure: bool = False, access: Access = NO_ACCESS
) -> Site:
    """Return the site of these hosts, with its canonical name.

    A host that is listed twice keeps its better preference. Preferences become ranks (0, 1, ...), so
    that sites which differ in numbers only are equal.
    """
    unique: dict[tuple[str, int | None, bool], Host] = {}
    for host in sorted(hosts, key=_by_preference):
        unique.setdefault((host.name, host.port, host.is_lmtp), host)
    kept = list(unique.values())[:MAX_HOSTS]
    assert kept, "a site has at least one host"
    ranks = [list(group) for _, group in groupby(kept, key=lambda host: host.preference)]
    ranked = tuple(
        msgspec.structs.replace(host, preference=rank) for rank, group in enumerate(ranks) for host in group
    )
    name = ";".join(",".join(str(host) for host in group) for group in ranks)
    if access.user:
        name += f" as {access.user}"
    name = "route:" + name if is_route else name
    return Site(name, ranked, is_route, is_secure=is_secure, access=access)


def order_hosts(site: Site, shuffle: Shuffle) -> list[Host]:
    """Return the hosts in the order to try them: by preference, equal ones shuffled.

    Source: RFC 5321 section 5.1, "MUST randomize them to spread the load".
    """
    if len(site.hosts) == 1:
        return list(site.hosts)
    ordered: list[Host] = []
    for _, group in groupby(site.hosts, key=lambda host: host.preference):
        equal = list(group)
        shuffle(equal)
        ordered += equal
    return ordered


def pick_family(address_family: str, sources: Sequence[str]) -> str:
    """Narrow a policy's `address_family` to the families in which a vmta has a source.

    Args:
        address_family: "v4", "v6", "prefer_v4" or "prefer_v6".
        sources: the vmta's source addresses; none means that the kernel chooses.

    Returns:
        The family to ask addresses for, "" where the vmta can't go there at all.
    """
    if not sources:
        return address_family
    has = {"v6" if ":" in source else "v4" for source in sources}
    if address_family in ("v4", "v6"):
        return address_family if address_family in has else ""
    return address_family if len(has) == 2 else has.pop()


def balance(addresses: Sequence[str], most: int) -> list[str]:
    """Return as many of a host's addresses as may be tried; where it has both families, some of each.

    Else a host with five IPv6 addresses would never be met by IPv4, when IPv6 leads nowhere.
    """
    if len(addresses) <= most or most < 2:
        return list(addresses[:most])
    is_v6 = ":" in addresses[0]
    first = [address for address in addresses if (":" in address) == is_v6]
    other = [address for address in addresses if (":" in address) != is_v6][: most // 2]
    return first[: most - len(other)] + other


def routed_host(name: str) -> Host:
    """Return a host that the configuration names, by name or address."""
    try:
        ip_address(name)
    except ValueError:
        return Host(name, is_routed=True)
    return Host(name, address=name, is_routed=True)


def _by_preference(host: Host) -> tuple[int, str, int]:
    return host.preference, host.name, host.port or 0
