"""Which keys each section of `mailrail.toml` has, and what each may hold.

The defaults stand in `model`; here are the ranges, each with what it protects.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import unquote

from engine.core import fields
from engine.core.fields import Field, ItemError
from engine.settings.model import AUTH_PROTOCOLS, SMTP_PROTOCOLS, EgressProxy
from engine.settings.password import parse_password

MAX_SHARDS = 256  # a message id has one octet for its shard
UNIX_PATH_BYTES = 107  # sun_path of unix(7) is 108 octets and ends in a zero

MAX_HOPS = 100  # of one route: as many as a domain may sensibly have MX hosts
LMTP_PORT = 24  # "any private mail system", where LMTP servers are usually put
MAX_CREDENTIAL_BYTES = (
    255  # RFC 1929 section 2 has one octet for each length; RFC 4616 section 2 the same bound
)

_DAY_S = 86400.0
_PROXY_FORMS = '"haproxy:host:port", "haproxy-v1:host:port" or "socks5://user:password@host:port"'
_BROADCAST = ipaddress.ip_address("255.255.255.255")


def sender_pattern(value: Any) -> str:
    """ "*", "*@domain", "*@*.domain" or one address; domain in lower case."""
    try:
        pattern = fields.text(value)
        local, at, domain = pattern.rpartition("@")
        if pattern == "*":
            return pattern
        if at and local and not re.search(r"[\s<>]", local):
            return f"{local}@{fields.pattern(domain)}"
    except ValueError:
        pass
    raise ValueError('expected "*@acme.example", "*@*.acme.example", one address, or "*" for any sender')


def mailbox(value: Any) -> str:
    """One plain address: local part, "@", domain."""
    if isinstance(value, str) and re.fullmatch(r"[^\s@<>\"]{1,64}@[^\s@<>]+", value):
        local, _, domain = value.rpartition("@")
        return f"{local}@{fields.hostname(domain)}"
    raise ValueError('expected an address such as "postmaster@example.net"')


def user(value: Any) -> str:
    """A name as AUTH says it: 1 to 255 octets (RFC 4616) without control characters."""
    if isinstance(value, str) and value.isprintable() and 1 <= len(value.encode()) <= 255:
        return value
    raise ValueError("expected 1 to 255 printable characters")


def host_and_port(value: Any, default_port: int = 0) -> str:
    """ "host:port" or "[v6]:port", canonical; without a port only where there is a default."""
    found = (
        re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(?::(\d{1,5}))?", value)
        if isinstance(value, str)
        else None
    )
    port = int(found[2] or default_port) if found else 0
    if found is None or not 1 <= port <= 65535:
        raise ValueError('expected "host:port", or "[address]:port" for IPv6')
    return f"{_host(found[1])}:{port}"


def split_host_and_port(text: str) -> tuple[str, int]:
    """Return the host (no brackets) and port of what `host_and_port` returned."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _host(host: str) -> str:
    if host.startswith("["):
        return f"[{fields.address(host[1:-1])}]"
    return fields.address(host) if re.fullmatch(r"[\d.]+", host) else fields.hostname(host)


def listen_address(value: Any) -> str:
    """An address of this host and a port; names are not looked up."""
    listen = host_and_port(value)
    host, _ = split_host_and_port(listen)
    try:
        fields.address(host)
    except ValueError:
        raise ValueError('expected an address and a port such as "127.0.0.1:2525" or "[::]:25"') from None
    return listen


def resolver_address(value: Any) -> str:
    """An address and a port, 53 where there is none."""
    resolver = host_and_port(value, default_port=53)
    try:
        fields.address(split_host_and_port(resolver)[0])
    except ValueError:
        raise ValueError('expected an address such as "127.0.0.1" or "[::1]:5353"') from None
    return resolver


def admin_listen(value: Any) -> str:
    """An address and port, or the absolute path of a unix socket."""
    if isinstance(value, str) and value.startswith("/"):
        return socket_path(value)
    try:
        return listen_address(value)
    except ValueError:
        raise ValueError(
            'expected an address and a port such as "127.0.0.1:8025", or an absolute path'
        ) from None


def socket_path(value: Any) -> str:
    path = fields.absolute_path(value)
    if len(path.encode()) > UNIX_PATH_BYTES:
        raise ValueError(
            f"expected a path of at most {UNIX_PATH_BYTES} octets, which is all a unix socket may have"
        )
    return path


def source_address(value: Any) -> str:
    """An address that a socket can be bound to and a peer can answer."""
    source = ipaddress.ip_address(fields.address(value))
    if source.is_unspecified or source.is_multicast or source == _BROADCAST:
        raise ValueError("expected an address of one host: not unspecified, multicast or broadcast")
    return str(source)


