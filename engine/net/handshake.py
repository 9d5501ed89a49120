"""One TLS handshake as a client: its context, the ticket that it offers, what came of it.

Contexts are shared by all sessions that ask the same of a peer. asyncio and uvloop have no parameter for
the session to resume, but both ask the context for the TLS object (`wrap_bio`), so each handshake borrows a
stand-in that passes the session on. (A context variable would do under asyncio; uvloop does not carry it
to that call.)

Owns: contexts of this shard, their tickets, the trusted roots.
Never: reads or writes a socket, decides what is required.
Fails: TlsFailed where the peer does not prove what the requirement asks.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from cryptography import x509

from engine.core.errors import NetworkError, TlsFailed
from engine.net.tickets import Ticket, Tickets
from engine.net.tls import (
    CERTIFICATE_EXPIRED,
    CERTIFICATE_HOST_MISMATCH,
    CERTIFICATE_NOT_TRUSTED,
    VALIDATION_FAILURE,
    TlsFacts,
    TlsRequirement,
    make_client_context,
)
from engine.net.trust import VERIFIED, Trust, bears_name, peer_chain

# Contexts differ by version, verification and our certificate, of which vmtas may have one each.
MAX_CONTEXTS = 256
# Stand-ins kept for the next handshake: one costs 0.09 ms to make, as much as resuming saves.
MAX_STAND_INS = 64

# X509_V_ERR_*, OpenSSL's x509_vfy.h: not yet valid, has expired; host name, IP address mismatch.
_RESULTS = {
    9: CERTIFICATE_EXPIRED,
    10: CERTIFICATE_EXPIRED,
    62: CERTIFICATE_HOST_MISMATCH,
    64: CERTIFICATE_HOST_MISMATCH,
}


class _StandIn(ssl.SSLContext):
    """Passed to the loop instead of the shared context; makes that context's object, with the ticket."""

    shared: ssl.SSLContext
    session: ssl.SSLSession | None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return self.shared.wrap_bio(incoming, outgoing, server_side, server_hostname, session or self.session)


class ClientContexts:
    """What all handshakes of a shard share."""

    def __init__(self, unix_clock: Callable[[], float] = time.time) -> None:
        self.unix_clock = unix_clock
        self.tickets = Tickets()
        self.trust = Trust()
        self._pem: dict[str, str] = {}
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
        self._stand_ins: list[_StandIn] = []

    def use(self, ca_file: str, pem: Mapping[str, str]) -> None:
        """Take over another generation of CA file ("": the system's) and certificates, texts by path."""
        ca_pem = pem[ca_file] if ca_file else ""
        if ca_pem == self.trust.ca_pem and pem == self._pem:
            return
        self.trust = Trust(ca_pem)
        self._pem = dict(pem)
        self._drop()

    def describe_offer(self, requirement: TlsRequirement, host: str) -> str:
        """Return what a peer's answer to our handshake depends on, in words: whatever changes them, a renewed
        certificate under the same path too, may change the answer."""
        offer = f"as {host}, TLS {requirement.minimum} or newer"
        if requirement.certificate:
            digest = hashlib.sha256(self._pem[requirement.certificate].encode()).hexdigest()[:12]
            offer += f", with {requirement.certificate} ({digest})"
        return offer

    def context_for(self, requirement: TlsRequirement, *, is_naming: bool) -> ssl.SSLContext:
        """Return the context that all such sessions share; `is_naming`: OpenSSL compares the name too."""
        is_verifying = requirement.mode == "verify"
        key = (is_verifying, is_naming, requirement.minimum, requirement.certificate, requirement.key)
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) >= MAX_CONTEXTS:
                self._drop()
            context = make_client_context(
                minimum=requirement.minimum, is_verifying=is_verifying, ca_pem=self.trust.ca_pem
            )
            context.check_hostname = is_verifying and is_naming
            if requirement.certificate:
                load_certificate(context, self._pem[requirement.certificate], self._pem[requirement.key])
            self._contexts[key] = context
        return context

    def _drop(self) -> None:
        self._contexts.clear()
        self.tickets.clear()  # a session belongs to its context

    @contextmanager
    def stand_in(self, shared: ssl.SSLContext, session: ssl.SSLSession | None) -> Iterator[ssl.SSLContext]:
        """Lend a context for one handshake."""
        found = self._stand_ins.pop() if self._stand_ins else _StandIn(ssl.PROTOCOL_TLS_CLIENT)
        found.shared, found.session = shared, session
        try:
            yield found
        finally:
            del found.shared, found.session
            if len(self._stand_ins) < MAX_STAND_INS:
                self._stand_ins.append(found)


