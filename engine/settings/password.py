"""Passwords of injectors, as `mailrail.toml` keeps them: scrypt hashes.

    scrypt:LOG2N:R:P:SALT:KEY        salt and key in base64 without padding

The cost is bounded at both ends: too cheap a hash is guessed when the file leaks, too dear a one lets anybody
who can connect spend our memory (128 * r * 2^LOG2N octets a try).

Owns: the form of a hash, its bounds, the comparison.
Never: draws a salt (the caller does); run `matches` off the loop, it takes tens of milliseconds.
Source: RFC 7914.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

import msgspec

MIN_LOG2_N, MAX_LOG2_N = 14, 17  # 16 to 128 MiB with r = 8
MAX_R, MAX_P = 8, 4
DEFAULT_LOG2_N, DEFAULT_R, DEFAULT_P = 15, 8, 1  # 32 MiB, some 80 ms
SALT_BYTES = 16
KEY_BYTES = 32

_FORM = re.compile(r"scrypt:(\d{1,2}):(\d{1,2}):(\d{1,2}):([A-Za-z0-9+/]{16,88}):([A-Za-z0-9+/]{43})")


class PasswordHash(msgspec.Struct, frozen=True):
    """A salted hash and what it costs."""

    log2_n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    @property
    def cost(self) -> int:
        """How it compares with others in time."""
        return self.r * self.p << self.log2_n

    def __repr__(self) -> str:
        return "PasswordHash(...)"  # not into a log


def parse_password(value: object) -> PasswordHash:
    """Return the hash that a text has.

    Raises:
        ValueError: another form, or a cost out of bounds; says so without repeating it.
    """
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a hash as `mailrail password` prints it (scrypt:...)")
    log2_n, r, p = int(found[1]), int(found[2]), int(found[3])
    if not (MIN_LOG2_N <= log2_n <= MAX_LOG2_N and r == MAX_R and 1 <= p <= MAX_P):
        raise ValueError(f"expected a cost of log2 N {MIN_LOG2_N} to {MAX_LOG2_N}, r {MAX_R}, p 1 to {MAX_P}")
    try:
        return PasswordHash(log2_n, r, p, _decode(found[4]), _decode(found[5]))
    except binascii.Error:
        raise ValueError("expected salt and key in base64 without padding") from None


def format_password(hashed: PasswordHash) -> str:
    """Return the text that `parse_password` reads."""
    cost = f"{hashed.log2_n}:{hashed.r}:{hashed.p}"
    return f"scrypt:{cost}:{_encode(hashed.salt)}:{_encode(hashed.key)}"


def hash_password(password: bytes, salt: bytes, log2_n: int = DEFAULT_LOG2_N) -> PasswordHash:
    """Return the hash of a password; slow on purpose."""
    blank = PasswordHash(log2_n, DEFAULT_R, DEFAULT_P, salt, b"")
    return msgspec.structs.replace(blank, key=_derive(blank, password))


def matches(hashed: PasswordHash, password: bytes) -> bool:
    """Return whether that is the password; slow on purpose, and as slow when it is not."""
    return hmac.compare_digest(_derive(hashed, password), hashed.key)


def _derive(hashed: PasswordHash, password: bytes) -> bytes:
    n = 1 << hashed.log2_n
    return hashlib.scrypt(
        password,
        salt=hashed.salt,
        n=n,
        r=hashed.r,
        p=hashed.p,
        dklen=KEY_BYTES,
        maxmem=128 * hashed.r * (n + hashed.p + 2) + (1 << 20),  # OpenSSL refuses more than 32 MiB else
    )


def _encode(octets: bytes) -> str:
    return base64.b64encode(octets).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
