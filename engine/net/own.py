"""Which hosts are this installation itself: mail that would be sent there goes round in circles.

A listener on all addresses (0.0.0.0, ::) makes whatever address the host has ours, at that port. Addresses
come and go, so they are not listed: the kernel is asked about each when it matters (4 us).

Owns: the test of a host by name and of an address; which hosts are left for us (RFC 5321 section 5.1).
Never: asks DNS, sends anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from engine.core.address import parse_ip
from engine.core.errors import ResolvePermanent
from engine.core.reply import Reply, make_reply
from engine.net.listen import is_on_this_host
from engine.net.site import Host
from engine.settings.model import Settings

Wildcard = tuple[int, int]  # IP version (4, 6) and port of a listener on all addresses


class OwnHosts:
    """Names and addresses of this installation."""

    def __init__(
        self,
        names: Iterable[str] = (),
        addresses: Iterable[str] = (),
        wildcards: Iterable[Wildcard] = (),
        is_here: Callable[[str], bool] = is_on_this_host,
    ) -> None:
        self._names = frozenset(names)
        self._addresses = frozenset(map(parse_ip, addresses))
        self._wildcards = frozenset(wildcards)
        self._is_here = is_here

    def __bool__(self) -> bool:
        return bool(self._names or self._addresses or self._wildcards)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OwnHosts):
            return NotImplemented
        return self._facts == other._facts

    def __hash__(self) -> int:
        return hash(self._facts)

    @property
    def _facts(self) -> tuple[object, ...]:
        return self._names, self._addresses, self._wildcards

    def is_named(self, name: str) -> bool:
        """Is this one of our host names?"""
        return name in self._names

    def listens_on_all(self, port: int) -> bool:
        """Do we listen on all addresses of the host at this port?"""
        return not self._wildcards.isdisjoint(((4, port), (6, port)))

    def has_any(self, addresses: Collection[str], port: int = 0) -> bool:
        """Is one ours, or, where we listen on all addresses, the host's at that port (0: not known)?"""
        return any(self._has(address, port) for address in addresses)

    def _has(self, address: str, port: int) -> bool:
        parsed = parse_ip(address)
        if parsed in self._addresses:
            return True
        return (parsed.version, port) in self._wildcards and self._is_here(str(parsed))

    def better_than_us(self, hosts: list[Host]) -> list[Host]:
        """Return the hosts that are preferred to us; all, where we are not among them.

        Source: RFC 5321 section 5.1: at our own name "all records of equal or lower preference" are dropped.
        """
        ours = [host.preference for host in hosts if self.is_named(host.name)]
        return [host for host in hosts if host.preference < min(ours)] if ours else hosts


NOBODY = OwnHosts()


def own_hosts(settings: Settings) -> OwnHosts:
    """Return the hosts that a configuration makes ours."""
    listeners = [listener for listener in settings.listeners if listener.address]
    vmtas = settings.vmtas.values()
    names = {settings.engine.hostname, *(each.hostname for each in vmtas)}
    names |= {listener.hostname for listener in listeners}
    addresses = {address for vmta in vmtas for address in vmta.addresses}
    wildcards = set()
    for listener in listeners:
        bound = parse_ip(listener.address)
        if not bound.is_unspecified:
            addresses.add(listener.address)
        else:
            wildcards.add((bound.version, listener.port))
    return OwnHosts(names, addresses, wildcards)


def loops_back(domain: str) -> ResolvePermanent:
    """Return the error for a domain whose best MX host is ourselves."""
    detail = "leads back to this host, which has no route for it"
    return ResolvePermanent(domain, detail, loop_reply(f"Mail for {domain} {detail}"))


def loop_reply(text: str) -> Reply:
    """Return the reply that stands for mail that would go round (RFC 3463 section 3.5: X.4.6)."""
    return make_reply(554, "5.4.6", text)
