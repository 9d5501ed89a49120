"""What became of the TLS of sessions, counted for the reports that recipient domains ask for.

A failure counts for the domain whose mail made us connect. A success counts for each domain that the session
carried mail of, once, when the first of it is settled: so does what a policy in testing would have refused.

Owns: which outcome counts for which domain and policy.
Never: keeps or sends anything (shard.tls_tally, shard.tls_reports), decides what TLS a session needs.
Source: RFC 8460 section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.delivery.attempt import Target
from engine.delivery.flight import Bearer
from engine.net.sts import StsState
from engine.net.tls import NOT_ASKED, SUCCESS, VALIDATION_FAILURE, TlsOutcome, TlsRequirement
from engine.queue.path import Path
from engine.security.dane import usable
from engine.security.demand import facts_of
from engine.security.tally import TLSA_INVALID, FailureFacts, PolicyFacts, Tally

MAX_SESSIONS = 20_000  # whose domains are known; of older ones a domain may count twice


class TlsOutcomes:
    """Counts outcomes into the tally of the day."""

    def __init__(self, tally: Callable[[], Tally], sts_of: Callable[[str], StsState]) -> None:
        self._tally = tally
        self._sts_of = sts_of
        self._carried: dict[str, set[str]] = {}

    def tried(self, _path: Path, target: Target, _tls: TlsRequirement, outcome: TlsOutcome) -> None:
        """A connection was tried; count it if its TLS failed."""
        if outcome.result in (SUCCESS, NOT_ASKED) or not target.secured.is_counted or not target.domain:
            return
        policy = facts_of(self._sts_of(target.domain).policy, target.secured.tlsa)
        facts = FailureFacts(
            outcome.result, target.source, target.host.name, target.address, outcome.detail[:200]
        )
        self._tally().fail(target.domain, policy, facts)

    def carried(self, session: Bearer, domain: str) -> None:
        """A session has carried a message of the domain. HOT."""
        facts = session.facts
        secured = facts.secured
        if secured is None or not secured.is_counted or not facts.tls:
            return  # in clear: `tried` has counted why
        carried = self._carried.get(facts.id)
        if carried is None:
            if len(self._carried) >= MAX_SESSIONS:
                del self._carried[next(iter(self._carried))]
            carried = self._carried[facts.id] = set()
        if domain in carried:
            return
        carried.add(domain)
        state = self._sts_of(domain)
        result, reason = "", ""
        policy = facts_of(state.policy, secured.tlsa)
        if policy.kind == "tlsa" and not usable(secured.tlsa):
            result, reason = TLSA_INVALID, "none of the TLSA records can be used"
        elif policy.kind == "sts" and state.policy is not None:
            result, reason = _testing_result(state, session)
        elif policy.kind != "tlsa" and state.problem is not None:
            policy = PolicyFacts("sts")
            result, reason = state.problem.result, state.problem.detail
        if not result:
            self._tally().succeed(domain, policy)
            return
        peer = facts.peer
        self._tally().fail(
            domain, policy, FailureFacts(result, facts.source, peer.host, peer.address, reason)
        )


def _testing_result(state: StsState, session: Bearer) -> tuple[str, str]:
    """Return what a policy would have refused a session for; "" where nothing (RFC 8461 section 5)."""
    facts = session.facts
    if state.policy is not None and not state.policy.allows(facts.peer.host):
        return VALIDATION_FAILURE, "the policy does not name the MX host"
    if facts.tls_verification not in ("verified", "dane"):
        return facts.tls_verification or VALIDATION_FAILURE, ""
    return "", ""
