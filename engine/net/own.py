"""Which hosts are this installation itself: mail that would be sent there goes round in circles.

Owns: the test of a host by name and of an address; which hosts are left for us (RFC 5321 section 5.1).
Never: asks DNS.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_address

from engine.core.errors import ResolvePermanent
from engine.core.reply import make_reply
from engine.net.site import Host
from engine.settings.model import Settings


class OwnHosts:
    """Names and addresses of this installation."""

    def __init__(self, names: Iterable[str] = (), addresses: Iterable[str] = ()) -> None:
        self._names = frozenset(names)
        self._addresses = frozenset(map(ip_address, addresses))

    def __bool__(self) -> bool:
        return bool(self._names or self._addresses)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OwnHosts):
            return NotImplemented
        return (self._names, self._addresses) == (other._names, other._addresses)

    def __hash__(self) -> int:
        return hash((self._names, self._addresses))

    def is_named(self, name: str) -> bool:
        """Is this one of our host names?"""
        return name in self._names

    def has_any(self, addresses: Collection[str]) -> bool:
        """Is one of these addresses ours?"""
        return any(ip_address(address) in self._addresses for address in addresses)

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
    bound = {listener.address for listener in listeners if not ip_address(listener.address).is_unspecified}
    return OwnHosts(names, addresses | bound)


def loops_back(domain: str) -> ResolvePermanent:
    """Return the error for a domain whose best MX host is ourselves (RFC 3463 section 3.5: X.4.6)."""
    detail = "leads back to this host, which has no route for it"
    return ResolvePermanent(domain, detail, make_reply(554, "5.4.6", f"Mail for {domain} {detail}"))
