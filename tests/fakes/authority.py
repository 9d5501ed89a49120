"""A certificate authority of the tests' own: roots, intermediates, leaves, as PEM files and DER.

ca = Authority("Test Root")
leaf = ca.issue("mx.example")          leaf.der, leaf.key_der, leaf.write(path)
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate with its key; a CA may issue others."""

    def __init__(
        self,
        name: str,
        issuer: Authority | None = None,
        *,
        is_ca: bool = True,
        days: int = 30,
        others: Sequence[str] = (),
        path_length: int | None = None,
        permitted: Sequence[str] = (),
        excluded: Sequence[str] = (),
        signs: bool | None = None,
    ) -> None:
        """Args:
        days: how long it is valid from now; negative: it ended so long ago.
        others: further names.
        path_length, permitted, excluded: limits of a CA; signs: what its key usage says, if it has one.
        """
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.issuer = issuer
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * _DAY)
            .not_valid_after(now + days * _DAY)
            .add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
        )
        if permitted or excluded:
            allowed, denied = (
                [x509.DNSName(each) for each in some] or None for some in (permitted, excluded)
            )
            builder = builder.add_extension(x509.NameConstraints(allowed, denied), critical=True)
        if signs is not None:
            usage = x509.KeyUsage(True, *[False] * 4, signs, *[False] * 3)
            builder = builder.add_extension(usage, critical=True)
        if not is_ca:
            names = [x509.DNSName(each) for each in (name, *others)]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self.certificate = builder.sign((issuer or self).key, hashes.SHA256())

    def issue(self, name: str, *, days: int = 30, others: Sequence[str] = ()) -> Authority:
        """Return a certificate for a host."""
        return Authority(name, self, is_ca=False, days=days, others=others)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_der(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, path: Path, *, with_chain: bool = True) -> Path:
        """Write key and certificate, and those above it, as one PEM file."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        above, chain = self.issuer, b""
        while with_chain and above is not None:
            chain += above.pem
            above = above.issuer
        path.write_bytes(private + self.pem + chain)
        path.chmod(0o600)
        return path

    def write_certificate(self, path: Path) -> Path:
        """Write the certificate alone, as a list of CAs has it."""
        path.write_bytes(self.pem)
        return path
