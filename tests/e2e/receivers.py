"""Mail systems of others, private and on loopback, that keep what they receive: Postfix and Exim.

Each has its own configuration, queue and log in a directory of its own; Debian's own instance is neither
touched nor needed. Both want root. Postfix keeps messages by pipe(8) and dd, Exim in a maildir; both with
CRLF, and in front of each stands the Received field of the receiver.

Owns: the instances; messages that try whoever carries them; the comparison.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import smtplib
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.rig.certificate import write_certificate
from engine.rig.processes import running, wait_port
from tests.e2e.configuration import Configuration, free_port
from tests.e2e.engine_process import EngineProcess, wait_until

POSTFIX_DAEMONS = Path("/usr/lib/postfix/sbin")
EXIM = "/usr/local/lib/mailrail-strangers/exim4"  # tests/strangers-exim.sh unpacks it
HOST = "mx.stranger.example"
START_S, ARRIVAL_S = 20.0, 40.0
_TEST_ID = re.compile(rb"^X-Test-Id: (\S+)\r$", re.MULTILINE)
needs_root = pytest.mark.usefixtures("as_root")


@dataclass
class Receiver:
    """One running instance."""

    port: int
    kept: Path
    log_file: Path

    def messages(self) -> list[bytes]:
        """Return what has come so far, without the receiver's own Received field."""
        files = [path for path in self.kept.rglob("*") if path.is_file() and path.parent.name != "tmp"]
        return [_drop_first_field(path.read_bytes()) for path in files if path.stat().st_size]

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


def _drop_first_field(message: bytes) -> bytes:
    assert message.startswith(b"Received:"), message[:200]
    end = re.search(rb"\r\n(?![ \t])", message)
    return message[end.end() :] if end is not None else b""  # it is still being written


