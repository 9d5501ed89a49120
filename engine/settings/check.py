"""What `mailrail check` finds in a mailrail.toml that parses, but hardly says what was meant."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from engine.core.document import Document
from engine.core.finding import Finding
from engine.settings.model import AUTH_PROTOCOLS, Settings


def check_settings(file: str, text: str, settings: Settings) -> list[Finding]:
    """Return the findings about what `settings`, parsed from `text`, leaves unused or unreachable."""
    document = Document(file, text)
    return [
        *_unused_vmtas(document, settings),
        *_unused_pools(document, settings),
        *_mute(document, settings),
        *_open_admin(document, settings),
        *_unheard_credentials(document, settings),
    ]


def _unused_vmtas(document: Document, settings: Settings) -> Iterator[Finding]:
    used = {member for pool in settings.pools.values() for member in pool.members}
    for index, name in enumerate(settings.vmtas):
        if name not in used:
            yield Finding(
                "warning", document.origin(("vmta", index)), f"vmta {name!r} is in no pool: nothing uses it"
            )


def _unused_pools(document: Document, settings: Settings) -> Iterator[Finding]:
    used = {customer.pool for customer in settings.customers.values()}
    is_open = any(listener.trusted for listener in settings.listeners)
    for index, name in enumerate(settings.pools):
        if name not in used and not is_open:
            detail = f"pool {name!r} is no customer's, and no trusted listener could name it"
            yield Finding("warning", document.origin(("pool", index)), detail)


def _mute(document: Document, settings: Settings) -> Iterator[Finding]:
    """Customers who have no listener can't send."""
    if not settings.listeners:
        yield Finding(
            "warning", document.origin(("listener",)), "there is no [[listener]]: no mail can come in"
        )
        return
    heard = {listener.customer for listener in settings.listeners}
    if any(listener.protocol in AUTH_PROTOCOLS for listener in settings.listeners):
        heard |= {name for name, customer in settings.customers.items() if customer.credentials}
    is_open = any(listener.trusted for listener in settings.listeners)
    for index, name in enumerate(settings.customers):
        if name not in heard and not is_open:
            detail = f"customer {name!r} has no listener, and none is trusted to name it"
            yield Finding("warning", document.origin(("customer", index)), detail)


def _open_admin(document: Document, settings: Settings) -> Iterator[Finding]:
    """The API has no passwords: on the network anybody could steer the engine."""
    address = settings.admin.address
    if address and not ipaddress.ip_address(address).is_loopback:
        detail = (
            f"[admin]: key listen: {address} is no loopback address: whoever can connect may reload and drain"
        )
        yield Finding("warning", document.origin(("admin", "listen")), detail)


def _unheard_credentials(document: Document, settings: Settings) -> Iterator[Finding]:
    """Passwords that no listener asks for."""
    if any(listener.protocol in AUTH_PROTOCOLS for listener in settings.listeners):
        return
    for index, customer in enumerate(settings.customers.values()):
        if customer.credentials:
            detail = f"customer {customer.name!r} has credentials, and no listener asks for any"
            yield Finding("warning", document.origin(("customer", index, "credentials")), detail)
