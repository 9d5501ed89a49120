"""What must agree between the sections of `mailrail.toml`: names, addresses, paths.

Fails: ConfigError at the line of the key that points nowhere, or that claims what another has.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterable, Sequence

from engine.core.document import Document, KeyPath
from engine.core.errors import ConfigError
from engine.core.fields import describe, pattern, suggest
from engine.settings.fields import UNIX_PATH_BYTES, split_host_and_port
from engine.settings.model import AUTH_PROTOCOLS, ListenerSettings, Route, Settings

SPOOL_DIRECTORIES = ("tmp", "new", "claimed", "failed")  # as inject.spool_directory makes them

# The longest socket that the engine makes below data_dir.
_LONGEST_SOCKET = "/run/shard-255.sock"


def check_agreement(document: Document, settings: Settings) -> None:
    """Complain about the first thing that does not agree."""
    _check_paths(document, settings)
    _check_pools(document, settings)
    _check_customers(document, settings)
    _check_reports(document, settings)
    _check_listeners(document, settings)
    _check_routes(document, settings)


def _check_paths(document: Document, settings: Settings) -> None:
    longest = settings.engine.data_dir + _LONGEST_SOCKET
    if len(longest.encode()) > UNIX_PATH_BYTES:
        room = UNIX_PATH_BYTES - len(_LONGEST_SOCKET)
        _fail(
            document,
            ("engine", "data_dir"),
            f"expected a path of at most {room} octets: sockets live below it",
        )
    if settings.engine.dns_min_ttl_s > settings.engine.dns_max_ttl_s:
        _fail(document, ("engine", "dns_min_ttl"), "expected no more than dns_max_ttl")


def _check_pools(document: Document, settings: Settings) -> None:
    for index, pool in enumerate(settings.pools.values()):
        for member in pool.members:
            _check_name(document, ("pool", index, "members", member), member, "vmta", settings.vmtas)


def _check_customers(document: Document, settings: Settings) -> None:
    for index, customer in enumerate(settings.customers.values()):
        _check_name(document, ("customer", index, "pool"), customer.pool, "pool", settings.pools)
        seen = set()
        for number, key in enumerate(customer.dkim):
            if (key.domain, key.selector) in seen:
                path = ("customer", index, "dkim", number, "selector")
                _fail(document, path, f"{key.domain} has a key of selector {key.selector!r} already")
            seen.add((key.domain, key.selector))
    _check_users(document, settings)


def _check_users(document: Document, settings: Settings) -> None:
    """A user is one customer's: that is how the customer is known."""
    owners: dict[str, str] = {}
    for index, customer in enumerate(settings.customers.values()):
        for number, credential in enumerate(customer.credentials):
            if credential.user in owners:
                path = ("customer", index, "credentials", number, "user")
                _fail(document, path, f"customer {owners[credential.user]} has a user of that name already")
            owners[credential.user] = customer.name


def _check_reports(document: Document, settings: Settings) -> None:
    """TLS reports are somebody's mail like any: of the customer who may send as their address."""
    sender = settings.engine.tls_report_from
    if sender and settings.sender_of(sender) is None:
        _fail(document, ("engine", "tls_report_from"), f"no customer has {sender!r} among its senders")


def _check_listeners(document: Document, settings: Settings) -> None:
    names: dict[str, int] = {}
    places: dict[str, int] = {}
    for index, listener in enumerate(settings.listeners):
        path: KeyPath = ("listener", index)
        _check_whose(document, path, listener)
        _check_protection(document, path, listener)
        if listener.customer:
            _check_name(document, (*path, "customer"), listener.customer, "customer", settings.customers)
        place = _place(listener)
        if place in places:
            key = "listen" if listener.listen else "path"
            _fail(document, (*path, key), f"{place} is taken by [[listener]] number {places[place] + 1}")
        if listener.name in names:
            _fail(document, (*path, "name"), f"there is a listener {listener.name!r} already")
        if listener.listen:
            _check_overlap(document, (*path, "listen"), place, places)
        if listener.protocol == "spool":
            _check_spool(document, (*path, "path"), listener.path, settings.engine.data_dir)
        places[place] = names[listener.name] = index
    _check_nesting(document, settings.listeners)
    _check_admin(document, settings, places)


def _check_routes(document: Document, settings: Settings) -> None:
    """Sessions to a site are shared by all its domains, so they are let in by one set of credentials."""
    known: dict[tuple[tuple[str, ...], str], tuple[str, Route]] = {}
    raw = document.table.get("routes", {})
    written = {key: settings.routes[key if key == "*" else pattern(key)] for key in raw}
    for key, route in written.items():
        if route.user and route.tls == "none" and not route.allow_plaintext_auth:
            _fail(document, ("routes", key, "tls"), "AUTH in clear needs allow_plaintext_auth = true")
        other, same = known.setdefault((route.hosts, route.user), (key, route))
        if same != route:
            detail = (
                f"the route of {other!r} has these hosts and this user too: expected the same in all else"
            )
            _fail(document, ("routes", key), detail)


