"""Which configuration file a command is about, and where the engine that runs it answers.

The file may have been changed since the engine read it, `[admin] listen` too: then the engine answers where
it has put on record that it does.

Owns: the order of `-c`, MAILRAIL_CONFIG and the default; the addresses of the admin API.
Fails: ConfigError, as everything that reads a configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from engine.core.errors import ConfigError, Origin
from engine.loading import read_utf8
from engine.settings.fields import split_host_and_port
from engine.settings.model import ADMIN_RECORD, Settings
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
        text = read_utf8(config_path)
    except OSError as error:
        raise ConfigError(Origin(config_path, 0), f"can't read it: {error.strerror}") from error
    return parse_settings(config_path, text)


def admin_addresses(settings: Settings) -> list[AdminAddress]:
    """Return where the engine of this configuration answers: as it says, else where it ran so far."""
    admin = settings.admin
    named = AdminAddress(admin.path, admin.address, admin.port)
    recorded = _read_recorded(Path(settings.engine.data_dir, ADMIN_RECORD))
    return [named] if recorded in (None, named) else [named, recorded]


def _read_recorded(file: Path) -> AdminAddress | None:
    """Return the address on record; None where there is none, or it is not ours to read."""
    try:
        kind, _, place = file.read_text(encoding="utf-8").strip().partition(":")
        if kind == "unix":
            return AdminAddress(place, "", 0)
        return AdminAddress("", *split_host_and_port(place))
    except (OSError, ValueError):
        return None
