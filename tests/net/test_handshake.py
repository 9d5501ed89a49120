"""handshake: contexts that are shared, certificates of our own, failures in words."""

from __future__ import annotations

import ssl

import pytest

from engine.core.errors import NetworkError
from engine.net.handshake import MAX_CONTEXTS, ClientContexts, Handshake, explain, load_certificate
from engine.net.tls import TlsRequirement, make_client_context
from tests.fakes.authority import Authority

VERIFY = TlsRequirement(mode="verify")
REQUIRED = TlsRequirement(mode="required")
OURS = Authority("Ours").issue("mail1.acme.example")


def test_sessions_that_ask_the_same_share_a_context():
    contexts = ClientContexts()
    first = contexts.context_for(REQUIRED, is_naming=True)
    assert contexts.context_for(TlsRequirement(mode="opportunistic"), is_naming=True) is first
    assert contexts.context_for(VERIFY, is_naming=True) is not first
    assert contexts.context_for(TlsRequirement(mode="required", minimum="1.3"), is_naming=True) is not first


def test_openssl_compares_the_name_unless_the_requirement_has_others():
    contexts = ClientContexts()
    assert contexts.context_for(VERIFY, is_naming=True).check_hostname
    other = contexts.context_for(VERIFY, is_naming=False)
    assert not other.check_hostname
    assert other.verify_mode is ssl.CERT_REQUIRED


def test_other_roots_make_other_contexts_and_the_same_roots_do_not():
    contexts = ClientContexts()
    pem = {"roots.pem": OURS.issuer.pem.decode()}
    contexts.use("roots.pem", pem)
    first = contexts.context_for(VERIFY, is_naming=True)
    contexts.use("roots.pem", dict(pem))
    assert contexts.context_for(VERIFY, is_naming=True) is first
    contexts.use("", {})
    assert contexts.context_for(VERIFY, is_naming=True) is not first


def test_contexts_have_a_bound(monkeypatch):
    monkeypatch.setattr("engine.net.handshake.MAX_CONTEXTS", 2)
    contexts = ClientContexts()
    first = contexts.context_for(REQUIRED, is_naming=True)
    contexts.context_for(REQUIRED, is_naming=False)
    contexts.context_for(TlsRequirement(mode="required", minimum="1.3"), is_naming=True)
    assert contexts.context_for(REQUIRED, is_naming=True) is not first
    assert MAX_CONTEXTS > 2


def test_a_stand_in_is_used_again():
    contexts = ClientContexts()
    shared = contexts.context_for(REQUIRED, is_naming=True)
    with contexts.stand_in(shared, None) as first, contexts.stand_in(shared, None) as second:
        assert first is not second
    with contexts.stand_in(shared, None) as again:
        assert again in (first, second)


def test_a_certificate_of_our_own_needs_its_key(tmp_path):
    both = OURS.write(tmp_path / "both.pem").read_text()
    other = Authority("Other").write(tmp_path / "other.pem").read_text()
    load_certificate(make_client_context(), OURS.pem.decode(), both)
    with pytest.raises(ssl.SSLError):
        load_certificate(make_client_context(), OURS.pem.decode(), "")
    with pytest.raises(ssl.SSLError, match="MISMATCH"):
        load_certificate(make_client_context(), OURS.pem.decode(), other.partition("-----BEGIN CERT")[0])


def test_an_encrypted_key_is_refused_without_a_question():
    from cryptography.hazmat.primitives import serialization

    key = OURS.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(ValueError, match="encrypted"):
        load_certificate(make_client_context(), OURS.pem.decode(), key.decode())


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (10, "certificate-expired"),
        (9, "certificate-expired"),
        (62, "certificate-host-mismatch"),
        (64, "certificate-host-mismatch"),
        (18, "certificate-not-trusted"),
        (20, "certificate-not-trusted"),
    ],
)
def test_openssls_codes_become_result_types_of_rfc_8460(code, result):
    """RFC 8460 section 4.3.2."""
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "words"
    assert (explain(error).result, explain(error).detail) == (result, "certificate: words")


def test_any_other_failure_is_a_validation_failure():
    failed = explain(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"))
    assert (failed.phase, failed.result) == ("tls", "validation-failure")


def test_a_failure_says_whether_a_ticket_was_offered():
    failed = Handshake(ClientContexts(), REQUIRED, "mx.example", ("192.0.2.1", 25)).failed(
        NetworkError("tls", "no reply in 60 s")
    )
    assert (failed.result, failed.detail, failed.was_resuming) == (
        "validation-failure",
        "no reply in 60 s",
        False,
    )