def route_hop(value: Any) -> str:
    """ "host:port", "lmtp:host:port" or "lmtp:unix:/path", canonical."""
    if not isinstance(value, str) or not value.startswith("lmtp:") or value[5:].isdigit():
        return host_and_port(value, default_port=25)
    if value.startswith("lmtp:unix:"):
        return f"lmtp:unix:{socket_path(value.removeprefix('lmtp:unix:'))}"
    try:
        hop = host_and_port(value.removeprefix("lmtp:"), default_port=LMTP_PORT)
    except ValueError:
        raise ValueError('expected "lmtp:host:port" or "lmtp:unix:/path/of/socket"') from None
    if hop.endswith(":25"):
        raise ValueError("expected another port: LMTP must not be used on port 25 (RFC 2033)")
    return f"lmtp:{hop}"


def credential(value: Any) -> str:
    """A user name or password: SASL PLAIN has a NUL between them (RFC 4616), and lines end where they do."""
    if isinstance(value, str) and value.isprintable() and 0 < len(value.encode()) <= MAX_CREDENTIAL_BYTES:
        return value
    raise ValueError(f"expected printable text of 1 to {MAX_CREDENTIAL_BYTES} octets")


def proxy(value: Any) -> EgressProxy:
    """ "haproxy:host:port", "haproxy-v1:host:port", "socks5://host:port" or "socks5://user:password@host:port"."""
    found = re.fullmatch(r"(haproxy|haproxy-v1|socks5):(.+)", value) if isinstance(value, str) else None
    kind, rest = (found[1], found[2]) if found else ("", "")
    user = password = ""
    if kind == "socks5":
        rest = rest.removeprefix("//")
        login, at, rest = rest.rpartition("@")
        user, _, password = (unquote(part) for part in login.partition(":"))
        if at and not (user and password and f"{user}{password}".isascii()):
            raise ValueError(f"expected user and password, in ASCII: {_PROXY_FORMS}")
    try:
        host, port = split_host_and_port(host_and_port(rest))
        if user:
            credential(user), credential(password)
    except ValueError:
        raise ValueError(f"expected {_PROXY_FORMS}") from None
    return EgressProxy(kind=kind, host=host, port=port, user=user, password=password)


def mode(value: Any) -> int:
    """Permissions in octal, as chmod has them."""
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('expected permissions in octal such as "0660"')
    return int(value, 8)


def weights(value: Any) -> dict[str, int]:
    """A table of vmta names and weights."""
    if not isinstance(value, dict):
        raise ValueError("expected a table of vmtas and weights such as { acme-1 = 1 }")
    if not value:
        raise ValueError("expected at least one member")
    weight = fields.whole(1, 1_000_000)
    parsed = {}
    for name, raw in value.items():
        try:
            parsed[name] = weight(raw)
        except ValueError as error:
            raise ItemError(name, raw, f"weight of {name!r}: {error}") from None
    return parsed


ENGINE = {
    "hostname": Field("hostname", fields.hostname, required=True),
    "data_dir": Field("data_dir", fields.absolute_path, required=True),
    "shards": Field("shards", fields.whole(0, MAX_SHARDS)),
    "policies": Field("policies", fields.many(fields.path, 0, 1000)),
    "durability": Field("durability", fields.choice("sync", "async")),
    "postmaster": Field("postmaster", mailbox),
    "log_level": Field("log_level", fields.choice("debug", "info", "warning", "error")),
    "log_format": Field("log_format", fields.choice("logfmt", "json")),
    "grace": Field("grace_s", fields.duration(0, 3600)),
    "max_connections": Field("max_connections", fields.whole(0, 1_000_000)),
    "max_connections_per_shard": Field("max_connections_per_shard", fields.whole(0, 1_000_000)),
    "prohibited_networks": Field("prohibited_networks", fields.many(fields.network, 0, 1000)),
    "tls_ca_file": Field("tls_ca_file", fields.absolute_path),
    "validating_resolver": Field("validating_resolver", resolver_address),
    "mta_sts": Field("mta_sts", fields.boolean),
    "mta_sts_port": Field("mta_sts_port", fields.whole(1, 65535)),
    "tls_report_from": Field("tls_report_from", mailbox),
    "nameservers": Field("nameservers", fields.many(fields.address, 1, 16)),
    "dns_port": Field("dns_port", fields.whole(1, 65535)),
    "dns_min_ttl": Field("dns_min_ttl_s", fields.duration(0, _DAY_S)),
    "dns_max_ttl": Field("dns_max_ttl_s", fields.duration(1, 7 * _DAY_S)),
    "dns_negative_ttl": Field("dns_negative_ttl_s", fields.duration(0, _DAY_S)),
    "dns_cache_size": Field("dns_cache_size", fields.whole(100, 10_000_000)),
    "map_size": Field("map_size_bytes", fields.size(16 << 20, 16 << 40)),
    "min_free_disk": Field("min_free_disk_bytes", fields.size(0, 1 << 50)),
    "window_messages": Field("window_messages", fields.whole(100, 1_000_000)),
    "window_size": Field("window_size_bytes", fields.size(10**6, 1 << 40)),
    "max_loop_lag": Field("max_loop_lag_s", fields.duration(0, 60)),
    "max_staged": Field("max_staged_bytes", fields.size(0, 128 << 20)),  # the store itself refuses more
    "max_inbound_connections": Field("max_inbound_connections", fields.whole(0, 1_000_000)),
    "event_log_dir": Field("event_log_dir", fields.absolute_path),
    "event_log_size": Field("event_log_size_bytes", fields.size(10**6, 1 << 40)),
    "event_log_age": Field("event_log_age_s", fields.duration(60, 366 * _DAY_S)),
}

