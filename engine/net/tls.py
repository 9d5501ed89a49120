"""What a session asks of TLS, how that ended, and the contexts for the client's side.

`TlsRequirement` goes into each try to open a session (`net.connect.open_session`); a `TlsOutcome` comes
back with the session or its rejection, or is what `TlsFailed` says (`result`, `detail`). DANE, MTA-STS and
REQUIRETLS are requirements like others: they raise the mode, or bring a check of their own.

Owns: which versions, ciphers and proofs we ask of a peer; the result types of RFC 8460.
Never: decides what a session requires (policy does, and what is published of the domain), opens anything.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import msgspec

MINIMUM_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# Result types, RFC 8460 section 4.3. What ends well, or was never asked for, is none of them.
SUCCESS = "success"
NOT_ASKED = ""
STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
CERTIFICATE_EXPIRED = "certificate-expired"
CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
VALIDATION_FAILURE = "validation-failure"  # whatever else: the handshake itself, too

# What a check of the peer's certificate says: None where it is the right one, else a result type, and words.
PeerCheck = Callable[[ssl.SSLObject], tuple[str, str] | None]


class TlsRequirement(msgspec.Struct, frozen=True, kw_only=True):
    """What one session needs before mail may go through it.

    Modes: "none", never asked for. "opportunistic", used where it is offered, whatever the certificate.
    "required", in clear never. "verify", the same, and the certificate leads to a trusted root and
    bears one of `names` (RFC 9525).

    DANE is "required" with a `verify_peer` that compares TLSA records with the chain; with records of
    which none can be used it is "required" alone (RFC 7672 section 2.2).
    """

    mode: str
    minimum: str = "1.2"
    names: tuple[str, ...] = ()  # of "verify", reference identities; (): the host that is connected to
    server_name: str = ""  # SNI; "": the host that is connected to
    certificate: str = ""  # ours, as files of the policy: both or neither
    key: str = ""
    verify_peer: PeerCheck | None = None  # asked after each handshake; only equal ones share tickets

    @property
    def allows_clear(self) -> bool:
        """Whether mail may go in clear where TLS can't be had."""
        return self.mode in ("none", "opportunistic")


CLEAR = TlsRequirement(mode="none")


class TlsFacts(msgspec.Struct, frozen=True, gc=False):
    """What protects a session.

    `verification`: "verified" by name and trusted root, "dane" by the requirement's own check; else the
    result type that such verification would have had ("opportunistic" and "required" go on regardless).
    """

    version: str  # "TLSv1.3"
    cipher: str
    verification: str
    is_resumed: bool

    @property
    def is_verified(self) -> bool:
        return self.verification in ("verified", "dane")


class TlsOutcome(msgspec.Struct, frozen=True, gc=False):
    """How TLS ended with a peer: SUCCESS, NOT_ASKED or a result type; `detail` says more, to people."""

    result: str
    detail: str = ""
    facts: TlsFacts | None = None


def make_client_context(
    *, minimum: str = "1.2", is_verifying: bool = False, ca_pem: str = ""
) -> ssl.SSLContext:
    """Return a context for STARTTLS; share it between sessions (one takes 0.3 MB when verifying).

    `ca_pem` holds the roots to trust; "" stands for those of the system.

    Without verification any certificate will do, a weak or expired one too: what it protects from is
    the listener on the line, and the alternative is clear text (RFC 7435). So the security level is
    OpenSSL's lowest there, which lets 1,024-bit certificates pass; the version is not.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = MINIMUM_VERSIONS[minimum]
    context.options |= ssl.OP_NO_COMPRESSION
    if is_verifying:
        context.hostname_checks_common_name = False  # RFC 9525 section 2: only subjectAltName counts
        if ca_pem:
            context.load_verify_locations(cadata=ca_pem)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
