"""A private Postfix from Debian's package: the field to beat, tuned for throughput.

It has its own configuration, queue, data directory and log, and listens on loopback only; Debian's own
instance is neither touched nor needed. Its tuning (`TUNING`) is what the table prints. Every destination
has a next hop of its own through a transport table, so the queue manager and the connection cache see
real destinations.

Owns: the instance, from its first file to the end of its master.  Needs root, as Postfix does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.rig.processes import RigProcess, running, wait_port

DAEMON_DIRECTORY = "/usr/lib/postfix/sbin"
START_TIMEOUT_S = 30.0

# What differs from Debian's defaults, and why.
TUNING: dict[str, str] = {
    "default_process_limit": "200",  # twice the sessions offered, in and out
    "default_destination_concurrency_limit": "100",  # 20: as many sessions to a destination as Mailrail gets
    "initial_destination_concurrency": "50",  # 5: no slow start in a short run
    "default_destination_concurrency_failed_cohort_limit": "10",  # 1: a stumble does not stop a destination
    "qmgr_message_active_limit": "50000",  # 20000: the whole load may be active
    "qmgr_message_recipient_limit": "100000",  # 20000: and its recipients in memory
    "in_flow_delay": "0s",  # 1s: the receiving side is not slowed for the sending side
    "smtp_connection_cache_destinations": "static:all",  # on demand only: always
    "smtp_connection_cache_time_limit": "30s",  # 2s
    "connection_cache_ttl_limit": "30s",  # 2s: caps the one above
    "smtp_connection_reuse_time_limit": "600s",  # 300s
    "disable_dns_lookups": "yes",  # next hops are addresses
    "smtpd_peername_lookup": "no",  # no reverse look-ups of loopback
    "smtpd_error_sleep_time": "0s",  # 1s
    "smtpd_client_connection_count_limit": "0",  # 50: the source comes from one address
    "hopcount_limit": "50",
}
_FIXED: dict[str, str] = {
    "compatibility_level": "3.6",
    "inet_protocols": "ipv4",
    "mynetworks": "127.0.0.0/8",
    "mydestination": "",
    "local_recipient_maps": "",
    "alias_maps": "",
    "alias_database": "",
    "local_transport": "error:no local delivery here",
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
    "smtpd_recipient_restrictions": "permit_mynetworks, reject",
    "message_size_limit": "60000000",
    "mail_owner": "postfix",
    "setgid_group": "postdrop",
    "daemon_directory": DAEMON_DIRECTORY,
    "command_directory": "/usr/sbin",
    "myhostname": "postfix.bench.example",
    "append_dot_mydomain": "no",
}
_OPENDKIM_DOMAIN = "source.example"


@dataclass(frozen=True)
class PostfixSetup:
    """What one run needs."""

    port: int
    next_hops: Mapping[str, str]  # domain -> "[127.1.0.1]:2600"
    has_tls: bool = False
    has_dkim: bool = False
    tuning: Mapping[str, str] = field(default_factory=lambda: TUNING)


@dataclass(frozen=True)
class RunningPostfix:
    """The processes of one instance."""

    master: RigProcess
    opendkim: RigProcess | None
    log: Path

    @property
    def roots(self) -> list[int]:
        """Process ids whose trees are the instance."""
        return [self.master.pid] + ([self.opendkim.pid] if self.opendkim else [])


def is_postfix_here() -> bool:
    """Say whether Debian's package is installed and we may run it."""
    return os.geteuid() == 0 and Path(DAEMON_DIRECTORY, "master").exists()


