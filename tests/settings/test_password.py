"""Hashes of passwords: their form, their bounds."""

from __future__ import annotations

import pytest

from engine.settings.password import (
    MIN_LOG2_N,
    format_password,
    hash_password,
    matches,
    parse_password,
)

SALT = b"0123456789abcdef"
HASHED = hash_password(b"secret", SALT, MIN_LOG2_N)
TEXT = format_password(HASHED)


def test_password_matches_its_hash_and_no_other() -> None:
    assert matches(HASHED, b"secret")
    assert not matches(HASHED, b"secret ")


def test_hash_is_that_of_rfc_7914() -> None:
    """RFC 7914 12: the vector with N = 16384, r = 8, p = 1, its first 32 octets."""
    vector = hash_password(b"pleaseletmein", b"SodiumChloride", 14)
    assert vector.key.hex() == "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"


def test_text_of_a_hash_is_read_back() -> None:
    assert parse_password(TEXT) == HASHED
    assert TEXT.startswith("scrypt:14:8:1:")


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        "",
        5,
        None,
        TEXT.replace("scrypt", "bcrypt"),
        TEXT[:-1],
        TEXT + "=",
        TEXT.replace(":14:", ":13:"),
        TEXT.replace(":14:", ":18:"),
        TEXT.replace(":8:", ":16:"),
        TEXT.replace(":8:1:", ":8:0:"),
        TEXT.replace(":8:1:", ":8:5:"),
    ],
)
def test_wrong_hash_is_refused_and_not_repeated(text: object) -> None:
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        parse_password(text)
    assert str(text or "scrypt;") not in str(caught.value)


def test_hash_does_not_show_in_logs() -> None:
    assert repr(HASHED) == "PasswordHash(...)"
