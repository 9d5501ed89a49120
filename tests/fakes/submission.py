"""What stands around listeners with TLS, AUTH and proxies in tests: certificates, users, a listener."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.inject.passwords import Passwords
from engine.inject.shedding import NEVER, Shedding
from engine.inject.smtp import SMTPListener
from engine.inject.smtp_opening import open_connection
from engine.inject.smtp_session import SMTPSession
from engine.settings.model import Credential, Customer, ListenerSettings
from engine.settings.password import MIN_LOG2_N, PasswordHash, hash_password
from engine.telemetry.metrics import Counters
from tests.fakes.feeds import SMTP_SETTINGS, Intake

USER, PASSWORD = "ann@acme.example", b"correct horse"
HASH = hash_password(PASSWORD, b"0123456789abcdef", MIN_LOG2_N)
CUSTOMERS = {
    "acme": Customer(
        name="acme", pool="acme", senders=("*",), credentials=(Credential(user=USER, password=HASH),)
    ),
    "globex": Customer(
        name="globex",
        pool="globex",
        senders=("*",),
        credentials=(Credential(user="bob", password=hash_password(b"secret", b"x" * 16, MIN_LOG2_N)),),
    ),
}
SUBMISSION = msgspec.structs.replace(
    SMTP_SETTINGS, name="submission", protocol="submission", customer="", allow=("0.0.0.0/0", "::/0")
)


def write_certificate(directory: Path, name: str = "mta1.example.net") -> tuple[str, str]:
    """Write a certificate for a name and its key; return both files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / f"{name}.crt", directory / f"{name}.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(chain), str(private)


def trusting(certificate: str) -> ssl.SSLContext:
    """Return a client's context that trusts one certificate, whatever it is called."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    return context


def matches_plainly(hashed: PasswordHash, password: bytes) -> bool:
    """As `matches`, without its cost: for tests that are about what follows."""
    return (hashed, password) in ((HASH, PASSWORD), (CUSTOMERS["globex"].credentials[0].password, b"secret"))


def make_passwords(
    counters: Counters, customers: Mapping[str, Customer] = CUSTOMERS, match: Any = matches_plainly
) -> Passwords:
    """Return the credentials of the customers above."""
    passwords = Passwords(counters, match=match)
    passwords.use(customers)
    return passwords


def make_listener(
    intake: Intake, base: ListenerSettings = SUBMISSION, shedding: Shedding = NEVER, **changes: Any
) -> SMTPListener:
    """Return a listener that is not open; `counters` is an attribute of it for tests."""
    counters = Counters()
    settings = msgspec.structs.replace(base, **changes)
    made = SMTPListener(settings, intake, counters, make_passwords(counters), shedding)
    made.now = lambda: 0.0
    return made


@asynccontextmanager
async def serving(made: SMTPListener) -> AsyncIterator[int]:
    """Serve a listener on a port of loopback."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    await made.open(sock, SMTPSession, partial(open_connection, SMTPSession))
    try:
        yield sock.getsockname()[1]
    finally:
        made.close()
        made.passwords.close()
        await asyncio.sleep(0.01)


def counts(made: SMTPListener, name: str) -> dict[tuple[str, ...], float]:
    """Return what a metric of the listener's shard counts, by its labels without the listener."""
    snapshot = made._counters.snapshot()
    return {tuple(labels[1:]): value for metric, labels, value in snapshot["counters"] if metric == name}
