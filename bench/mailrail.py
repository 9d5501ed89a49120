"""A private Mailrail under the load of the table: its configuration, its start and its end.

Owns: a throw-away data directory and the supervisor started on it.  What differs from the shipped policies is
`LIMITS`, and the table prints it; only limits may.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.rig.processes import RigProcess, read_tree, running, wait_port

START_TIMEOUT_S = 30.0
VMTAS = 20
SENDER_DOMAIN = "source.example"

# The only difference from the shipped policies: limits, as the table prints them.
LIMITS: dict[str, str] = {
    "max_connections": "5",  # 20 vmtas: 100 sessions to a destination, what Postfix is given
    "max_messages_per_connection": "100000",
    "max_message_rate": '"unlimited"',
    "max_connection_rate": '"unlimited"',
    "ready_limit": "20000",
}


@dataclass(frozen=True)
class MailrailSetup:
    """What one run needs."""

    port: int
    next_hops: Mapping[str, str]  # domain -> "127.1.0.1:2600"
    vmtas: int = VMTAS
    shards: int = 0
    durability: str = "sync"
    has_tls: bool = False
    has_dkim: bool = False
    limits: Mapping[str, str] = field(default_factory=lambda: LIMITS)
    extra: str = ""  # appended to mailrail.toml; {root} is its directory


@dataclass(frozen=True)
class RunningMailrail:
    """One engine and where to find its things."""

    supervisor: RigProcess
    root: Path

    @property
    def roots(self) -> list[int]:
        """Process ids whose trees are the engine."""
        return [self.supervisor.pid]

    @property
    def config(self) -> Path:
        return self.root / "mailrail.toml"

    @property
    def shards(self) -> list[int]:
        """Process ids of the shards."""
        return [pid for pid in read_tree(self.supervisor.pid)[1:] if _is_shard(pid)]


@contextlib.contextmanager
def prepared(setup: MailrailSetup) -> Iterator[Path]:
    """Yield a fresh directory with the configuration in it; it is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="bench-mailrail-", dir="/var/tmp"))
    try:
        write_configuration(root, setup)
        yield root
    finally:
        if not os.environ.get("BENCH_KEEP"):
            shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def serving(root: Path, setup: MailrailSetup) -> Iterator[RunningMailrail]:
    """Start an engine on a directory that is prepared, and perhaps loaded; stop it afterwards."""
    command = [find_command(), "serve", "-c", str(root / "mailrail.toml")]
    with (
        (root / "engine.log").open("ab") as log,
        running(command, stderr=log, stdout=log, stdin=subprocess.DEVNULL) as supervisor,
    ):
        _wait_start(supervisor, root, setup.port)
        yield RunningMailrail(supervisor, root)


@contextlib.contextmanager
def running_mailrail(setup: MailrailSetup) -> Iterator[RunningMailrail]:
    """Start an engine on a fresh directory; both are gone afterwards."""
    with prepared(setup) as root, serving(root, setup) as mailrail:
        yield mailrail


def _is_shard(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"_shard" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


def find_command() -> str:
    """Return the `mailrail` beside the interpreter that runs the bench."""
    command = Path(sys.executable).with_name("mailrail")
    if not command.exists():
        raise SystemExit(f"{command} is missing: run `make install` first")
    return str(command)


def write_configuration(root: Path, setup: MailrailSetup) -> None:
    """Write mailrail.toml, the policy of the bench and, where asked for, a DKIM key."""
    (root / "policies").mkdir()
    (root / "policies" / "bench.toml").write_text(_format_policy(setup))
    (root / "mailrail.toml").write_text(_format_settings(root, setup))
    if setup.has_dkim:
        subprocess.run(
            ["openssl", "genrsa", "-out", str(root / "bench.private"), "2048"],
            check=True,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )


def _wait_start(supervisor: RigProcess, root: Path, port: int) -> None:
    try:
        wait_port("127.0.0.1", port, START_TIMEOUT_S)
    except TimeoutError:
        tail = (root / "engine.log").read_text(errors="replace")[-2000:]
        state = "runs" if supervisor.is_alive() else "has ended"
        raise SystemExit(
            f"mailrail {state} but does not greet at port {port}; its log ends:\n{tail}"
        ) from None


def _format_policy(setup: MailrailSetup) -> str:
    lines = ["[default]", *(f"{name} = {value}" for name, value in setup.limits.items())]
    lines.append(f'tls = "{"opportunistic" if setup.has_tls else "none"}"')
    return "\n".join(lines) + "\n"


def _format_settings(root: Path, setup: MailrailSetup) -> str:
    dkim = (
        f'dkim = [{{ domain = "{SENDER_DOMAIN}", selector = "bench", key = "{root}/bench.private" }}]\n'
        if setup.has_dkim
        else ""
    )
    names = [f"v{number}" for number in range(setup.vmtas)]
    vmtas = "".join(
        f'[[vmta]]\nname = "{name}"\nsource = "127.0.10.{number + 1}"\n'
        f'hostname = "{name}.{SENDER_DOMAIN}"\n\n'
        for number, name in enumerate(names)
    )
    members = ", ".join(f'"{name}" = 1' for name in names)
    routes = "".join(f'"{domain}" = "{hop}"\n' for domain, hop in setup.next_hops.items())
    return f"""[engine]
hostname = "mta.bench.example"
data_dir = "{root}/data"
shards = {setup.shards}
durability = "{setup.durability}"
policies = ["{root}/policies"]
log_level = "warning"

[[listener]]
protocol = "smtp"
listen = "127.0.0.1:{setup.port}"
allow = ["127.0.0.0/8"]
customer = "bench"

{vmtas}[[pool]]
name = "bench"
members = {{ {members} }}

[[customer]]
name = "bench"
pool = "bench"
senders = ["*@{SENDER_DOMAIN}"]
{dkim}
[routes]
{routes}{setup.extra.format(root=root)}"""