class Handshake:
    """One handshake with one peer."""

    def __init__(
        self, contexts: ClientContexts, requirement: TlsRequirement, host: str, peer: tuple[str, int]
    ) -> None:
        """`host`: SNI and, unless the requirement has names, whom the certificate must name."""
        self._contexts = contexts
        self._requirement = requirement
        self._names = requirement.names or (host,)
        is_naming = self._names == (host,)
        self._context = contexts.context_for(requirement, is_naming=is_naming)
        self._must_compare = requirement.mode == "verify" and not is_naming
        self._key = (self._context, host, peer, requirement.verify_peer)
        self._ticket = contexts.tickets.take(self._key, contexts.unix_clock())

    @contextmanager
    def context(self) -> Iterator[ssl.SSLContext]:
        """Lend the context to hand to the loop, for as long as the handshake takes."""
        session = self._ticket.session if self._ticket is not None else None
        with self._contexts.stand_in(self._context, session) as context:
            yield context

    def failed(self, error: NetworkError) -> TlsFailed:
        """Return the error that the handshake's failure is, and forget the peer's tickets."""
        self._contexts.tickets.forget(self._key)
        result = error.result if isinstance(error, TlsFailed) else VALIDATION_FAILURE
        is_certain = isinstance(error, TlsFailed) and error.is_certain
        return TlsFailed(result, error.detail, was_resuming=self._ticket is not None, is_certain=is_certain)

    def check(self, ssl_object: ssl.SSLObject) -> TlsFacts:
        """Return what protects the session.

        Raises:
            TlsFailed: the peer's certificate is not the one that is required.
        """
        cipher = ssl_object.cipher()
        assert cipher is not None
        return TlsFacts(
            ssl_object.version() or "", cipher[0], self._verify(ssl_object), bool(ssl_object.session_reused)
        )

    def keep_ticket(self, ssl_object: ssl.SSLObject, facts: TlsFacts) -> None:
        """Keep what the peer gave for the next connection; in TLS 1.3 it comes behind the handshake."""
        if self._contexts.tickets.is_full(self._key):  # Python copies a session to show it: 0.16 ms
            return
        session = ssl_object.session
        if session is None or not (session.has_ticket or (facts.version == "TLSv1.2" and session.id)):
            return
        ticket = self._ticket if facts.is_resumed else None
        proven_at = ticket.proven_at if ticket is not None else self._contexts.unix_clock()
        self._contexts.tickets.put(self._key, Ticket(session, facts.verification, proven_at))

    def _verify(self, ssl_object: ssl.SSLObject) -> str:
        requirement = self._requirement
        if self._must_compare:
            own = ssl_object.getpeercert(binary_form=True) or b""
            if not bears_name(x509.load_der_x509_certificate(own), self._names):
                names = ", ".join(self._names)
                raise TlsFailed(CERTIFICATE_HOST_MISMATCH, f"the certificate names none of {names}")
        if requirement.verify_peer is not None:
            fault = requirement.verify_peer(ssl_object)
            if fault is not None:
                raise TlsFailed(*fault)
            return "dane" if requirement.mode != "verify" else VERIFIED
        if requirement.mode == "verify":
            return VERIFIED
        if ssl_object.session_reused and self._ticket is not None:
            return self._ticket.verification
        return self._contexts.trust.judge(peer_chain(ssl_object), self._names[0], self._contexts.unix_clock())


def explain(error: ssl.SSLError) -> TlsFailed:
    """Return a failed handshake in words, with its result type (RFC 8460 section 4.3)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        result = _RESULTS.get(error.verify_code, CERTIFICATE_NOT_TRUSTED)
        return TlsFailed(result, f"certificate: {error.verify_message}")
    is_lost = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    detail = getattr(error, "reason", None) or str(error)
    return TlsFailed(VALIDATION_FAILURE, detail, is_certain=not is_lost)


def load_certificate(context: ssl.SSLContext, certificate_pem: str, key_pem: str) -> None:
    """Give the context a certificate of our own, from texts.

    OpenSSL's call in the ssl module reads files only, so it gets one that is in memory: the key was
    read once, by whoever may, and touches no disk again.

    Raises:
        ssl.SSLError: no certificate, no key, or they do not belong together.
        ValueError: the key is encrypted.
    """
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(f"{certificate_pem}\n{key_pem}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_refuse_password)
    finally:
        os.close(descriptor)


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")
