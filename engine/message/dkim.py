"""DKIM signatures: relaxed/relaxed, RSA-SHA256 and Ed25519-SHA256. HOT.

RFC 6376 and RFC 8463. The body is canonicalized and hashed once, however many keys sign. Whole-block byte
operations take the place of the reference's regular expressions, which cost more than the RSA operation.

From is signed once more than it occurs (oversigned), so that a second From added later breaks the
signature; other fields are signed as often as they occur. No l=, no x=, no i=: what is signed is the whole
message, for as long as the key is published.

Owns: canonical forms, the DKIM-Signature field.
Never: chooses keys (the acceptor does, by the domain of From), verifies.
Fails: ValueError from `load_key`, saying what was expected.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

MIN_RSA_BITS = 1024  # RFC 8301 section 3.2: signers MUST use at least these, SHOULD use 2048
ED25519_SEED_BYTES = 32  # RFC 8032 section 5.1.5

# RFC 6376 section 5.4.1, and what bulk mail is judged by: RFC 2369 and RFC 8058 list fields, MIME structure.
# Not those that relays add or change: Received, Return-Path, Authentication-Results.
SIGNED_FIELDS = (
    b"from sender reply-to subject date message-id to cc mime-version content-type content-transfer-encoding "
    b"in-reply-to references resent-from resent-sender resent-to resent-cc resent-date resent-message-id "
    b"list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner "
    b"list-archive feedback-id"
).split()

MAX_TEMPLATES = 64  # combinations of fields that a key has met; a customer's mail has a handful
FOLD_AT = 74  # RFC 5322 section 2.1.1: lines SHOULD be at most 78; a tab and b= stand before


class Signer:
    """One key of one domain."""

    __slots__ = ("_algorithm", "_key", "_templates", "domain", "selector")

    def __init__(self, domain: str, selector: str, key: PrivateKey) -> None:
        """`domain` and `selector` as A-labels: where the public key is published."""
        self.domain = domain
        self.selector = selector
        self._key = key
        self._algorithm = "rsa-sha256" if isinstance(key, RSAPrivateKey) else "ed25519-sha256"
        self._templates: dict[bytes, tuple[bytes, bytes]] = {}

    def sign(self, message: bytes, now: float) -> bytes:
        """Return the DKIM-Signature field for a message, to be put before it. See `sign_message`."""
        return sign_message(message, (self,), now)

    def make_field(self, names: bytes, canonical: bytes, tail: bytes) -> bytes:
        """Return the field over canonical header fields; `tail` is what follows h= up to the value of b=."""
        template = self._templates.get(names)
        if template is None:
            template = self._make_template(names)
        written, relaxed = template
        signature = self._sign_octets(b"".join((canonical, relaxed, tail.replace(b"\r\n\t", b" "))))
        value = base64.b64encode(signature)
        folded = [value[at : at + FOLD_AT] for at in range(0, len(value), FOLD_AT)]
        return b"".join((written, tail, b"\r\n\t".join(folded), b"\r\n"))

    def _sign_octets(self, data: bytes) -> bytes:
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(data, _PADDING, _SHA256)
        return self._key.sign(sha256(data).digest())  # RFC 8463 section 3: the hash is what is signed

    def _make_template(self, names: bytes) -> tuple[bytes, bytes]:
        """Return the field up to h=, as written and as canonicalized: a fold is one space in the latter."""
        head = f" v=1; a={self._algorithm}; c=relaxed/relaxed; d={self.domain};\r\n\ts={self.selector};"
        value = head.encode() + b"\r\n\th=" + _fold_names(names) + b";"
        relaxed = value.replace(b"\r\n\t", b" ")
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        template = (b"DKIM-Signature:" + value, b"dkim-signature:" + relaxed[1:])
        self._templates[names] = template
        return template


_PADDING = PKCS1v15()
_SHA256 = hashes.SHA256()


def sign_message(message: bytes, signers: Sequence[Signer], now: float) -> bytes:
    """Return one DKIM-Signature field per signer, to be put before the message.

    Args:
        message: header and body with CRLF lines, complete: nothing signed may be added later.
        now: Unix UTC seconds, for t=.

    Returns:
        Fields ended by CRLF; b"" where there is no From, which RFC 6376 section 5.4 demands.
    """
    end = message.find(b"\r\n\r\n")
    header = message[:end] if end >= 0 else message
    names, canonical = select_fields(header)
    if not names:
        return b""
    body = relax_body(message[end + 4 :]) if end >= 0 else b""
    body_hash = binascii.b2a_base64(sha256(body).digest(), newline=False)
    tail = b"\r\n\tt=%d; bh=%b;\r\n\tb=" % (now, body_hash)
    return b"".join([signer.make_field(names, canonical, tail) for signer in signers])


def relax_body(body: bytes) -> bytes:
    """Return the relaxed canonical body (RFC 6376 section 3.4.4).

    Runs of blanks become one space, those before a line's end nothing, empty lines at the end go.
    """
    body = _relax_blanks(body).replace(b" \r\n", b"\r\n")
    if not body.endswith(b"\r\n"):
        return body + b"\r\n" if body else b""
    end = len(body)
    while body.endswith(b"\r\n", 0, end):
        end -= 2
    return body[: end + 2] if end else b""


def relax_header(header: bytes) -> list[tuple[bytes, bytes]]:
    """Return (name, value) of each field in relaxed form (RFC 6376 section 3.4.2), top to bottom."""
    unfolded = header.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    fields = []
    for line in _relax_blanks(unfolded).split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name.rstrip(b" ").lower(), value.strip(b" ")))
    return fields


def select_fields(header: bytes) -> tuple[bytes, bytes]:
    """Return what h= lists, and those fields in canonical form, in that order.

    Of a name that occurs several times the last one comes first (RFC 6376 section 5.4.2). The surplus
    "from" stands for a field that is not there and adds nothing to the canonical form.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in relax_header(header):
        if name in _SIGNED:
            found.setdefault(name, []).append(value)
    if b"from" not in found:
        return b"", b""
    names, canonical = [b"from"], []
    for name in SIGNED_FIELDS:
        for value in reversed(found.get(name, ())):
            names.append(name)
            canonical.append(b"%b:%b\r\n" % (name, value))
    return b":".join(names), b"".join(canonical)


