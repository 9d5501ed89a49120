"""Which configuration file a command is about, and where the engine that runs it answers.

Owns: the order of `-c`, MAILRAIL_CONFIG and the default; the address of the admin API.
Fails: ConfigError, as everything that reads a configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from engine.core.errors import ConfigError, Origin
from engine.settings.model import Settings
from engine.settings.parse import parse_settings

DEFAULT_CONFIG = "/etc/mailrail/mailrail.toml"


class AdminAddress(NamedTuple):
    """Where the admin API listens: a unix socket if `path` is given, else address and port."""

    path: str
    address: str
    port: int

    def __str__(self) -> str:
        return self.path or (
            f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
        )


def load_settings(config_path: str) -> Settings:
    """Read mailrail.toml alone: what asks a running engine needs no policies."""
    try:
        text = Path(config_path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else "expected UTF-8"
        raise ConfigError(Origin(config_path, 0), f"can't read it: {detail}") from error
    return parse_settings(config_path, text)


def admin_address(settings: Settings) -> AdminAddress:
    """Return where the engine of this configuration answers."""
    admin = settings.admin
    return AdminAddress(admin.path, admin.address, admin.port)
