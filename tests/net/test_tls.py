"""What contexts ask of a peer."""

from __future__ import annotations

import ssl

import pytest

from engine.net.tls import TlsFacts, TlsRequirement, make_client_context


def test_without_verification_any_certificate_will_do():
    context = make_client_context()
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname
    assert context.security_level == 0


def test_verification_compares_names():
    """RFC 9525 section 6."""
    context = make_client_context(is_verifying=True)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_versions_before_1_2_are_never_spoken():
    """RFC 8996 section 2: TLS 1.0 and 1.1 MUST NOT be used."""
    assert make_client_context().minimum_version is ssl.TLSVersion.TLSv1_2
    assert make_client_context(minimum="1.3").minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("mode", "allows"), [("none", True), ("opportunistic", True), ("required", False), ("verify", False)]
)
def test_only_the_weak_modes_allow_clear_text(mode, allows):
    assert TlsRequirement(mode=mode).allows_clear is allows


@pytest.mark.parametrize(
    ("verification", "is_verified"),
    [("verified", True), ("dane", True), ("certificate-expired", False), ("validation-failure", False)],
)
def test_facts_say_whether_the_peer_is_who_it_says(verification, is_verified):
    assert TlsFacts("TLSv1.3", "x", verification, is_resumed=False).is_verified is is_verified