_SIGNED = frozenset(SIGNED_FIELDS)


def _relax_blanks(text: bytes) -> bytes:
    """Make every run of spaces and tabs one space. Each pass halves what is left of a run."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def _fold_names(names: bytes) -> bytes:
    """Fold an h= list after colons (RFC 6376 section 3.5 allows FWS there)."""
    lines, line = [], b"h="
    for name in names.split(b":"):
        if len(line) + len(name) >= FOLD_AT:
            lines.append(line)
            line = b""
        line += name + b":"
    lines.append(line[:-1])
    return b"\r\n\t".join(lines)[2:]


def load_key(text: bytes) -> PrivateKey:
    """Return the private key of a key file's content.

    Takes PEM (PKCS#1 or PKCS#8, RSA or Ed25519), and for Ed25519 the bare base64 seed that dknewkey writes.

    Raises:
        ValueError: it holds no such key; the text says what was expected and found.
    """
    if b"-----BEGIN" not in text:
        return _load_seed(text)
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError as error:
        raise ValueError("expected a private key without a passphrase, got an encrypted one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("expected an RSA or Ed25519 private key in PEM, got something unreadable") from error
    if isinstance(key, Ed25519PrivateKey):
        return key
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"expected an RSA or Ed25519 private key, got {type(key).__name__}")
    if key.key_size < MIN_RSA_BITS:
        raise ValueError(f"expected an RSA key of at least {MIN_RSA_BITS} bits, got {key.key_size}")
    return key


def _load_seed(text: bytes) -> Ed25519PrivateKey:
    try:
        seed = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        seed = b""
    if len(seed) != ED25519_SEED_BYTES:
        raise ValueError("expected a private key in PEM, or an Ed25519 seed in base64")
    return Ed25519PrivateKey.from_private_bytes(seed)
