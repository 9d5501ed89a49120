"""What a certificate authority has signed, and what it may (RFC 5280)."""

from __future__ import annotations

import pytest

from engine.security.authority import has_issued, names_of, permits
from tests.fakes.authority import Authority

ROOT = Authority("Root")


def test_issuer_is_a_ca_whose_signature_it_is():
    leaf = ROOT.issue("mx.example")
    assert has_issued(ROOT.certificate, leaf.certificate)
    assert not has_issued(Authority("Root").certificate, leaf.certificate)
    no_ca = ROOT.issue("sub.example")
    assert not has_issued(no_ca.certificate, Authority("x.example", no_ca, is_ca=False).certificate)


@pytest.mark.parametrize(
    ("length", "below", "is_permitted"), [(None, 9, True), (0, 0, True), (0, 1, False), (1, 1, True)]
)
def test_path_is_no_longer_than_an_authority_allows(length, below, is_permitted):
    """RFC 5280 section 4.2.1.9."""
    authority = Authority("Middle", ROOT, path_length=length)
    assert permits(authority.certificate, authority.issue("mx.example").certificate, below) is is_permitted


@pytest.mark.parametrize(
    ("permitted", "excluded", "name", "is_permitted"),
    [
        (["example"], [], "mx.example", True),
        (["mx.example"], [], "mx.example", True),
        (["x.example"], [], "mx.example", False),
        (["x.example"], [], "a.b.x.example", True),
        ([], ["example"], "mx.example", False),
        (["example"], ["mx.example"], "mx.example", False),
        ([""], [], "mx.example", True),
        ([], [], "mx.example", True),
    ],
)
def test_names_are_those_that_an_authority_may_vouch_for(permitted, excluded, name, is_permitted):
    """RFC 5280 section 4.2.1.10."""
    authority = Authority("Middle", ROOT, permitted=permitted, excluded=excluded)
    assert permits(authority.certificate, authority.issue(name).certificate, 0) is is_permitted


def test_authority_that_may_not_sign_certificates_permits_none():
    """RFC 5280 section 4.2.1.3."""
    authority = Authority("Middle", ROOT, signs=False)
    assert not permits(authority.certificate, authority.issue("mx.example").certificate, 0)


def test_names_are_those_of_the_alternative_names():
    assert names_of(ROOT.issue("MX.example", others=["b.example"]).certificate) == ["mx.example", "b.example"]
    assert names_of(ROOT.certificate) == []