# -- Postfix ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_postfix_receiver(*, is_chunking: bool) -> Iterator[Receiver]:
    """Start a private Postfix that offers STARTTLS, and CHUNKING where told."""
    with _place("postfix", "nobody") as (root, port):
        for name in ("etc", "queue", "data"):
            (root / name).mkdir()
        shutil.chown(root / "data", "postfix", "postfix")
        settings = _POSTFIX | {
            "queue_directory": str(root / "queue"),
            "data_directory": str(root / "data"),
            "maillog_file": str(root / "log" / "mail"),
            "maillog_file_prefixes": str(root),
            "smtpd_tls_chain_files": str(root / "mx.pem"),
            "smtpd_discard_ehlo_keywords": "" if is_chunking else "chunking",
        }
        main = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (root / "etc" / "main.cf").write_text(main)
        (root / "etc" / "master.cf").write_text(_POSTFIX_MASTER.format(port=port, kept=root / "kept"))
        subprocess.run(
            ["/usr/sbin/postfix", "-c", str(root / "etc"), "check"],
            check=True,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
        master = [POSTFIX_DAEMONS / "master", "-c", root / "etc", "-s"]
        environment = os.environ | {"MAIL_CONFIG": str(root / "etc")}
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
        with running(master, **quiet):
            wait_port("127.0.0.1", port, START_S)
            yield Receiver(port, root / "kept", root / "log" / "mail")


_POSTFIX = {
    "compatibility_level": "3.6",
    "inet_protocols": "ipv4",
    "inet_interfaces": "127.0.0.1",
    "myhostname": HOST,
    "mynetworks": "127.0.0.0/8",
    "mydestination": "",
    "local_recipient_maps": "",
    "alias_maps": "",
    "alias_database": "",
    "default_transport": "keep:",
    "relay_transport": "keep:",
    "keep_destination_recipient_limit": "1",
    "smtpd_recipient_restrictions": (
        "check_recipient_access regexp:{{/^refused/ REJECT}}, permit_mynetworks, reject"
    ),
    "smtpd_peername_lookup": "no",
    "smtpd_tls_security_level": "may",
    "smtpd_tls_loglevel": "1",
    "message_size_limit": "60000000",
    "append_dot_mydomain": "no",
    "mail_owner": "postfix",
    "setgid_group": "postdrop",
    "daemon_directory": str(POSTFIX_DAEMONS),
    "command_directory": "/usr/sbin",
}
_POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
keep unix - n n - 4 pipe user=nobody eol=\\r\\n argv=/usr/bin/dd status=none of={kept}/${{queue_id}}
"""


# -- Exim ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_exim_receiver(*, is_chunking: bool) -> Iterator[Receiver]:
    """Start a private Exim that offers STARTTLS, and CHUNKING where told."""
    with _place("exim", "Debian-exim") as (root, port):
        (root / "spool").mkdir()
        shutil.chown(root / "spool", "Debian-exim")
        configuration = root / "exim.conf"
        offers = "*" if is_chunking else ""
        configuration.write_text(_EXIM.format(root=root, port=port, exim=EXIM, host=HOST, chunking=offers))
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with running([EXIM, "-bdf", "-C", configuration], **quiet):
            wait_port("127.0.0.1", port, START_S)
            yield Receiver(port, root / "kept", root / "log" / "main")


_EXIM = """\
primary_hostname = {host}
exim_path = {exim}
keep_environment =
spool_directory = {root}/spool
log_file_path = {root}/log/%s
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts = *
tls_certificate = {root}/mx.pem
tls_privatekey = {root}/mx.pem
chunking_advertise_hosts = {chunking}
acl_smtp_rcpt = check_recipient
acl_smtp_data = accept
deliver_drop_privilege
smtp_accept_queue_per_connection = 0
message_size_limit = 60M
log_selector = +tls_cipher
begin acl
check_recipient:
  deny
    local_parts = ^refused
    message = 5.1.1 no such user
  accept
begin routers
all:
  driver = accept
  transport = keep
begin transports
keep:
  driver = appendfile
  directory = {root}/kept
  maildir_format
  message_prefix =
  message_suffix =
  use_crlf
"""


@contextlib.contextmanager
def _place(name: str, owner: str) -> Iterator[tuple[Path, int]]:
    """Yield a directory that unprivileged processes can reach, with certificate, log and kept, and a port."""
    root = Path("/var/tmp") / f"mailrail-{name}-{os.getpid()}"
    root.mkdir(mode=0o755)
    try:
        for each in ("log", "kept"):
            (root / each).mkdir()
            shutil.chown(root / each, owner)
        shutil.chown(write_certificate(root / "mx.pem", HOST), owner)
        if name == "postfix":
            shutil.chown(root / "log", "root")  # its postlogd writes as root
        yield root, free_port()
    finally:
        shutil.rmtree(root, ignore_errors=True)


# -- what is sent through them ------------------------------------------------------------------------------

_BODIES = [
    b"plain text\r\n",
    b".\r\n..\r\n.dot\r\n\r\n.\r\n",
    b"",
    b"\r\n\r\n\r\n",
    b"x" * 998 + b"\r\n",
    "Grüße, 你好\r\n".encode(),
    b"\t tabs and trailing blanks \t \r\nFrom the start of a line\r\n",
    b"y" * 70 + b"\r\n",
]
LARGE = (b"z" * 76 + b"\r\n") * 4000  # over the 256 kB that wait for the replies to their recipients


def make_messages(count: int) -> dict[str, bytes]:
    """Return messages by their test id: each body in turn, one of them large."""
    bodies = [*_BODIES, LARGE]
    made = {}
    for number in range(count):
        test_id = f"s{number}"
        head = (
            "From: <news@acme.example>\r\nTo: <ann@one.example>\r\nMessage-ID: <%s@acme.example>\r\n"
            "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nSubject: a folded\r\n\tsubject\r\nX-Test-Id: %s\r\n\r\n"
        )
        made[test_id] = (head % (test_id, test_id)).encode() + bodies[number % len(bodies)]
    return made


def send_all(port: int, messages: dict[str, bytes]) -> None:
    """Hand the messages to the engine in one session; each is for one recipient."""
    with smtplib.SMTP("127.0.0.1", port, "feeder.example", timeout=30) as session:
        for test_id, message in messages.items():
            refused = session.sendmail(
                "news@acme.example", [f"{test_id}@one.example"], message, ["BODY=8BITMIME"]
            )
            assert not refused


def send_with_refused(port: int, messages: dict[str, bytes]) -> int:
    """Hand the messages over, each for one recipient that is taken and two that are not, and every fourth for
    refused ones alone; return how many recipients the receiver refuses. Those for nobody leave `messages`."""
    refused = 0
    with smtplib.SMTP("127.0.0.1", port, "feeder.example", timeout=30) as session:
        for number, (test_id, message) in enumerate(list(messages.items())):
            to = [
                f"refused-{test_id}@one.example",
                f"{test_id}@one.example",
                f"refused2-{test_id}@one.example",
            ]
            if number % 4 == 3:
                del messages[test_id], to[1]
            refused += 2
            assert not session.sendmail("news@acme.example", to, message, ["BODY=8BITMIME"])
    return refused


def check_refused(
    receiver: Receiver, engine: EngineProcess, messages: dict[str, bytes], refused: int
) -> None:
    """What was refused has bounced, each recipient by its own reply; the rest has arrived, once and equal."""
    total = len(messages) + refused

    def final() -> list[dict[str, Any]]:
        found = engine.events_of("delivered", "deferred", "bounced")
        return found if len(found) >= total else []

    events = wait_until(final, ARRIVAL_S, f"{total} final events")
    kinds = Counter((event["event"], event["recipient"].startswith("refused")) for event in events)
    assert kinds == {("delivered", False): len(messages), ("bounced", True): refused}
    codes = {(event["reply"]["code"], event["status"]) for event in events if event["event"] == "bounced"}
    assert {code for code, _ in codes} <= {550, 554}, codes
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not _difference(receiver, messages), ARRIVAL_S, "arrivals")
    assert _difference(receiver, messages) == "", receiver.log()[-3000:]


def check_arrivals(receiver: Receiver, engine: EngineProcess, messages: dict[str, bytes]) -> None:
    """All have arrived once, equal octet for octet behind the fields that the engine put in front."""
    wait_until(
        lambda: len(engine.events_of("delivered")) >= len(messages), ARRIVAL_S, f"{len(messages)} deliveries"
    )
    events = engine.events_of("delivered", "deferred", "bounced")
    assert [event["event"] for event in events] == ["delivered"] * len(messages)
    with contextlib.suppress(AssertionError):  # the receiver's queue takes its time; then say what differs
        wait_until(lambda: not _difference(receiver, messages), ARRIVAL_S, "arrivals")
    assert _difference(receiver, messages) == "", receiver.log()[-3000:]


def _difference(receiver: Receiver, messages: dict[str, bytes]) -> str:
    """Say what is not as it should be, "" when nothing is."""
    arrived = receiver.messages()
    ids = Counter(found[1].decode() for message in arrived if (found := _TEST_ID.search(message)))
    if ids != dict.fromkeys(messages, 1):
        return f"{len(arrived)} files, ids {ids}"
    for message in arrived:
        found = _TEST_ID.search(message)
        assert found is not None
        sent = messages[found[1].decode()]
        added = message.removesuffix(sent)
        if added == message or not added.startswith(b"Received: ") or b"\r\n\r\n" in added:
            return f"{message[-1000:]!r} came for {sent[-1000:]!r}"
    return ""


def route_to(configuration: Configuration, receiver: Receiver, tls: str) -> int:
    """Send everything to the receiver, two transactions outstanding; return the port to feed."""
    configuration.routes["*"] = f"127.0.0.1:{receiver.port}"
    configuration.policies += f'outstanding = 2\ntls = "{tls}"\nmax_connections = 2\n'
    configuration.add_customer("acme", "127.0.0.1")
    return configuration.add_smtp(customer="acme")
