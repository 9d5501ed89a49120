"""What a session must show before it carries a domain's mail."""

from __future__ import annotations

import pytest

from engine.core.envelope import Envelope
from engine.core.terms import Terms
from engine.security.dane import TLSARecord
from engine.security.demand import (
    NO_DEMAND,
    OPTIONAL,
    PREFERRED,
    REQUIRED,
    Demand,
    HostDemand,
    describe,
    facts_of,
    judge,
    word_of,
)
from engine.security.sts import StsPolicy

ENFORCE = StsPolicy("enforce", ("mx.example", "*.mail.example"), 86400, ("version: STSv1",))
TESTING = StsPolicy("testing", ("mx.example",), 86400)
GOOD = TLSARecord(3, 1, 1, b"x" * 32)
UNUSABLE = TLSARecord(0, 1, 1, b"x" * 32)
MODES = ["none", "opportunistic", "required", "verify"]


@pytest.mark.parametrize("mode", MODES)
def test_without_a_demand_policy_decides(mode):
    assert judge(NO_DEMAND, "mx.example", mode, ()) == HostDemand(mode)


@pytest.mark.parametrize("mode", MODES)
def test_usable_tlsa_records_are_the_verification(mode):
    """RFC 7672 section 2.2; a private root would fail "verify" although DNSSEC vouches for it."""
    assert judge(Demand(is_secure=True), "mx.example", mode, (GOOD, UNUSABLE)) == HostDemand(
        "required", (GOOD,)
    )


def test_unusable_tlsa_records_leave_mandatory_tls_without_authentication():
    """RFC 7672 section 2.2."""
    assert judge(Demand(is_secure=True), "mx.example", "opportunistic", (UNUSABLE,)) == HostDemand("required")
    assert judge(Demand(is_secure=True), "mx.example", "verify", (UNUSABLE,)) == HostDemand("verify")


def test_dane_outranks_sts():
    """RFC 8461 section 2: MTA-STS MUST NOT override a failing DANE validation."""
    demand = Demand(True, ENFORCE)
    assert judge(demand, "not.named.example", "none", (GOOD,)) == HostDemand("required", (GOOD,))


def test_sts_holds_at_a_host_without_tlsa_records():
    assert judge(Demand(True, ENFORCE), "mx.example", "none", ()) == HostDemand("verify")


def test_enforce_demands_a_named_host_and_a_valid_certificate():
    """RFC 8461 section 5."""
    assert judge(Demand(sts=ENFORCE), "mx.example", "opportunistic", ()).mode == "verify"
    assert "does not name" in judge(Demand(sts=ENFORCE), "mx.elsewhere.example", "none", ()).refusal


@pytest.mark.parametrize("host", ["mx.example", "mx.elsewhere.example"])
def test_testing_delivers_as_if_there_were_no_policy(host):
    """RFC 8461 section 5."""
    assert judge(Demand(sts=TESTING), host, "opportunistic", ()) == HostDemand("opportunistic")


@pytest.mark.parametrize("demand", [Demand(is_secure=True), Demand(sts=TESTING), Demand(sts=ENFORCE)])
def test_requiretls_demands_a_verified_peer_that_offers_it(demand):
    """RFC 8689 section 4.2.1."""
    word = Demand(demand.is_secure, demand.sts, REQUIRED)
    assert judge(word, "mx.example", "none", ()) == HostDemand("verify", needs_requiretls=True)


def test_requiretls_is_met_by_dane():
    """RFC 8689 section 4.2.1: authenticated by RFC 6125 or RFC 7672."""
    demand = judge(Demand(True, word=REQUIRED), "mx.example", "none", (GOOD,))
    assert demand == HostDemand("required", (GOOD,), needs_requiretls=True)
    assert judge(Demand(True, word=REQUIRED), "mx.example", "none", (UNUSABLE,)).mode == "verify"


