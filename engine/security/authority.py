"""What a certificate authority has signed, and what it may: between a peer's certificate and a trust anchor.

OpenSSL checks this where it verifies. Below a trust anchor that only a TLSA record names, we do.

Owns: the check of one link: the signature, CA, the length of the path, the constraints on DNS names.
Never: knows which anchor is trusted, compares the peer's name.
Fails: what can't be read permits nothing.
Source: RFC 5280 sections 4.2.1.3, 4.2.1.9 and 4.2.1.10.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Return whether `issuer` is a CA and has signed `certificate`."""
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        return False
    return constraints.ca


def permits(authority: x509.Certificate, leaf: x509.Certificate, below: int) -> bool:
    """Return whether a CA may have a leaf below it, and so many further CAs between them."""
    try:
        extensions = authority.extensions
        length = extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if length is not None and below > length:
            return False
        usage = _find(extensions, x509.KeyUsage)
        if usage is not None and not usage.key_cert_sign:
            return False
        constraints = _find(extensions, x509.NameConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    if constraints is None:
        return True
    names = names_of(leaf)
    allowed = _dns_names(constraints.permitted_subtrees)
    if allowed and not all(any(_is_within(name, each) for each in allowed) for name in names):
        return False
    return not any(
        _is_within(name, each) for name in names for each in _dns_names(constraints.excluded_subtrees)
    )


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names that a certificate is for, in lower case."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _find(extensions: x509.Extensions, kind: type[_Kind]) -> _Kind | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _dns_names(subtrees: Iterable[x509.GeneralName] | None) -> list[str]:
    return [each.value.lower().lstrip(".") for each in subtrees or () if isinstance(each, x509.DNSName)]


def _is_within(name: str, subtree: str) -> bool:
    """RFC 5280 section 4.2.1.10: labels may be added on the left; the empty subtree holds every name."""
    return not subtree or name == subtree or name.endswith("." + subtree)
