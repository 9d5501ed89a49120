"""A configuration as plain values, which a test changes and writes again.

Owns: the form of mailrail.toml and of the policies beside it.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SINK_ADDRESS = "127.0.9.1"


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@dataclass
class Configuration:
    """What mailrail.toml says; `write` puts it on disk."""

    root: Path
    engine: dict[str, Any] = field(default_factory=dict)
    listeners: list[dict[str, Any]] = field(default_factory=list)
    vmtas: list[dict[str, Any]] = field(default_factory=list)
    pools: dict[str, dict[str, int]] = field(default_factory=dict)
    customers: list[dict[str, Any]] = field(default_factory=list)
    routes: dict[str, Any] = field(default_factory=dict)
    policies: str = ""

    @property
    def file(self) -> Path:
        return self.root / "mailrail.toml"

    @property
    def data_dir(self) -> Path:
        return Path(self.engine.get("data_dir", self.root / "data"))

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def socket(self) -> Path:
        return self.root / "inject.sock"

    def add_smtp(self, **row: Any) -> int:
        """Add an SMTP listener on a free port; return the port."""
        port = free_port()
        self.listeners.append({"protocol": "smtp", "listen": f"127.0.0.1:{port}", **row})
        return port

    def add_customer(self, name: str, *sources: str, **row: Any) -> None:
        """Add a customer with a pool of its own and a vmta for each source address."""
        names = [f"{name}-{number}" for number in range(1, len(sources) + 1)]
        for number, (vmta, source) in enumerate(zip(names, sources, strict=True), 1):
            self.vmtas.append({"name": vmta, "source": source, "hostname": f"mail{number}.{name}.example"})
        self.pools[name] = dict.fromkeys(names, 1)
        self.customers.append({"name": name, "pool": name, "senders": [f"*@{name}.example"], **row})

    def write(self) -> Path:
        """Write mailrail.toml and the policies; return the former."""
        directory = self.root / "policies"
        directory.mkdir(exist_ok=True)
        (directory / "test.toml").write_text(self.policies)
        self.file.write_text(self.format())
        return self.file

    def format(self) -> str:
        """Return the text of mailrail.toml."""
        engine = {
            "hostname": "mta.mailrail.example",
            "data_dir": str(self.data_dir),
            "shards": 2,
            "policies": [str(self.root / "policies")],
            "log_format": "json",
            "min_free_disk": 1,
            "grace": "5s",
            **self.engine,
        }
        tables = [_format_table("[engine]", engine)]
        tables += [_format_table("[[listener]]", row) for row in self.listeners]
        tables += [_format_table("[[vmta]]", row) for row in self.vmtas]
        tables += [
            _format_table("[[pool]]", {"name": name, "members": members})
            for name, members in self.pools.items()
        ]
        tables += [_format_table("[[customer]]", row) for row in self.customers]
        tables.append(_format_table("[routes]", self.routes))
        return "\n".join(tables)


def _format_table(head: str, row: dict[str, Any]) -> str:
    return "\n".join([head, *(f"{json.dumps(key)} = {_format(value)}" for key, value in row.items()), ""])


def _format(value: Any) -> str:
    """Return a value as TOML has it: as JSON, but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_format(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_format, value)) + "]"
    return json.dumps(value)
