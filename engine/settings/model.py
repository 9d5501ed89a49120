"""`mailrail.toml`, parsed: what this installation is and whose mail it carries.

Owns: the names, units and defaults of every setting of the engine.
Never: reads a file; policies (limits towards destinations) have their own package.
"""

from __future__ import annotations

import msgspec

from engine.core.address import matches_sender
from engine.settings.password import PasswordHash

SMTP_PROTOCOLS = ("smtp", "submission", "submissions")
AUTH_PROTOCOLS = ("submission", "submissions")  # the customer is whoever proves to be one

# Never connected to unless a route names them: this host, networks that do not leave the
# site, and addresses that name no single host. IANA special-purpose registries (RFC 6890), 2026-01.
PROHIBITED_NETWORKS = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[engine]: one installation. 0 for a cap means that there is none."""

    hostname: str
    data_dir: str
    shards: int = 0  # 0: one per core
    policies: tuple[str, ...] = ()  # directories and files, over the ones that ship
    durability: str = "sync"  # sync | async
    postmaster: str = ""  # filled in: postmaster@hostname
    log_level: str = "info"  # debug | info | warning | error
    log_format: str = "logfmt"  # logfmt | json
    grace_s: float = 30.0

    max_connections: int = 0  # outbound sessions, all shards
    max_connections_per_shard: int = 0
    prohibited_networks: tuple[str, ...] = PROHIBITED_NETWORKS

    tls_ca_file: str = ""  # roots that `tls = "verify"` trusts; none: the system's

    validating_resolver: str = ""  # "address:port", trusted for the AD bit; DANE is off without one
    mta_sts: bool = False
    mta_sts_port: int = 443  # of the hosts of policies; another one is for tests
    tls_report_from: str = ""  # whose address TLS reports are from; none are made without one

    nameservers: tuple[str, ...] = ()  # addresses; none: those of /etc/resolv.conf
    dns_port: int = 53
    dns_min_ttl_s: float = 30.0
    dns_max_ttl_s: float = 86400.0
    dns_negative_ttl_s: float = 60.0
    dns_cache_size: int = 50_000

    map_size_bytes: int = 64 << 30  # of each shard's store; address space and a sparse file, not memory
    min_free_disk_bytes: int = 1 << 30  # less than this on the disk of data_dir: new mail is refused
    window_messages: int = 10_000  # read ahead from the store by each shard
    window_size_bytes: int = 256_000_000

    # Past one of these a shard takes no new mail (421). 0: never for that reason.
    max_loop_lag_s: float = 2.0  # how late its loop comes, on average
    max_staged_bytes: int = 64_000_000  # accepted and not committed yet
    max_inbound_connections: int = 0  # of all its listeners

    event_log_dir: str = ""  # filled in: data_dir/events
    event_log_size_bytes: int = 256_000_000  # a file is rotated past this
    event_log_age_s: float = 86400.0  # or when it is this old


class ListenerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[[listener]]: where mail comes in. `customer`, or `trusted`, or a protocol that asks who it is."""

    name: str  # filled in: protocol:listen or protocol:path
    protocol: str  # smtp | submission | submissions | socket | spool
    listen: str = ""  # the three of SMTP: as written, host:port
    address: str = ""  # the host of listen
    port: int = 0  # the port of listen
    path: str = ""  # socket: of the unix socket; spool: the directory
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")  # SMTP: networks that may connect
    customer: str = ""
    trusted: bool = False
    hostname: str = ""  # SMTP: what it says in its greeting; filled in: the engine's
    max_message_size_bytes: int = 50_000_000
    max_recipients: int = 1000
    max_connections: int = 1000  # of each shard
    max_hold_s: float = 7 * 86400.0  # how long a message may ask to wait; 0: not at all
    mode: int = 0o660  # socket: permissions of the unix socket
    tls_certificate: str = ""  # SMTP: file of the chain, PEM; "" is no STARTTLS
    tls_key: str = ""  # file of its private key; filled in: tls_certificate
    tls_min_version: str = "1.2"  # 1.2 | 1.3
    allow_plaintext_auth: bool = False  # AUTH on connections without TLS
    proxy_protocol: bool = False  # connections from proxy_networks begin with a PROXY header
    proxy_networks: tuple[str, ...] = ()
    xclient_networks: tuple[str, ...] = ()  # whose clients may say who they speak for


