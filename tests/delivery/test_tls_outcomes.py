"""Which outcome of TLS counts for which domain and policy (RFC 8460 section 4.3)."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.delivery.attempt import Target
from engine.delivery.securing import Secured
from engine.delivery.session import SessionFacts
from engine.delivery.tls_outcomes import TlsOutcomes
from engine.net.site import Host
from engine.net.sts import NOTHING, Problem, StsState
from engine.net.tls import CLEAR, NOT_ASKED, SUCCESS, TlsOutcome
from engine.security.dane import TLSARecord
from engine.security.demand import HostDemand
from engine.security.sts import StsPolicy
from engine.security.tally import NO_POLICY, STS_POLICY_FETCH_ERROR, FailureFacts, PolicyFacts, Tally
from engine.telemetry.events import Peer

TESTING = StsState(StsPolicy("testing", ("mx.example",), 1, ("version: STSv1",)))
STS = PolicyFacts("sts", ("version: STSv1",), ("mx.example",))
RECORD = TLSARecord(3, 1, 1, b"x" * 32)


class FakeSession(NamedTuple):
    facts: SessionFacts


def secured(**changes: Any) -> Secured:
    return Secured(CLEAR, HostDemand("opportunistic"))._replace(**changes)


def session(number: int = 1, verification: str = "verified", tls: str = "TLSv1.3 X", **changes: Any) -> Any:
    peer = Peer("mx.example", "198.51.100.1", 25)
    facts = SessionFacts(f"{number}", "v1", "192.0.2.1", "h", peer, tls, verification)
    return FakeSession(facts._replace(secured=secured(**changes)))


def target(**changes: Any) -> Target:
    return Target(Host("mx.example"), "198.51.100.1", 25, "192.0.2.1", secured(**changes), "a.example")


def make(states: dict[str, StsState] | None = None) -> tuple[TlsOutcomes, Tally]:
    tally = Tally()
    known = states or {}
    return TlsOutcomes(lambda: tally, lambda domain: known.get(domain, NOTHING)), tally


def test_session_counts_once_for_each_domain_that_it_carried():
    outcomes, tally = make()
    for number, domain in ((1, "a.example"), (1, "a.example"), (1, "b.example"), (2, "a.example")):
        outcomes.carried(session(number), domain)
    assert tally.of("a.example")[NO_POLICY].successes == 2
    assert tally.of("b.example")[NO_POLICY].successes == 1


def test_failure_counts_for_the_domain_whose_mail_made_us_connect():
    """RFC 8460 section 4.3."""
    outcomes, tally = make({"a.example": TESTING})
    outcomes.tried(None, target(), CLEAR, TlsOutcome("starttls-not-supported", "not offered"))  # type: ignore[arg-type]
    (kind,) = tally.of("a.example")[STS].kinds
    facts = FailureFacts("starttls-not-supported", "192.0.2.1", "mx.example", "198.51.100.1", "not offered")
    assert kind == (facts, 1)


def test_session_under_records_that_none_can_use_is_a_failure():
    """RFC 8460 section 4.3.2.1, tlsa-invalid: the mail goes, under TLS that proves nothing."""
    outcomes, tally = make()
    useless = TLSARecord(1, 1, 1, b"x" * 32)
    outcomes.carried(session(1, tlsa=(useless,)), "a.example")
    outcomes.carried(session(2, tlsa=(useless, RECORD)), "b.example")
    (counts,) = tally.of("a.example").values()
    assert (counts.successes, [facts.result for facts, _ in counts.kinds]) == (0, ["tlsa-invalid"])
    (counts,) = tally.of("b.example").values()
    assert (counts.successes, counts.failures) == (1, 0)


def test_what_ended_well_or_was_not_asked_for_is_no_failure():
    outcomes, tally = make()
    for result in (SUCCESS, NOT_ASKED):
        outcomes.tried(None, target(), CLEAR, TlsOutcome(result))  # type: ignore[arg-type]
    assert len(tally) == 0


def test_testing_counts_what_it_would_have_refused():
    """RFC 8461 section 5: policy failures are reported, mail is delivered."""
    other = StsState(StsPolicy("testing", ("other.example",), 1))
    outcomes, tally = make({"a.example": TESTING, "b.example": other})
    outcomes.carried(session(1, "certificate-expired"), "a.example")
    outcomes.carried(session(2), "a.example")
    outcomes.carried(session(3), "b.example")
    counts = tally.of("a.example")[STS]
    assert (counts.successes, counts.failures, counts.kinds[0][0].result) == (1, 1, "certificate-expired")
    (counts,) = tally.of("b.example").values()
    assert counts.kinds[0][0].result == "validation-failure"


def test_dane_is_told_with_its_records():
    outcomes, tally = make({"a.example": TESTING})
    outcomes.carried(session(1, "dane", tlsa=(RECORD,)), "a.example")
    (policy,) = tally.of("a.example")
    assert (policy.kind, policy.lines) == ("tlsa", (str(RECORD),))


def test_policy_that_can_not_be_fetched_is_a_failure():
    """RFC 8460 section 4.3.2.2."""
    outcomes, tally = make({"a.example": StsState(problem=Problem(STS_POLICY_FETCH_ERROR, "status 404"))})
    outcomes.carried(session(), "a.example")
    assert tally.of("a.example")[PolicyFacts("sts")].kinds[0][0].result == STS_POLICY_FETCH_ERROR


def test_mail_that_does_without_tls_and_sessions_in_clear_are_not_counted_again():
    outcomes, tally = make()
    outcomes.carried(session(1, is_counted=False), "a.example")
    outcomes.carried(session(2, "", tls=""), "a.example")
    outcomes.tried(None, target(is_counted=False), CLEAR, TlsOutcome("validation-failure"))  # type: ignore[arg-type]
    assert len(tally) == 0
