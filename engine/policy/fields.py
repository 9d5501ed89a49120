"""Which keys a section of a policy file may have, and what each may hold.

No default stands here: those are in `policies/default.toml`, and only there.
The ranges refuse what can only be a slip; what is wise is said in that file.
"""

from __future__ import annotations

from engine.core import fields
from engine.core.fields import Field

_HOUR_S = 3600.0
_DAY_S = 86400.0

# Rates over longer windows than a month are no pacing; counts above a million in one window are none either.
_rate = fields.rate(1_000_000_000, 31 * _DAY_S)
_timer = fields.duration(0.1, _HOUR_S)  # RFC 5321 4.5.3.2 asks for 2 to 10 minutes

POLICY = {
    "max_connections": Field("max_connections", fields.whole(1, 100_000)),
    "max_messages_per_connection": Field("max_messages_per_connection", fields.whole(1, 1_000_000)),
    # RFC 5321 4.5.3.1.8: a server must take at least 100.
    "max_recipients_per_message": Field("max_recipients_per_message", fields.whole(1, 50_000)),
    "max_message_rate": Field("max_message_rate", _rate),
    "max_connection_rate": Field("max_connection_rate", _rate),
    "message_interval": Field("message_interval_s", fields.duration(0, _DAY_S)),
    "burst": Field("burst", fields.whole(1, 1_000_000)),
    "adaptive": Field("adaptive", fields.boolean),
    "connect_timeout": Field("connect_timeout_s", _timer),
    "greeting_timeout": Field("greeting_timeout_s", _timer),
    "ehlo_timeout": Field("ehlo_timeout_s", _timer),
    "tls_timeout": Field("tls_timeout_s", _timer),
    "mail_timeout": Field("mail_timeout_s", _timer),
    "rcpt_timeout": Field("rcpt_timeout_s", _timer),
    "data_timeout": Field("data_timeout_s", _timer),
    "content_timeout": Field("content_timeout_s", _timer),
    "final_timeout": Field("final_timeout_s", _timer),
    "rset_timeout": Field("rset_timeout_s", _timer),
    "quit_timeout": Field("quit_timeout_s", _timer),
    "idle_timeout": Field("idle_timeout_s", fields.duration(0, _HOUR_S)),
    "retry": Field("retry_s", fields.many(fields.duration(0.1, 7 * _DAY_S), 1, 100)),
    "expire_after": Field("expire_after_s", fields.duration(1, 60 * _DAY_S)),
    "bounce_message": Field("bounce_message", fields.boolean),
    "delay_notice_after": Field("delay_notice_after_s", fields.duration(60, 60 * _DAY_S)),
    "ready_limit": Field("ready_limit", fields.whole(1, 1_000_000)),
    "port": Field("port", fields.whole(1, 65535)),
    "address_family": Field("address_family", fields.choice("v4", "v6", "prefer_v4", "prefer_v6")),
    "tls": Field("tls", fields.choice("none", "opportunistic", "required", "verify")),
    "tls_min_version": Field("tls_min_version", fields.choice("1.2", "1.3")),
    "tls_certificate": Field("tls_certificate", fields.path_or_none),
    "tls_key": Field("tls_key", fields.path_or_none),
    "tls_failure_ttl": Field("tls_failure_ttl_s", fields.duration(0, 30 * _DAY_S)),
    "outstanding": Field("outstanding", fields.whole(1, 100)),
}

# These belong to the message, which is not bound to a vmta while it waits: no vmta section may have them.
OF_THE_MESSAGE = ("retry", "expire_after", "bounce_message", "delay_notice_after", "ready_limit")

# What names a provider, beside its settings.
PROVIDER = {
    "domains": Field("domains", fields.many(fields.pattern, 1, 100_000)),
    "mx": Field("mx", fields.many(fields.pattern, 1, 1000)),
    "mx_samples": Field("mx_samples", fields.many(fields.hostname, 1, 1000)),
}
