"""What a connection costs the sending side, in CPU: in clear, under TLS, and with the session resumed.

    python -m bench.tls_resumption
    python -m bench.tls_resumption --connections 200

The engine's own opening (socket, greeting, EHLO, STARTTLS, EHLO) against the rig's sink, one connection at a
time, each ended by QUIT. All variants take turns, fifty connections each, so that they meet the same machine.
"whole" is the engine without resumption: it keeps no tickets either.

2026-11-24, 2 x Xeon, Python 3.11.2, OpenSSL 3.0.19, uvloop 0.23; RSA-2048, one intermediate, 1,000 each:

    in clear                   259 us    the peer's  70
    opportunistic, whole     1,628 us    the peer's 940
    opportunistic, resumed   1,385 us    the peer's 530
    verify, whole            1,432 us    the peer's 880
    verify, resumed          1,410 us    the peer's 640

So resuming takes a fifth off what opportunistic TLS costs us, next to nothing off "verify", and a third to
a half off what it costs the peer. What OpenSSL saves (do_handshake 0.56 to 0.22 ms under a profiler)
Python's ssl module nearly spends again: it copies a session, by writing and parsing it, where one is read
(0.16 ms) and where one is passed on (0.15 ms). Opportunistic saves the judging of the chain too (0.15 ms).

Owns: an authority with an intermediate, which signs the sink's certificate.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from bench.finding import Finding, run_bench, tell
from engine.net.connect import OpenSession, OpenTimeouts, open_session
from engine.net.handshake import ClientContexts, Handshake
from engine.net.sockets import open_socket
from engine.net.tls import CLEAR, TlsFacts, TlsRequirement
from engine.rig.processes import read_cpu_s, running_sink

ADDRESS, PORT = "127.0.0.97", 2651
BLOCK = 50
HOST = "mx.example"
ROOTS = "roots.pem"


class Variant(NamedTuple):
    """One way to open a connection."""

    name: str
    requirement: TlsRequirement
    is_resuming: bool = False


VARIANTS = (
    Variant("in clear", CLEAR),
    Variant("opportunistic, whole", TlsRequirement(mode="opportunistic")),
    Variant("opportunistic, resumed", TlsRequirement(mode="opportunistic"), is_resuming=True),
    Variant("verify, whole", TlsRequirement(mode="verify")),
    Variant("verify, resumed", TlsRequirement(mode="verify"), is_resuming=True),
)


class Block(NamedTuple):
    """CPU of one connection, mean over a block: this process's, and the peer's."""

    ours_us: float
    peers_us: float


class Farewell(asyncio.Protocol):
    """Says QUIT and waits for the end."""

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(b"QUIT\r\n")  # type: ignore[attr-defined]

    def data_received(self, _data: bytes) -> None:
        self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.ended.set_result(None)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said about the load."""
    parser.add_argument("--connections", type=int, default=1000, help="of each variant, at least 100")


def measure(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Measure all variants, in turns."""
    with tempfile.TemporaryDirectory() as directory:
        pem, roots = make_certificates(Path(directory) / "mx.pem")
        options = ("--listen", f"{ADDRESS}:{PORT}", "--hostname", HOST, "--starttls", "--certificate", pem)
        with running_sink(*options) as sink:
            blocks = uvloop.run(run_blocks(max(2, arguments.connections // BLOCK), roots, sink.pid))
    ours = {variant.name: statistics.median(each.ours_us for each in blocks[variant]) for variant in VARIANTS}
    theirs = {
        variant.name: statistics.fmean(each.peers_us for each in blocks[variant]) for variant in VARIANTS
    }
    for variant in VARIANTS:
        spread = statistics.quantiles([each.ours_us for each in blocks[variant]], n=4)
        note = f"quartiles {spread[0]:.0f} to {spread[2]:.0f}; the peer's {theirs[variant.name]:.0f}"
        yield Finding(f"CPU of a connection, {variant.name}", ours[variant.name], "us", note=note)
    for mode in ("opportunistic", "verify"):
        for who, cpu_us in (("ours", ours), ("the peer's", theirs)):
            whole, resumed = (cpu_us[f"{mode}, {each}"] - cpu_us["in clear"] for each in ("whole", "resumed"))
            what = f"TLS resumed, of whole, {mode}, {who}"
            yield Finding(what, resumed / whole, "", note=f"{resumed:.0f} of {whole:.0f} us")


async def run_blocks(rounds: int, roots: str, peer: int) -> dict[Variant, list[Block]]:
    """Return what a connection took in each block of each variant."""
    contexts = ClientContexts()
    contexts.use(ROOTS, {ROOTS: roots})
    found: dict[Variant, list[Block]] = {variant: [] for variant in VARIANTS}
    for number in range(rounds + 1):  # the first is for warming up
        tell(f"round {number} of {rounds}")
        for variant, blocks in found.items():
            block = await run_block(contexts, variant, peer)
            if number:
                blocks.append(block)
    return found


async def run_block(contexts: ClientContexts, variant: Variant, peer: int) -> Block:
    """Open and end connections; return CPU microseconds for each."""
    if variant.is_resuming:
        await open_one(contexts, variant)  # the ticket for the first that counts
    begun_s, peer_begun_s = time.process_time(), read_cpu_s(peer)
    for _ in range(BLOCK):
        session = await open_one(contexts, variant)
        if variant.requirement is not CLEAR:
            assert session.tls is not None
            assert session.tls.is_verified
            assert session.tls.is_resumed is variant.is_resuming
    ended_s, peer_ended_s = time.process_time(), read_cpu_s(peer)
    contexts.tickets.clear()
    return Block((ended_s - begun_s) / BLOCK * 1e6, (peer_ended_s - peer_begun_s) / BLOCK * 1e6)


async def open_one(contexts: ClientContexts, variant: Variant) -> OpenSession:
    """Open a connection and end it."""
    sock = await open_socket(None, ADDRESS, PORT, 5.0)
    keep = Handshake.keep_ticket if variant.is_resuming else keep_nothing
    with mock.patch.object(Handshake, "keep_ticket", keep):
        session = await open_session(
            sock,
            peer_host=HOST,
            helo="mail1.acme.example",
            timeouts=OpenTimeouts(5.0, 5.0, 5.0),
            tls=variant.requirement,
            contexts=contexts,
        )
    assert isinstance(session, OpenSession)
    farewell = Farewell()
    session.hand_over(farewell)
    await farewell.ended
    return session


def keep_nothing(_handshake: Handshake, _ssl_object: ssl.SSLObject, _facts: TlsFacts) -> None:
    """Stand for keeping a ticket."""


def make_certificates(path: Path) -> tuple[Path, str]:
    """Write key, certificate and intermediate, RSA-2048 all, as public authorities issue; return root too."""
    root_key, between_key, key = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    root = sign("Root", root_key, "Root", root_key, is_ca=True)
    between = sign("Between", between_key, "Root", root_key, is_ca=True)
    leaf = sign(HOST, key, "Between", between_key, is_ca=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    own, above, anchor = (each.public_bytes(serialization.Encoding.PEM) for each in (leaf, between, root))
    path.write_bytes(private + own + above)
    return path, anchor.decode()


def sign(
    name: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey, *, is_ca: bool
) -> x509.Certificate:
    """Return one certificate."""
    now = datetime.datetime.now(datetime.UTC)
    subject, above = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, issuer))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    )
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def main(argv: list[str] | None = None) -> int:
    """Print the findings."""
    return run_bench(__doc__, add_options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
