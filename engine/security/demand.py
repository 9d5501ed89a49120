"""What a session must show before it carries a domain's mail: DANE, MTA-STS, REQUIRETLS, TLS-Required.

A *demand* is the domain's (DNSSEC vouches for its MX hosts; a policy is published) and the message's word on
it. It belongs to the recipient domain, never to the provider: two domains with the same hosts have different
demands, and so different sessions. What it comes to depends on the host too: `judge`.

Owns: the order of precedence; which demands may share sessions (`key`).
Never: asks DNS, fetches, opens, verifies.
Source: RFC 7672 section 2, RFC 8461 sections 2 and 5, RFC 8689 sections 4.2 and 5.
"""

from __future__ import annotations

import hashlib

import msgspec

from engine.core.envelope import Envelope
from engine.security.dane import TLSARecord, usable
from engine.security.sts import StsPolicy
from engine.security.tally import NO_POLICY, PolicyFacts

REQUIRED = "requiretls"  # RFC 8689 section 2: the sender would rather have it bounce
PREFERRED = "requiretls-null"  # section 5: the same of a bounce, which is not lost where it can't be had
OPTIONAL = "tls-optional"  # RFC 8689 section 4.2.2: the sender would rather have it arrive

_STRENGTH = ("none", "opportunistic", "required", "verify")  # the modes of net.tls


class Demand(msgspec.Struct, frozen=True):
    """What one domain's mail asks of a session."""

    is_secure: bool = False  # DNSSEC vouches for the MX answer: TLSA records of its hosts count
    sts: StsPolicy | None = None  # in force: of mode enforce or testing
    word: str = ""  # of the message: REQUIRED, OPTIONAL or none
    names: tuple[str, ...] = ()  # of the domain, by which a trust anchor of its hosts may vouch for them

    @property
    def key(self) -> str:
        """Return what tells apart demands that may not share sessions; "" where nothing is asked."""
        if self.word == OPTIONAL:
            return OPTIONAL
        # Where its own name may be what the certificate has, the domain shares no session.
        parts = [":".join(("dane", *self.names))] if self.is_secure else []
        if self.sts is not None:
            patterns = hashlib.sha256(" ".join(self.sts.mx).encode()).hexdigest()[:12]
            parts.append(f"sts-{self.sts.mode}-{patterns}")
        if self.word:
            parts.append(self.word)
        return " ".join(parts)


NO_DEMAND = Demand()


class HostDemand(msgspec.Struct, frozen=True):
    """What a demand comes to at one host."""

    mode: str  # none | opportunistic | required | verify, as policy has them
    records: tuple[TLSARecord, ...] = ()  # the peer's chain must agree with one of them
    refusal: str = ""  # why no session to this host may carry such mail
    needs_requiretls: bool = False  # the peer must offer REQUIRETLS once TLS is up


def word_of(envelope: Envelope) -> str:
    """Return a message's word on TLS. REQUIRETLS outranks TLS-Required: No (RFC 8689 section 4.1).

    Section 5: for the null return-path it SHOULD NOT cause the message to be discarded where it can't be had.
    """
    if envelope.terms is not None and envelope.terms.requires_tls:
        return REQUIRED if envelope.sender else PREFERRED
    return OPTIONAL if envelope.is_tls_optional else ""


def judge(
    demand: Demand, host: str, mode: str, tlsa: tuple[TLSARecord, ...], *, is_routed: bool = False
) -> HostDemand:
    """Return what a session to this host must show.

    Args:
        mode: what policy asks for; a demand raises it and never lowers it, OPTIONAL excepted.
        tlsa: the host's records, from a secure answer to a secure name; () where there are none.
        is_routed: a route of the operator names the host.
    """
    if demand.word == OPTIONAL:
        return HostDemand(_weaker(mode, "opportunistic"))
    needs_requiretls = demand.word == REQUIRED
    if demand.word == PREFERRED:
        mode = _stronger(mode, "opportunistic")
    if tlsa:
        records = usable(tlsa)
        if records:  # DANE is the verification: it outranks MTA-STS (RFC 8461 section 2), and "verify"
            return HostDemand("required", records, needs_requiretls=needs_requiretls)
        # RFC 7672 section 2.2: of records of which none can be used TLS is left, unauthenticated.
        mode = _stronger(mode, "required")
    if demand.sts is not None and demand.sts.mode == "enforce":
        if not demand.sts.allows(host):
            return HostDemand(mode, refusal=f"the MTA-STS policy of the domain does not name {host}")
        mode = "verify"
    if needs_requiretls:
        # RFC 8689 section 4.2.1: DNSSEC or MTA-STS must vouch for the host, as does the operator by a route.
        is_vouched = demand.is_secure or is_routed or (demand.sts is not None and demand.sts.allows(host))
        if not is_vouched:
            return HostDemand("verify", refusal=f"neither DNSSEC nor MTA-STS vouches for the name {host}")
        mode = "verify"
    return HostDemand(mode, needs_requiretls=needs_requiretls)


def facts_of(sts: StsPolicy | None, tlsa: tuple[TLSARecord, ...]) -> PolicyFacts:
    """Return the policy that a session was held to, for the report of its domain (RFC 8460 section 4.4)."""
    if tlsa:
        return PolicyFacts("tlsa", tuple(map(str, tlsa)))
    if sts is not None:
        return PolicyFacts("sts", sts.lines, sts.mx)
    return NO_POLICY


def describe(demand: Demand) -> list[str]:
    """Return a demand in words, for people."""
    lines = []
    if demand.is_secure:
        lines.append("DANE: DNSSEC vouches for the MX answer; TLSA records of a host are obeyed")
    if demand.sts is not None:
        lines.append(f"MTA-STS: {demand.sts.mode}, mx {' '.join(demand.sts.mx)}, {demand.sts.max_age_s} s")
    return lines


def _stronger(one: str, other: str) -> str:
    return max(one, other, key=_STRENGTH.index)


def _weaker(one: str, other: str) -> str:
    return min(one, other, key=_STRENGTH.index)