def test_requiretls_needs_a_name_that_somebody_vouches_for():
    """RFC 8689 section 4.2.1: an MX without DNSSEC must be one that MTA-STS names."""
    assert "vouches" in judge(Demand(word=REQUIRED), "mx.example", "verify", ()).refusal
    assert "vouches" in judge(Demand(sts=TESTING, word=REQUIRED), "mx.other.example", "verify", ()).refusal
    assert judge(Demand(word=REQUIRED), "relay.example", "none", (), is_routed=True).refusal == ""


@pytest.mark.parametrize(
    ("mode", "expected"), [("none", "none"), *((mode, "opportunistic") for mode in MODES[1:])]
)
def test_tls_required_no_relaxes_everything(mode, expected):
    """RFC 8689 section 4.2.2: regardless of MTA-STS and DANE, but STARTTLS is still used where it can be."""
    demand = Demand(True, ENFORCE, OPTIONAL)
    assert judge(demand, "mx.elsewhere.example", mode, (GOOD,)) == HostDemand(expected)


def test_requiretls_outranks_tls_required_no():
    """RFC 8689 section 4.1."""
    envelope = Envelope("a@b.example", "acme", "acme", 0.0, 1, "smtp")
    assert word_of(envelope) == ""
    envelope = Envelope("a@b.example", "acme", "acme", 0.0, 1, "smtp", is_tls_optional=True)
    assert word_of(envelope) == OPTIONAL
    envelope = Envelope(
        "a@b.example", "acme", "acme", 0.0, 1, "smtp", terms=Terms(requires_tls=True), is_tls_optional=True
    )
    assert word_of(envelope) == REQUIRED


def test_bounce_of_requiretls_mail_asks_for_it_and_is_not_lost_without() -> None:
    """RFC 8689 section 5."""
    envelope = Envelope("", "acme", "acme", 0.0, 1, "bounce", terms=Terms(requires_tls=True))
    assert word_of(envelope) == PREFERRED
    demand = Demand(word=PREFERRED)
    assert judge(demand, "mx.example", "none", ()) == HostDemand("opportunistic")
    assert judge(demand, "mx.example", "verify", ()) == HostDemand("verify")
    assert judge(Demand(True, ENFORCE, PREFERRED), "mx.elsewhere.example", "none", ()).refusal
    assert not judge(demand, "mx.example", "none", ()).needs_requiretls


def test_demands_that_differ_have_keys_that_differ():
    demands = [
        NO_DEMAND,
        Demand(is_secure=True),
        Demand(sts=ENFORCE),
        Demand(sts=TESTING),
        Demand(sts=StsPolicy("enforce", ("mx.example",), 1)),
        Demand(True, ENFORCE),
        Demand(True, ENFORCE, REQUIRED),
        Demand(word=REQUIRED),
        Demand(word=PREFERRED),
        Demand(word=OPTIONAL),
    ]
    assert len({demand.key for demand in demands}) == len(demands)
    assert NO_DEMAND.key == ""


def test_demands_that_ask_the_same_share_sessions():
    assert Demand(sts=ENFORCE).key == Demand(sts=StsPolicy("enforce", ENFORCE.mx, 7, ("other",))).key
    assert Demand(True, ENFORCE, OPTIONAL).key == Demand(word=OPTIONAL).key


def test_report_tells_the_policy_that_was_applied():
    assert facts_of(ENFORCE, (GOOD,)).kind == "tlsa"
    assert facts_of(ENFORCE, (GOOD,)).lines == ("3 1 1 " + "78" * 32,)
    assert facts_of(ENFORCE, ()).mx == ENFORCE.mx
    assert facts_of(None, ()).kind == "no-policy-found"


def test_demand_is_told_in_words():
    assert describe(NO_DEMAND) == []
    assert describe(Demand(True, ENFORCE))[1] == "MTA-STS: enforce, mx mx.example *.mail.example, 86400 s"