# Below data_dir: where the engine that runs answers, which a changed configuration does not say before it is
# loaded. The key of its listener, "unix:/path" or "tcp:address:port".
ADMIN_RECORD = "run/admin"


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True):
    """[admin]: API, console and /metrics. Either a unix socket (mode 0600) or address and port."""

    path: str = ""  # filled in: data_dir/admin.sock
    address: str = ""
    port: int = 0


class EgressProxy(msgspec.Struct, frozen=True, kw_only=True):
    """`proxy` of a vmta: what connects on to peers, from an address that is not on this host."""

    kind: str  # haproxy: PROXY protocol version 2; haproxy-v1: version 1; socks5
    host: str
    port: int
    user: str = ""  # of socks5
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}:{host}:{self.port}"

    __repr__ = __str__  # whatever prints it never prints the password


class VirtualMTA(msgspec.Struct, frozen=True, kw_only=True):
    """[[vmta]]: a source address (v4, v6 or both) and the host name it says in EHLO."""

    name: str
    v4: str  # "" where it has none
    v6: str
    hostname: str
    max_connections: int = 0
    proxy: EgressProxy | None = None

    @property
    def addresses(self) -> list[str]:
        """Its source addresses."""
        return [address for address in (self.v4, self.v6) if address]


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """[[pool]]: a weighted set of vmtas."""

    name: str
    members: dict[str, int]


class DkimKey(msgspec.Struct, frozen=True, kw_only=True):
    """[[customer.dkim]]: signs mail whose From is at `domain` with the private key in file `key`."""

    domain: str
    selector: str
    key: str


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """[[customer.credentials]]: a name and a password that prove to be the customer."""

    user: str
    password: PasswordHash


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """[[customer]]: whose mail it is."""

    name: str
    pool: str
    senders: tuple[str, ...]  # patterns: "*@acme.example", "*@*.acme.example", "ann@acme.example", "*"
    share: int = 1  # of a ready queue, against other customers
    encode_8bit: str = "never"  # always | never: 8-bit parts become 7-bit ones at acceptance
    dkim: tuple[DkimKey, ...] = ()
    credentials: tuple[Credential, ...] = ()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A value of [routes]: hosts instead of MX, and how to be let in there."""

    hosts: tuple[str, ...]  # in order: "host:port", "[v6]:port", "lmtp:host:port" or "lmtp:unix:/path"
    user: str = ""  # "": no AUTH
    password: str = ""
    password_file: str = ""  # holds the password; filled in when texts are read
    tls: str = ""  # as the policy of that name, instead of it; "": policy decides
    allow_plaintext_auth: bool = False  # AUTH in clear too

    def __repr__(self) -> str:  # whatever prints it never prints the password
        return f"Route({', '.join(self.hosts)}{f' as {self.user}' if self.user else ''})"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All of mailrail.toml, cross-checked. The dicts are keyed by name, in the order of the file."""

    engine: EngineSettings
    admin: AdminSettings
    listeners: tuple[ListenerSettings, ...]
    vmtas: dict[str, VirtualMTA]
    pools: dict[str, Pool]
    customers: dict[str, Customer]
    routes: dict[str, Route]  # by domain pattern

    def sender_of(self, address: str) -> Customer | None:
        """Return the first customer who may send as that address."""
        for customer in self.customers.values():
            if any(matches_sender(pattern, address) for pattern in customer.senders):
                return customer
        return None
