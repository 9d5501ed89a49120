"""What contexts ask of a peer."""

from __future__ import annotations

import ssl

from engine.net.tls import make_client_context


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
    """RFC 8996 section 5."""
    assert make_client_context().minimum_version is ssl.TLSVersion.TLSv1_2
    assert make_client_context(minimum="1.3").minimum_version is ssl.TLSVersion.TLSv1_3