def _check_whose(document: Document, path: KeyPath, listener: ListenerSettings) -> None:
    """Whose mail it is must be known, and from one source."""
    if listener.protocol in AUTH_PROTOCOLS:
        if listener.customer or listener.trusted:
            _fail(
                document,
                (*path, "customer" if listener.customer else "trusted"),
                f"has no meaning for protocol {listener.protocol}: credentials say whose mail it is",
            )
    elif bool(listener.customer) == listener.trusted:
        detail = "expected customer (whose mail that is) or trusted = true, and not both"
        raise ConfigError(document.origin(path), f"{describe(path)}: {detail}")


def _check_protection(document: Document, path: KeyPath, listener: ListenerSettings) -> None:
    """A listener must be usable: nobody could ever prove who they are, or no proxy be believed."""
    if listener.tls_key and not listener.tls_certificate:
        _fail(document, (*path, "tls_key"), "expected tls_certificate beside it")
    if (
        listener.protocol == "submission"
        and not listener.tls_certificate
        and not listener.allow_plaintext_auth
    ):
        detail = "submission needs tls_certificate, or allow_plaintext_auth = true: AUTH is for TLS only"
        raise ConfigError(document.origin(path), f"{describe(path)}: {detail}")
    if listener.proxy_protocol and not listener.proxy_networks:
        _fail(document, (*path, "proxy_protocol"), "expected proxy_networks beside it")
    if listener.proxy_networks and not listener.proxy_protocol:
        _fail(document, (*path, "proxy_networks"), "expected proxy_protocol = true beside it")


def _check_admin(document: Document, settings: Settings, places: dict[str, int]) -> None:
    admin = settings.admin
    host = f"[{admin.address}]" if ":" in admin.address else admin.address
    place = admin.path or f"{host}:{admin.port}"
    if place in places:
        _fail(document, ("admin", "listen"), f"{place} is taken by [[listener]] number {places[place] + 1}")
    if admin.address:
        _check_overlap(document, ("admin", "listen"), place, places)


def _check_overlap(document: Document, path: KeyPath, listen: str, places: dict[str, int]) -> None:
    """A wildcard takes a port of every address of its version: nobody else may listen there."""
    for place, index in places.items():
        if not place.startswith("/") and _overlaps(listen, place):
            _fail(document, path, f"{listen} overlaps {place} of [[listener]] number {index + 1}")


def _overlaps(one: str, other: str) -> bool:
    (host, port), (other_host, other_port) = split_host_and_port(one), split_host_and_port(other)
    first, second = ipaddress.ip_address(host), ipaddress.ip_address(other_host)
    is_wild = first.is_unspecified or second.is_unspecified
    return is_wild and port == other_port and first.version == second.version


def _check_spool(document: Document, path: KeyPath, directory: str, data_dir: str) -> None:
    """What is in a shard's directory is its own, and goes with it."""
    inside = posixpath.relpath(directory, data_dir).split("/")[0]
    if re.fullmatch(r"shard-\d+", inside):
        _fail(document, path, f"{data_dir}/{inside} holds the store of a shard: expected another directory")


def _check_nesting(document: Document, listeners: Sequence[ListenerSettings]) -> None:
    """What is in a spool's directories is mail to it: nobody else may have a place there."""
    spools = [
        (index, posixpath.normpath(listener.path))
        for index, listener in enumerate(listeners)
        if listener.protocol == "spool"
    ]
    for index, listener in enumerate(listeners):
        for spool, directory in spools:
            if not listener.path or index == spool:
                continue
            inside = posixpath.relpath(listener.path, directory).split("/")[0]
            if inside in SPOOL_DIRECTORIES or (inside == "." and index > spool):
                taken = posixpath.join(directory, inside) if inside != "." else directory
                detail = f"{taken} belongs to the spool of [[listener]] number {spool + 1}"
                _fail(document, ("listener", index, "path"), f"{detail}: expected another place")


def _place(listener: ListenerSettings) -> str:
    return listener.listen or listener.path


def _check_name(document: Document, path: KeyPath, name: str, kind: str, known: Iterable[str]) -> None:
    if name not in known:
        _fail(document, path, f"there is no {kind} {name!r}; {suggest(name, known)}")


def _fail(document: Document, path: KeyPath, detail: str) -> None:
    where = path[:-1]
    raise ConfigError(document.origin(path), f"{describe(where)}: key {path[-1]}: {detail}")
