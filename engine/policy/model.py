"""The complete set of settings for one path, parsed; nothing here has a default.

Defaults exist only in `policies/default.toml`, which is the manual: this struct says names and units.
"""

from __future__ import annotations

import msgspec

from engine.core.units import Rate


class Policy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Settings of a path, or of mail before it has a path. None for a rate is "unlimited".

    Each attribute is the key of `policies/default.toml` with its unit behind it.
    """

    # what the peer counts
    max_connections: int
    max_messages_per_connection: int
    max_recipients_per_message: int
    max_message_rate: Rate | None
    max_connection_rate: Rate | None
    message_interval_s: float
    burst: int
    adaptive: bool

    # timers of a session
    connect_timeout_s: float
    greeting_timeout_s: float
    ehlo_timeout_s: float
    tls_timeout_s: float
    mail_timeout_s: float
    rcpt_timeout_s: float
    data_timeout_s: float
    content_timeout_s: float
    final_timeout_s: float
    rset_timeout_s: float
    quit_timeout_s: float
    idle_timeout_s: float

    # what mail gets that is not delivered at once
    retry_s: tuple[float, ...]
    expire_after_s: float
    bounce_message: bool
    delay_notice_after_s: float
    ready_limit: int

    # how to reach and to talk to the peer
    port: int
    address_family: str  # v4 | v6 | prefer_v4 | prefer_v6
    tls: str  # none | opportunistic | required | verify
    tls_min_version: str  # 1.2 | 1.3
    tls_certificate: str  # path; "" for none
    tls_key: str
    tls_failure_ttl_s: float
    outstanding: int


class Destination(msgspec.Struct, frozen=True, gc=False):
    """What limits apply to: the domain if a policy section names it, else its provider, else its site.

    `provider` is known for a domain too where its MX or name says so; `domain` is "" unless
    the destination is the domain itself.
    """

    name: str
    kind: str  # domain | provider | site
    provider: str
    domain: str

    def __str__(self) -> str:
        return self.name
