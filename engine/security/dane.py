"""TLSA records, and whether a certificate chain agrees with them.

Usages 2 (DANE-TA) and 3 (DANE-EE) only: 0 and 1 would need a list of CAs that both ends agree on, and for
mail there is none (RFC 7672 section 3.1.3). Of usage 3 nothing but the match counts: names and dates in the
certificate do not, DNSSEC has bound the key to the host already (RFC 7672 section 3.1.1).

Owns: the form of TLSA records, which of them can be used, the match of a chain.
Never: asks DNS, speaks TLS, reads a clock.
Fails: a certificate that can't be read matches nothing.
Source: RFC 6698 section 2.1, RFC 7671 sections 5 to 9, RFC 7672 section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from engine.security.authority import has_issued, names_of, permits
from engine.security.sts import matches

DANE_TA, DANE_EE = 2, 3
_DIGESTS = {1: ("sha256", 32), 2: ("sha512", 64)}  # RFC 6698 section 2.1.3, and their octets

# RFC 7672 leaves it to us. A chain that a mail host sends has 2 to 4; each costs a signature to check.
MAX_CHAIN = 10


# What is wrong with a chain: a date, the names, or anything else.
DATES, NAMES, OTHER = "dates", "names", ""


class ChainFault(NamedTuple):
    """Why a chain agrees with no record."""

    kind: str
    detail: str


class TLSARecord(msgspec.Struct, frozen=True, gc=False):
    """One record. `data` is a digest, or the certificate or key itself (matching type 0)."""

    usage: int
    selector: int  # 0: the whole certificate, 1: its SubjectPublicKeyInfo
    matching_type: int  # 0: exact, 1: SHA-256, 2: SHA-512
    data: bytes

    @property
    def is_usable(self) -> bool:
        """Return whether it can vouch for a mail host (RFC 7672 section 3.1.3)."""
        if self.usage not in (DANE_TA, DANE_EE) or self.selector not in (0, 1):
            return False
        if self.matching_type == 0:
            return _is_readable(self.selector, self.data)
        return self.matching_type in _DIGESTS and len(self.data) == _DIGESTS[self.matching_type][1]

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching_type} {self.data.hex()}"


def parse_tlsa(text: str) -> TLSARecord:
    """Return the record of its presentation form; the data may hold blanks.

    Raises:
        ValueError: it is none.
    """
    usage, selector, matching_type, data = text.split(maxsplit=3)
    return TLSARecord(int(usage), int(selector), int(matching_type), bytes.fromhex(data))


def usable(records: Iterable[TLSARecord]) -> tuple[TLSARecord, ...]:
    """Return the records that can vouch for a host; of each usage and selector, the strongest digests only.

    RFC 7671 section 9: where a record set has digests of more than one kind for a usage and selector, the
    weaker ones are not looked at, so that nobody who can forge those gains by it.
    """
    kept = [record for record in records if record.is_usable]
    strongest: dict[tuple[int, int], int] = {}
    for record in kept:
        key = record.usage, record.selector
        strongest[key] = max(strongest.get(key, 0), record.matching_type)
    return tuple(
        record for record in kept if record.matching_type in (0, strongest[record.usage, record.selector])
    )


def has_anchor(records: Iterable[TLSARecord]) -> bool:
    """Return whether a usable record is of a trust anchor: names of certificates matter then."""
    return any(record.usage == DANE_TA for record in usable(records))


def verify_chain(
    records: Sequence[TLSARecord], chain: Sequence[bytes], names: Collection[str], unix_now: float
) -> ChainFault | None:
    """Return None where the chain agrees with one of the records, else what is wrong with it.

    Args:
        records: usable ones.
        chain: DER, the peer's own certificate first, as the peer sent them.
        names: of the host, for usage 2: its TLSA base domain and the domain whose mail it takes (RFC 7672
            section 3.2.2).
    """
    if not chain:
        return ChainFault(OTHER, "the peer sent no certificate")
    certificates = [_load(der) for der in chain[:MAX_CHAIN]]
    leaf = certificates[0]
    if any(record.usage == DANE_EE and _agrees(record, leaf, chain[0]) for record in records):
        return None
    anchors = [record for record in records if record.usage == DANE_TA]
    if not anchors:
        return ChainFault(OTHER, "its certificate agrees with no TLSA record")
    if leaf is None:
        return ChainFault(OTHER, "its certificate can't be read")
    fault = _check_path(anchors, leaf, certificates[1:], chain, unix_now)
    if fault is not None:
        return fault
    if not any(matches(pattern, name) for pattern in names_of(leaf) for name in names):
        return ChainFault(NAMES, f"its certificate is for none of {', '.join(sorted(names))}")
    return None


def _check_path(
    anchors: Sequence[TLSARecord],
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate | None],
    chain: Sequence[bytes],
    unix_now: float,
) -> ChainFault | None:
    """Walk from the leaf upwards until a certificate agrees with a trust anchor."""
    now = datetime.fromtimestamp(unix_now, UTC)
    if not _is_valid_at(leaf, now):
        return ChainFault(DATES, "its certificate is not valid at this time")
    # A trust anchor may be left out of the chain where the record holds all of it (RFC 7671 section 5.2.3).
    held = [
        certificate
        for record in anchors
        if record.matching_type == 0 and record.selector == 0 and (certificate := _load(record.data))
    ]
    path = [leaf]
    for certificate, der in zip(others, chain[1:], strict=False):
        if any(has_issued(anchor, path[-1]) for anchor in held):
            return _check_limits(path)
        if certificate is None or not has_issued(certificate, path[-1]):
            return ChainFault(OTHER, "its certificates are not a chain")
        if any(_agrees(record, certificate, der) for record in anchors):
            # Dates and limits of a trust anchor itself do not count: it is the record that is trusted.
            return _check_limits(path)
        if not _is_valid_at(certificate, now):
            return ChainFault(DATES, "a certificate of its chain is not valid at this time")
        path.append(certificate)
    if any(has_issued(anchor, path[-1]) for anchor in held):
        return _check_limits(path)
    return ChainFault(OTHER, "no certificate of its chain agrees with a TLSA record")


def _check_limits(path: Sequence[x509.Certificate]) -> ChainFault | None:
    """Return which authority between leaf and anchor is not entitled to what is below it."""
    for below, authority in enumerate(path[1:]):
        if not permits(authority, path[0], below):
            return ChainFault(OTHER, "an authority of its chain may not vouch for it")
    return None


def _agrees(record: TLSARecord, certificate: x509.Certificate | None, der: bytes) -> bool:
    """Return whether a certificate is what the record says (RFC 6698 section 2.1)."""
    if record.selector == 0:
        selected = der
    elif certificate is None:
        return False
    else:
        selected = _key_of(certificate)
    if record.matching_type == 0:
        return selected == record.data
    return hashlib.new(_DIGESTS[record.matching_type][0], selected).digest() == record.data


def _is_valid_at(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _key_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _load(der: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        return None


def _is_readable(selector: int, data: bytes) -> bool:
    """A record that holds a whole certificate can be used only where that can be read (RFC 7671 4.1)."""
    return bool(data) and (selector == 1 or _load(data) is not None)
