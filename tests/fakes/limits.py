"""Limits of a path without a policy file: what queue.path reads of a policy."""

from __future__ import annotations

import msgspec

from engine.core.units import Rate


class Limits(msgspec.Struct, kw_only=True):
    max_connections: int = 10
    max_messages_per_connection: int = 100
    max_message_rate: Rate | None = None
    max_connection_rate: Rate | None = None
    message_interval_s: float = 0.0
    burst: int = 1
    adaptive: bool = True
