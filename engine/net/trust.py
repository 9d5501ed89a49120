"""Certificates: whom one names, what the peer sent, and whether it would have passed.

The handshake itself verifies where policy asks for it (OpenSSL does). Where policy does not, the chain is
judged afterwards, so that events can say who could be asked for more: OpenSSL's own finding, which it makes
even then, is not to be had from Python. The judge is cryptography's verifier, held to what OpenSSL
wants: as it comes it follows the profile of the web's authorities, and fails most private ones.

Owns: RFC 9525 (names), the trusted roots as text.
Never: ends a session.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from engine.net.tls import (
    CERTIFICATE_EXPIRED,
    CERTIFICATE_HOST_MISMATCH,
    CERTIFICATE_NOT_TRUSTED,
    VALIDATION_FAILURE,
)

VERIFIED = "verified"
_DER = 2  # _ssl.ENCODING_DER


def peer_chain(ssl_object: ssl.SSLObject) -> list[bytes]:
    """Return the certificates that the peer sent, as DER, its own first; [] for a resumed session.

    DANE-TA is checked against these, DANE-EE against the first. Python has this since 3.13; before, only
    the object underneath does (since 3.10). A resumed session knows the peer's own certificate
    (`getpeercert`) and nothing above it: there, what the first handshake proved has to do.
    """
    if hasattr(ssl_object, "get_unverified_chain"):
        return list(ssl_object.get_unverified_chain())
    found: list[Any] | None = ssl_object._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return [each.public_bytes(_DER) for each in found or ()]


def bears_name(certificate: x509.Certificate, names: Iterable[str]) -> bool:
    """Return whether the certificate names one of `names`, A-labels or addresses (RFC 9525 section 6).

    Only subjectAltName counts, the subject's common name does not (section 2); a wildcard stands for
    the whole leftmost label, once (section 6.3).
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    presented = [each.lower() for each in found.get_values_for_type(x509.DNSName)]
    addresses = set(found.get_values_for_type(x509.IPAddress))
    return any(_is_borne(name, presented, addresses) for name in names)


def _is_borne(name: str, presented: list[str], addresses: set[Any]) -> bool:
    address = _address_of(name)
    if address is not None:
        return address in addresses
    name = name.lower().rstrip(".")
    _, _, above = name.partition(".")
    return name in presented or (bool(above) and f"*.{above}" in presented)


def _address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _require_authority(_policy: object, _certificate: object, found: x509.BasicConstraints) -> None:
    if not found.ca:
        raise ValueError("it is no authority's")


def _require_signing(_policy: object, _certificate: object, found: x509.KeyUsage | None) -> None:
    if found is not None and not found.key_cert_sign:
        raise ValueError("it may not sign certificates")


def _require_server(_policy: object, _certificate: object, found: x509.ExtendedKeyUsage | None) -> None:
    if found is not None and ExtendedKeyUsageOID.SERVER_AUTH not in found:
        raise ValueError("it is not for servers")


# What OpenSSL asks of extensions (X509_check_ca, X509_check_purpose), in cryptography's words.
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _require_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_signing)
)
_SERVER = (
    ExtensionPolicy.permit_all()
    .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_server)
)


class Trust:
    """The roots that are trusted: the text of a CA file, or what the system has."""

    def __init__(self, ca_pem: str = "") -> None:
        self.ca_pem = ca_pem
        self._store: Store | None = None
        self._is_loaded = False

    def judge(self, chain: Sequence[bytes], name: str, unix_now: float) -> str:
        """Return VERIFIED, or the result type (RFC 8460) that verification would have had."""
        if not chain:
            return VALIDATION_FAILURE
        try:
            leaf, *others = (x509.load_der_x509_certificate(each) for each in chain)
        except ValueError:
            return VALIDATION_FAILURE
        at = datetime.datetime.fromtimestamp(unix_now, datetime.UTC)
        if self._passes(leaf, others, name, at):
            return VERIFIED
        if not leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc:
            return CERTIFICATE_EXPIRED
        return CERTIFICATE_NOT_TRUSTED if bears_name(leaf, [name]) else CERTIFICATE_HOST_MISMATCH

    def _passes(
        self, leaf: x509.Certificate, others: list[x509.Certificate], name: str, at: datetime.datetime
    ) -> bool:
        store = self._load()
        if store is None:
            return False
        address = _address_of(name)
        try:
            subject = x509.DNSName(name) if address is None else x509.IPAddress(address)
            policy = PolicyBuilder().store(store).time(at)
            policy = policy.extension_policies(ca_policy=_AUTHORITY, ee_policy=_SERVER)
            policy.build_server_verifier(subject).verify(leaf, others)
        except (VerificationError, ValueError):  # ValueError: a name that no certificate can carry
            return False
        return True

    def _load(self) -> Store | None:
        """Load the roots when they are first needed (2 ms); None where there are none."""
        if not self._is_loaded:
            self._is_loaded = True
            with warnings.catch_warnings():  # of old roots with odd serial numbers
                warnings.simplefilter("ignore")
                found = x509.load_pem_x509_certificates(self._pem()) if self._pem() else []
                self._store = Store(found) if found else None
        return self._store

    def _pem(self) -> bytes:
        if self.ca_pem:
            return self.ca_pem.encode()
        file = ssl.get_default_verify_paths().cafile
        return Path(file).read_bytes() if file else b""