LISTENER = {
    "name": Field("name", fields.name),
    "protocol": Field("protocol", fields.choice(*SMTP_PROTOCOLS, "socket", "spool"), required=True),
    "listen": Field("listen", listen_address),
    "path": Field("path", fields.absolute_path),
    "allow": Field("allow", fields.many(fields.network, 0, 10_000)),
    "customer": Field("customer", fields.name),
    "trusted": Field("trusted", fields.boolean),
    "hostname": Field("hostname", fields.hostname),
    "max_message_size": Field("max_message_size_bytes", fields.size(1000, 1 << 30)),
    "max_recipients": Field("max_recipients", fields.whole(1, 50_000)),
    "max_connections": Field("max_connections", fields.whole(1, 100_000)),
    "max_hold": Field("max_hold_s", fields.duration(0, 366 * _DAY_S)),
    "mode": Field("mode", mode),
    "tls_certificate": Field("tls_certificate", fields.absolute_path),
    "tls_key": Field("tls_key", fields.absolute_path),
    "tls_min_version": Field("tls_min_version", fields.choice("1.2", "1.3")),
    "allow_plaintext_auth": Field("allow_plaintext_auth", fields.boolean),
    "proxy_protocol": Field("proxy_protocol", fields.boolean),
    "proxy_networks": Field("proxy_networks", fields.many(fields.network, 1, 1000)),
    "xclient_networks": Field("xclient_networks", fields.many(fields.network, 1, 1000)),
}

# What a listener of each protocol needs and may have, beyond what all have.
LISTENER_NEEDS = {
    **dict.fromkeys(SMTP_PROTOCOLS, ("listen",)),
    "submissions": ("listen", "tls_certificate"),
    "socket": ("path",),
    "spool": ("path",),
}
LISTENER_ONLY = {
    "listen": SMTP_PROTOCOLS,
    "path": ("socket", "spool"),
    "allow": SMTP_PROTOCOLS,
    "hostname": SMTP_PROTOCOLS,
    "max_connections": (*SMTP_PROTOCOLS, "socket"),
    "mode": ("socket",),
    "tls_certificate": SMTP_PROTOCOLS,
    "tls_key": SMTP_PROTOCOLS,
    "tls_min_version": SMTP_PROTOCOLS,
    "allow_plaintext_auth": AUTH_PROTOCOLS,
    "proxy_protocol": SMTP_PROTOCOLS,
    "proxy_networks": SMTP_PROTOCOLS,
    "xclient_networks": SMTP_PROTOCOLS,
}
# Who may connect where everybody proves who they are.
ANYWHERE = ("0.0.0.0/0", "::/0")

ADMIN = {"listen": Field("listen", admin_listen)}

VMTA = {
    "name": Field("name", fields.name, required=True),
    "source": Field("source", fields.one_or_many(source_address, 2), required=True),
    "hostname": Field("hostname", fields.hostname, required=True),
    "max_connections": Field("max_connections", fields.whole(0, 1_000_000)),
    "proxy": Field("proxy", proxy, is_secret=True),
}

POOL = {
    "name": Field("name", fields.name, required=True),
    "members": Field("members", weights, required=True),
}

CUSTOMER = {
    "name": Field("name", fields.name, required=True),
    "pool": Field("pool", fields.name, required=True),
    "senders": Field("senders", fields.many(sender_pattern, 1, 100_000), required=True),
    "share": Field("share", fields.whole(1, 1000)),
    "encode_8bit": Field("encode_8bit", fields.choice("always", "never")),
}

DKIM = {
    "domain": Field("domain", fields.hostname, required=True),
    "selector": Field("selector", fields.hostname, required=True),
    "key": Field("key", fields.absolute_path, required=True),
}

# A value of [routes] that is a table; one that is not is `hosts` alone.
ROUTE = {
    "hosts": Field("hosts", fields.one_or_many(route_hop, MAX_HOPS), required=True),
    "user": Field("user", credential),
    "password": Field("password", credential, is_secret=True),
    "password_file": Field("password_file", fields.absolute_path),
    "tls": Field("tls", fields.choice("none", "opportunistic", "required", "verify")),
    "allow_plaintext_auth": Field("allow_plaintext_auth", fields.boolean),
}

CREDENTIAL = {
    "user": Field("user", user, required=True),
    "password": Field("password", parse_password, required=True),
}
MAX_CREDENTIALS = 1000  # of one customer
