"""Contexts for the client side of TLS.

Owns: which versions, ciphers and proofs we ask of a peer.
Never: decides whether a session needs TLS (policy does), opens anything.
"""

from __future__ import annotations

import ssl

import msgspec

MINIMUM_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TLSFacts(msgspec.Struct, frozen=True, gc=False):
    """What protects a session: for events and for the choice of messages that may use it."""

    version: str  # "TLSv1.3"
    cipher: str
    is_verified: bool


def make_client_context(*, minimum: str = "1.2", is_verifying: bool = False) -> ssl.SSLContext:
    """Return a context for STARTTLS; share it between sessions (one takes 0.3 MB when verifying).

    Without verification any certificate will do, a weak or expired one too: what it protects from is
    the listener on the line, and the alternative is clear text (RFC 7435). So the security level is
    OpenSSL's lowest there, which lets 1,024-bit certificates pass; the version is not.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = MINIMUM_VERSIONS[minimum]
    context.options |= ssl.OP_NO_COMPRESSION
    if is_verifying:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