@contextlib.contextmanager
def running_postfix(setup: PostfixSetup) -> Iterator[RunningPostfix]:
    """Start a private instance; it and its files are gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="bench-postfix-", dir="/var/tmp"))
    root.chmod(0o755)
    try:
        with contextlib.ExitStack() as stack:
            opendkim = _start_opendkim(stack, root, setup.port + 1) if setup.has_dkim else None
            _write_configuration(root, setup)
            master = stack.enter_context(_master(root))
            wait_port("127.0.0.1", setup.port, START_TIMEOUT_S)
            yield RunningPostfix(master, opendkim, root / "maillog")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _master(root: Path) -> contextlib.AbstractContextManager[RigProcess]:
    """Return Postfix's master as a child of our own: under `postfix start-fg` it would be a grandchild."""
    configuration = str(root / "etc")
    check = ["/usr/sbin/postfix", "-c", configuration, "check"]  # makes the queue's directories
    subprocess.run(check, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    environment = os.environ | {"MAIL_CONFIG": configuration}
    command = [f"{DAEMON_DIRECTORY}/master", "-c", configuration, "-s"]
    return running(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _write_configuration(root: Path, setup: PostfixSetup) -> None:
    for name in ("etc", "queue", "data"):
        (root / name).mkdir()
    shutil.chown(root / "data", "postfix", "postfix")
    (root / "etc" / "main.cf").write_text(_format_main(root, setup))
    (root / "etc" / "master.cf").write_text(_format_master(setup.port))
    transports = "".join(f"{domain} smtp:{hop}\n" for domain, hop in setup.next_hops.items())
    (root / "etc" / "transport").write_text(transports)


def _format_main(root: Path, setup: PostfixSetup) -> str:
    settings = _FIXED | dict(setup.tuning)
    settings |= {
        "queue_directory": str(root / "queue"),
        "data_directory": str(root / "data"),
        "inet_interfaces": "127.0.0.1",
        "transport_maps": f"texthash:{root}/etc/transport",
        "maillog_file": str(root / "maillog"),
        "maillog_file_prefixes": str(root),
    }
    if setup.has_tls:
        settings |= {"smtp_tls_security_level": "may", "smtp_tls_connection_reuse": "yes"}
    if setup.has_dkim:
        settings |= {"smtpd_milters": f"inet:127.0.0.1:{setup.port + 1}", "milter_default_action": "tempfail"}
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _format_master(port: int) -> str:
    """Debian's master.cf, its smtpd moved to our port and nothing chrooted."""
    services = [
        (f"127.0.0.1:{port}", "inet", "n", "-", "smtpd"),
        ("pickup", "unix", "n", "1", "pickup"),
        ("cleanup", "unix", "n", "0", "cleanup"),
        ("qmgr", "unix", "n", "1", "qmgr"),
        ("tlsmgr", "unix", "-", "1", "tlsmgr"),
        ("rewrite", "unix", "-", "-", "trivial-rewrite"),
        ("bounce", "unix", "-", "0", "bounce"),
        ("defer", "unix", "-", "0", "bounce"),
        ("trace", "unix", "-", "0", "bounce"),
        ("verify", "unix", "-", "1", "verify"),
        ("flush", "unix", "n", "0", "flush"),
        ("proxymap", "unix", "-", "-", "proxymap"),
        ("smtp", "unix", "-", "-", "smtp"),
        ("relay", "unix", "-", "-", "smtp"),
        ("error", "unix", "-", "-", "error"),
        ("retry", "unix", "-", "-", "error"),
        ("discard", "unix", "-", "-", "discard"),
        ("anvil", "unix", "-", "1", "anvil"),
        ("scache", "unix", "-", "1", "scache"),
        ("postlog", "unix-dgram", "n", "1", "postlogd"),
        ("tlsproxy", "unix", "-", "0", "tlsproxy"),
    ]
    wake = {"pickup": "60", "qmgr": "300", "tlsmgr": "1000?", "flush": "1000?"}
    return "".join(
        f"{name} {kind} {private} - n {wake.get(name, '-')} {limit} {program}\n"
        for name, kind, private, limit, program in services
    )


def _start_opendkim(stack: contextlib.ExitStack, root: Path, port: int) -> RigProcess:
    """Start Debian's opendkim as a milter that signs with RSA-2048, relaxed/relaxed."""
    key = root / "bench.private"
    subprocess.run(
        ["openssl", "genrsa", "-out", str(key), "2048"], check=True, stderr=subprocess.DEVNULL, timeout=60
    )
    key.chmod(0o600)
    configuration = root / "opendkim.conf"
    configuration.write_text(
        f"Mode s\nDomain {_OPENDKIM_DOMAIN}\nSelector bench\nKeyFile {key}\nSocket inet:{port}@127.0.0.1\n"
        "Canonicalization relaxed/relaxed\nBackground no\nSyslog no\nOversignHeaders From\n"
        "InternalHosts 127.0.0.0/8\nRequireSafeKeys no\n"  # /var/tmp is everybody's
    )
    process = stack.enter_context(running(["/usr/sbin/opendkim", "-f", "-x", str(configuration)]))
    wait_port("127.0.0.1", port, START_TIMEOUT_S, greeting=False)
    return process
