"""TLSA records against certificate chains (RFC 6698, 7671, 7672)."""

from __future__ import annotations

import hashlib
import time

import pytest

from engine.security.dane import DATES, NAMES, TLSARecord, has_anchor, parse_tlsa, usable, verify_chain
from tests.fakes.authority import Authority

OF_HOST = ("mx.example", "example")


@pytest.fixture(scope="module")
def root():
    return Authority("Root")


@pytest.fixture(scope="module")
def middle(root):
    return Authority("Middle", root)


@pytest.fixture(scope="module")
def leaf(middle):
    return middle.issue("mx.example")


@pytest.fixture(scope="module")
def chain(leaf, middle, root):
    return [leaf.der, middle.der, root.der]


def record(usage: int, selector: int, matching_type: int, of: Authority) -> TLSARecord:
    selected = of.key_der if selector else of.der
    digest = {
        0: lambda octets: octets,
        1: lambda o: hashlib.sha256(o).digest(),
        2: lambda o: hashlib.sha512(o).digest(),
    }
    return TLSARecord(usage, selector, matching_type, digest[matching_type](selected))


def verify(records, chain, names=OF_HOST, now=None):
    """Return "" where they agree, else what is wrong."""
    fault = verify_chain(usable(records), chain, names, time.time() if now is None else now)
    return fault.detail if fault is not None else ""


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [0, 1, 2])
def test_end_entity_record_matches_by_each_selector_and_digest(leaf, chain, selector, matching_type):
    """RFC 6698 sections 2.1.2 and 2.1.3."""
    assert verify([record(3, selector, matching_type, leaf)], chain) == ""


def test_end_entity_record_cares_for_neither_names_nor_dates(root):
    """RFC 7672 section 3.1.1."""
    old = root.issue("other.example", days=-10)
    assert verify([record(3, 1, 1, old)], [old.der]) == ""


def test_another_certificate_does_not_match(root, leaf, chain):
    other = root.issue("mx.example")
    assert "no TLSA record" in verify([record(3, 1, 1, other)], chain)


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [0, 1, 2])
def test_trust_anchor_record_matches_a_ca_of_the_chain(middle, root, chain, selector, matching_type):
    """RFC 7672 section 3.1.2."""
    assert verify([record(2, selector, matching_type, middle)], chain) == ""
    assert verify([record(2, selector, matching_type, root)], chain) == ""


def test_trust_anchor_may_be_missing_where_the_record_holds_it(root, chain):
    """RFC 7671 section 5.2.3."""
    assert verify([record(2, 0, 0, root)], chain[:2]) == ""
    assert verify([record(2, 0, 1, root)], chain[:2]) != ""


def test_trust_anchor_needs_the_right_name(middle, chain):
    """RFC 7672 section 3.2.2: the TLSA base domain or the domain whose mail it takes."""
    assert verify([record(2, 0, 1, middle)], chain, names=("mx.example",)) == ""
    assert "is for none of" in verify([record(2, 0, 1, middle)], chain, names=("elsewhere.example",))


def test_trust_anchor_needs_dates_that_hold(middle):
    old = middle.issue("mx.example", days=-10)
    assert "not valid at this time" in verify([record(2, 0, 1, middle)], [old.der, middle.der])


def test_fault_says_whether_dates_or_names_are_wrong(middle, root):
    """RFC 8460 section 4.3: certificate-expired and certificate-host-mismatch have words of their own."""
    kinds = {}
    for name, days in (("mx.example", -10), ("elsewhere.example", 30)):
        leaf = middle.issue(name, days=days)
        fault = verify_chain([record(2, 0, 1, middle)], [leaf.der, middle.der], OF_HOST, time.time())
        kinds[name] = fault.kind
    assert kinds == {"mx.example": DATES, "elsewhere.example": NAMES}
    old = Authority("Old", root, days=-1)
    chain = [old.issue("mx.example").der, old.der, root.der]
    assert verify_chain([record(2, 0, 1, root)], chain, OF_HOST, time.time()).kind == DATES


def test_authorities_below_the_anchor_keep_to_their_limits(root):
    """RFC 5280 sections 4.2.1.9 and 4.2.1.10: path length and name constraints."""
    narrow = Authority("Narrow", root, path_length=0)
    deeper = Authority("Deeper", narrow)
    records = [record(2, 0, 1, root)]
    leaf, below = narrow.issue("mx.example"), deeper.issue("mx.example")
    assert verify(records, [leaf.der, narrow.der, root.der]) == ""
    assert "may not vouch" in verify(records, [below.der, deeper.der, narrow.der, root.der])
    other = Authority("Other", root, permitted=["other.example"])
    assert "may not vouch" in verify(records, [other.issue("mx.example").der, other.der, root.der])
    assert verify([record(2, 0, 1, other)], [other.issue("mx.example").der, other.der]) == ""


def test_only_usable_records_of_trust_anchors_are_anchors(root):
    assert has_anchor([record(2, 0, 1, root)])
    assert not has_anchor([record(3, 1, 1, root), TLSARecord(2, 0, 1, b"short")])


def test_trust_anchor_is_no_leaf(leaf, chain):
    """A record of usage 2 that names the peer's own certificate vouches for nothing: it is no CA."""
    assert verify([record(2, 0, 1, leaf)], chain) != ""


def test_chain_that_is_none_fails(root, leaf):
    stranger = Authority("Stranger")
    assert "not a chain" in verify([record(2, 0, 1, stranger)], [leaf.der, stranger.der])


def test_certificate_that_is_no_ca_vouches_for_none(root):
    no_ca = root.issue("sub.example")
    forged = Authority("mx.example", no_ca, is_ca=False)
    assert verify([record(2, 0, 1, no_ca)], [forged.der, no_ca.der, root.der]) != ""


def test_pkix_usages_are_unusable(leaf, root):
    """RFC 7672 section 3.1.3."""
    assert usable([record(0, 0, 1, root), record(1, 1, 1, leaf)]) == ()


@pytest.mark.parametrize(
    "text",
    [
        "3 2 1 " + "00" * 32,
        "3 1 3 " + "00" * 32,
        "3 1 1 00",
        "3 0 0 00",
        "4 1 1 " + "00" * 32,
        "2 0 2 " + "00" * 32,
    ],
)
def test_records_with_unknown_numbers_or_wrong_lengths_are_unusable(text):
    """RFC 7671 section 4.1: what can't be processed is unusable, and does not spoil the others."""
    assert usable([parse_tlsa(text)]) == ()


def test_weaker_digests_do_not_count_beside_stronger_ones(leaf, root):
    """RFC 7671 section 9."""
    other = root.issue("mx.example")
    weak, strong = record(3, 1, 1, leaf), record(3, 1, 2, other)
    assert usable([weak, strong]) == (strong,)
    assert verify([weak, strong], [leaf.der]) != ""


def test_peer_without_a_certificate_and_rubbish_fail(leaf):
    assert verify([record(3, 1, 1, leaf)], []) == "the peer sent no certificate"
    assert verify([record(3, 1, 1, leaf)], [b"rubbish"]) != ""
    assert verify([record(2, 1, 1, leaf)], [b"rubbish", b"more"]) != ""


def test_text_form_is_read_and_written(leaf):
    written = str(record(3, 1, 1, leaf))
    assert str(parse_tlsa(written)) == written
    assert parse_tlsa("3 1 1 " + "ab " * 32).data == b"\xab" * 32
    with pytest.raises(ValueError, match="not enough values"):
        parse_tlsa("3 1")
