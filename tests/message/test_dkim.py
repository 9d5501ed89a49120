"""DKIM signatures, judged by dkimpy and opendkim."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from engine.message import dkim
from engine.message.dkim import (
    PrivateKey,
    Signer,
    load_key,
    relax_body,
    relax_header,
    select_fields,
    sign_message,
)

NOW = 1_767_225_600.5
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED25519_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = [pytest.param(RSA_KEY, id="rsa"), pytest.param(ED25519_KEY, id="ed25519")]

MESSAGE = (
    b"Received: from somewhere by mta1.example.net; Thu, 1 Jan 2026 00:00:00 +0000\r\n"
    b"From:  News  <news@acme.example>\r\n"
    b"To: a@example.net,\r\n\tb@example.net\r\n"
    b"SUBJECT: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n \r\n  folded   twice \r\n"
    b"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
    b"Message-ID: <1@acme.example>\r\n"
    b"X-Unsigned: whatever\r\n"
    b"\r\n"
    b"Dear  reader,\t \r\n\r\n  two spaces \t and tabs\r\n\r\n\r\n"
)


def format_record(key: PrivateKey) -> str:
    """Return the TXT record that publishes the key (RFC 6376 section 3.6.1, RFC 8463 section 4)."""
    if isinstance(key, rsa.RSAPrivateKey):
        kind, encoding, form = (
            "rsa",
            serialization.Encoding.DER,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )
    else:
        kind, encoding, form = "ed25519", serialization.Encoding.Raw, serialization.PublicFormat.Raw
    octets = key.public_key().public_bytes(encoding, form)
    return f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode()}"


def is_verified(message: bytes, key: PrivateKey = RSA_KEY) -> bool:
    record = format_record(key).encode()
    return bool(dkimpy.verify(message, dnsfunc=lambda name, timeout=5: record, minkey=1024))


def sign(message: bytes, key: PrivateKey = RSA_KEY) -> bytes:
    return Signer("acme.example", "s1", key).sign(message, NOW) + message


@pytest.mark.parametrize("key", KEYS)
def test_dkimpy_verifies_what_we_sign(key: PrivateKey) -> None:
    """RFC 6376 section 6.1."""
    assert is_verified(sign(MESSAGE, key), key)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"reader", b"Reader"),
        (b"To: a@", b"To: c@"),
        (b"News", b"Olds"),
        (b"From:", b"From: other@evil.example\r\nFrom:"),
        (b"X-Unsigned: whatever\r\n", b"From: other@evil.example\r\n"),
        (b"t=17", b"t=18"),
    ],
)
def test_changed_message_is_not_verified(key: PrivateKey, before: bytes, after: bytes) -> None:
    """RFC 6376 sections 6.1 and 8.15."""
    signed = sign(MESSAGE, key)
    assert before in signed
    assert not is_verified(signed.replace(before, after), key)


def test_unsigned_fields_may_change() -> None:
    assert is_verified(b"Received: by a relay\r\n" + sign(MESSAGE).replace(b"whatever", b"else"))


def test_both_keys_sign_one_message() -> None:
    """RFC 8463 section 3."""
    signers = [Signer("acme.example", "r", RSA_KEY), Signer("acme.example", "e", ED25519_KEY)]
    fields = sign_message(MESSAGE, signers, NOW)
    assert fields.count(b"DKIM-Signature:") == 2
    records = {b"r": format_record(RSA_KEY).encode(), b"e": format_record(ED25519_KEY).encode()}
    verifier = dkimpy.DKIM(fields + MESSAGE)
    for index in (0, 1):
        assert verifier.verify(index, dnsfunc=lambda name, timeout=5: records[name.partition(b".")[0]])


def test_field_says_what_was_signed_how_and_when() -> None:
    """RFC 6376 sections 3.5 and 8.15: From once more than it occurs."""
    field = sign(MESSAGE)[: -len(MESSAGE)]
    tags = dkimpy.util.parse_tag_value(field.partition(b":")[2])
    assert tags[b"v"] == b"1"
    assert tags[b"a"] == b"rsa-sha256"
    assert tags[b"c"] == b"relaxed/relaxed"
    assert (tags[b"d"], tags[b"s"], tags[b"t"]) == (b"acme.example", b"s1", b"1767225600")
    names = b"".join(tags[b"h"].split()).split(b":")
    assert names.count(b"from") == 2
    assert set(names) == {b"from", b"subject", b"date", b"message-id", b"to"}
    assert all(len(line) <= 78 for line in field.split(b"\r\n"))
    assert field.endswith(b"\r\n")


def test_long_list_of_fields_is_folded() -> None:
    header = b"".join(b"%b: x\r\n" % name.title() for name in dkim.SIGNED_FIELDS)
    signed = sign(header + b"\r\nbody\r\n")
    assert is_verified(signed)
    assert max(len(line) for line in signed.split(b"\r\n")) <= 78


def test_field_that_occurs_twice_is_signed_twice() -> None:
    """RFC 6376 section 5.4.2."""
    message = b"To: a@x.example\r\nFrom: a@acme.example\r\nTo: b@x.example\r\n\r\nbody\r\n"
    names, canonical = select_fields(message.partition(b"\r\n\r\n")[0])
    assert names == b"from:from:to:to"
    assert canonical == b"from:a@acme.example\r\nto:b@x.example\r\nto:a@x.example\r\n"
    assert is_verified(sign(message))


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n", b" \r\n", b" ", b"x", b"x \t", b"\t\r\n x"])
def test_short_bodies_are_verified(body: bytes) -> None:
    """RFC 6376 section 3.4.4."""
    assert is_verified(sign(b"From: a@acme.example\r\nSubject: s\r\n\r\n" + body))


def test_blanks_before_the_colon_are_no_part_of_the_name() -> None:
    """RFC 6376 section 3.4.2; dkimpy reads no such field."""
    spaced, usual = b"From : a@acme.example\r\nSubject\t : s\r\n", b"From: a@acme.example\r\nSubject: s\r\n"
    assert select_fields(spaced) == select_fields(usual)


def test_message_without_from_gets_no_signature() -> None:
    assert Signer("acme.example", "s1", RSA_KEY).sign(b"Subject: x\r\n\r\nbody\r\n", NOW) == b""


def test_message_of_a_header_alone_is_signed() -> None:
    assert is_verified(sign(b"From: a@acme.example\r\nSubject: x\r\n\r\n"))


def test_templates_are_bounded() -> None:
    signer = Signer("acme.example", "s1", ED25519_KEY)
    for count in range(2 * dkim.MAX_TEMPLATES):
        signer.sign(b"From: a@acme.example\r\n" + b"To: x\r\n" * count + b"\r\n", NOW)
    assert len(signer._templates) <= dkim.MAX_TEMPLATES


blanks = st.sampled_from([b" ", b"  ", b"\t", b" \t ", b"\r\n", b" \r\n", b"\t\r\n\r\n", b"\r\n\r\n"])
words = st.sampled_from([b"a", b"Word", b"=20", b".", b"\xc3\xa9", b"--x"])
texts = st.lists(st.one_of(blanks, words), max_size=40).map(b"".join)


@given(texts)
def test_body_is_what_dkimpy_makes_of_it(body: bytes) -> None:
    """RFC 6376 sections 3.4.2 and 3.4.4."""
    assert relax_body(body) == Relaxed.canonicalize_body(body)


folds = st.sampled_from([b" ", b"  ", b"\t", b"\r\n ", b"\r\n\t", b" \r\n  "])
values = st.lists(st.one_of(folds, words, st.just(b":")), max_size=12).map(b"".join)
field_names = st.sampled_from([b"From", b"TO", b"Subject", b"X-Other", b"List-Id"])
blank_names = st.sampled_from([b"from ", b"Date\t"])  # obsolete syntax that dkimpy canonicalizes, not parses
headers = st.lists(st.tuples(field_names, values), min_size=1, max_size=8)


@given(st.lists(st.tuples(field_names | blank_names, values), min_size=1, max_size=8))
def test_header_is_what_dkimpy_makes_of_it(fields: list[tuple[bytes, bytes]]) -> None:
    """RFC 6376 sections 3.4.2 and 3.4.4."""
    header = b"\r\n".join([name + b":" + value for name, value in fields])
    expected = Relaxed.canonicalize_headers([(name, value + b"\r\n") for name, value in fields])
    assert [(name, value + b"\r\n") for name, value in relax_header(header)] == expected


@given(headers, texts)
def test_dkimpy_verifies_any_message_we_sign(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    header = b"".join([name + b":" + value + b"\r\n" for name, value in fields])
    assert is_verified(sign(b"From: a@acme.example\r\n" + header + b"\r\n" + body))


@given(texts)
def test_body_hash_is_the_one_that_dkimpy_makes(body: bytes) -> None:
    message = b"From: a@acme.example\r\nSubject: s\r\n\r\n" + body
    ours = dkimpy.util.parse_tag_value(sign(message).partition(b":")[2].partition(b"\r\nFrom:")[0])
    pem = RSA_KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    theirs = dkimpy.sign(message, b"s1", b"acme.example", pem, canonicalize=(b"relaxed", b"relaxed"))
    assert ours[b"bh"] == dkimpy.util.parse_tag_value(theirs.partition(b":")[2])[b"bh"]


@pytest.mark.stranger("opendkim")
@pytest.mark.parametrize("key", KEYS)
def test_opendkim_verifies_what_we_sign(
    stranger: Callable[[str], str], tmp_path: Path, key: PrivateKey
) -> None:
    """RFC 6376 section 6.1."""
    assert "dkim=pass" in opendkim_says(stranger, tmp_path, sign(MESSAGE, key), key)


@pytest.mark.stranger("opendkim")
@pytest.mark.parametrize("key", KEYS)
def test_opendkim_refuses_a_changed_message(
    stranger: Callable[[str], str], tmp_path: Path, key: PrivateKey
) -> None:
    """RFC 6376 section 6.1."""
    changed = sign(MESSAGE, key).replace(b"reader", b"Reader")
    assert "dkim=fail" in opendkim_says(stranger, tmp_path, changed, key)


def opendkim_says(stranger: Callable[[str], str], tmp_path: Path, message: bytes, key: PrivateKey) -> str:
    (tmp_path / "keys").write_text(f"s1._domainkey.acme.example {format_record(key)}\n")
    (tmp_path / "conf").write_text(f"Mode v\nTestPublicKeys {tmp_path / 'keys'}\n")
    (tmp_path / "message").write_bytes(message)
    command = [stranger("opendkim"), "-x", tmp_path / "conf", "-t", tmp_path / "message", "-vvv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def pem_of(key: object, *, password: bytes = b"") -> bytes:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    octets: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden
    )
    return octets


@pytest.mark.parametrize("key", KEYS)
def test_key_file_is_read(key: PrivateKey) -> None:
    assert format_record(load_key(pem_of(key))) == format_record(key)


def test_bare_seed_is_an_ed25519_key() -> None:
    seed = base64.b64encode(bytes(range(32)))
    assert format_record(load_key(seed + b"\n")) == format_record(ED25519_KEY)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(b"", "expected a private key in PEM", id="empty"),
        pytest.param(b"bm90IGEgc2VlZA==", "Ed25519 seed in base64", id="short seed"),
        pytest.param(
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "unreadable", id="cut"
        ),
        pytest.param(pem_of(RSA_KEY, password=b"x"), "without a passphrase", id="encrypted"),
        pytest.param(pem_of(ec.generate_private_key(ec.SECP256R1())), "RSA or Ed25519", id="elliptic"),
    ],
)
def test_what_is_no_key_is_refused_with_what_was_expected(text: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_key(text)


def test_rsa_key_that_nobody_would_believe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8301 section 3.2: at least 1,024 bits. The bound moves: OpenSSL makes no such key."""
    assert dkim.MIN_RSA_BITS == 1024
    monkeypatch.setattr(dkim, "MIN_RSA_BITS", 2049)
    with pytest.raises(ValueError, match="2048"):
        load_key(pem_of(RSA_KEY))
