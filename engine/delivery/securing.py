"""What a host must show before it gets mail of a site: policy, DANE, MTA-STS and REQUIRETLS as one.

Owns: the look-up of a host's TLSA records, the check of its chain against them, the replies where a host may
    not be used.
Never: connects; which demand wins is security.demand's.
Source: RFC 7672 section 2, RFC 8461 section 5, RFC 8689 section 4.2.1.
"""

from __future__ import annotations

import ssl
import time
from typing import NamedTuple, Protocol

import msgspec

from engine.core.errors import ResolveError, TlsFailed
from engine.core.reply import Reply, make_reply
from engine.net.connect import OpenSession
from engine.net.site import Access, Host, Site
from engine.net.tls import (
    CERTIFICATE_EXPIRED,
    CERTIFICATE_HOST_MISMATCH,
    CLEAR,
    VALIDATION_FAILURE,
    TlsRequirement,
)
from engine.net.tlsa import NO_TLSA, HostTlsa
from engine.net.trust import peer_chain
from engine.policy.model import Policy
from engine.security.dane import DATES, NAMES, TLSARecord, usable, verify_chain
from engine.security.demand import OPTIONAL, REQUIRED, HostDemand, judge
from engine.security.tally import DNSSEC_INVALID

# RFC 8689 section 4.2.1 names the codes.
_NOT_OFFERED = "5.7.30"
_NOT_PROTECTED = "5.7.10"
# What is wrong with a chain, and the result type; the rest is VALIDATION_FAILURE.
_RESULTS = {DATES: CERTIFICATE_EXPIRED, NAMES: CERTIFICATE_HOST_MISMATCH}


class Secured(NamedTuple):
    """What a session to one host needs."""

    tls: TlsRequirement
    demand: HostDemand
    tlsa: tuple[TLSARecord, ...] = ()  # what was found, for the report
    is_counted: bool = True  # mail that is indifferent to TLS says nothing of the domain's (RFC 8689 4.2.2)


class Unusable(NamedTuple):
    """Why a host may not be used."""

    reply: Reply
    result: str  # a result type of RFC 8460
    tlsa: tuple[TLSARecord, ...] = ()


class TlsaOf(Protocol):
    """What is needed of the resolver."""

    async def tlsa(self, host: Host, port: int) -> HostTlsa: ...


class DaneCheck(msgspec.Struct, frozen=True):
    """Compares what a peer sent with the TLSA records of its host; equal ones share resumed sessions."""

    records: tuple[TLSARecord, ...]
    names: tuple[str, ...]

    def __call__(self, ssl_object: ssl.SSLObject) -> tuple[str, str] | None:
        """Return None where they agree, else a result type and what is wrong."""
        if ssl_object.session_reused:
            return None  # its ticket is from a handshake that these very records proved
        fault = verify_chain(self.records, peer_chain(ssl_object), self.names, time.time())
        return (_RESULTS.get(fault.kind, VALIDATION_FAILURE), fault.detail) if fault is not None else None


async def secure(resolver: TlsaOf, site: Site, host: Host, port: int, policy: Policy) -> Secured | Unusable:
    """Return what a session to a host of the site needs."""
    demand, access = site.demand, site.access
    tlsa = NO_TLSA
    if demand.is_secure:
        try:
            tlsa = await resolver.tlsa(host, port)
        except ResolveError as error:
            # RFC 7672 section 2.1.2: not known is not none.
            reply = make_reply(451, "4.7.5", f"TLSA records of {host.name} are not to be had: {error}")
            return Unusable(reply, DNSSEC_INVALID)
    asked = access.tls or policy.tls  # a route's own word stands instead of policy's
    judged = judge(demand, host.name, asked, tlsa.records, is_routed=host.is_routed)
    if judged.refusal:
        code, enhanced = (550, _NOT_PROTECTED) if demand.word == REQUIRED else (451, "4.7.5")
        return Unusable(make_reply(code, enhanced, judged.refusal), VALIDATION_FAILURE, tlsa.records)
    requirement = _requirement(protect_login(judged, access), policy, tlsa, host, demand.names)
    return Secured(requirement, judged, tlsa.records, demand.word != OPTIONAL)


def protect_login(judged: HostDemand, access: Access) -> HostDemand:
    """Return what a host must show, enough for the credentials of the route.

    RFC 4954 section 8: who logs in over an insecure network must not go on without what protects that.
    """
    if access.user and not access.allows_plaintext and judged.mode in ("none", "opportunistic"):
        return msgspec.structs.replace(judged, mode="required")
    return judged


def _requirement(
    judged: HostDemand, policy: Policy, tlsa: HostTlsa, host: Host, names: tuple[str, ...]
) -> TlsRequirement:
    if judged.mode == "none" or host.path:  # what goes over a unix socket is on no line
        return CLEAR
    check = None
    server_name = ""
    if judged.records:
        check = DaneCheck(judged.records, tuple(dict.fromkeys([tlsa.base, *names])))
        server_name = tlsa.base  # RFC 7672 section 8.1
    return TlsRequirement(
        mode=judged.mode,
        server_name=server_name,
        minimum=policy.tls_min_version,
        certificate=policy.tls_certificate,
        key=policy.tls_key,
        verify_peer=check,
    )


async def describe_hosts(resolver: TlsaOf, site: Site, port: int) -> list[str]:
    """Return what DANE finds at each host of a site, in words; nothing where DANE does not come into it."""
    lines = []
    for host in site.hosts if site.demand.is_secure else ():
        try:
            records = (await resolver.tlsa(host, host.port or port)).records
        except ResolveError as error:
            lines.append(f"{host.name}: TLSA records not to be had, no mail goes there: {error}")
            continue
        if not records:
            lines.append(f"{host.name}: no TLSA records")
        elif count := len(usable(records)):
            lines.append(f"{host.name}: must agree with one of {count} TLSA records")
        else:
            lines.append(f"{host.name}: TLSA records of which none can be used: TLS, unauthenticated")
    return lines


def may_carry(opened: OpenSession, demand: HostDemand) -> Reply | None:
    """Return why an open session may not carry mail of that demand; None where it may."""
    if demand.needs_requiretls and "REQUIRETLS" not in opened.extensions.parameters:
        return make_reply(550, _NOT_OFFERED, "the peer does not offer REQUIRETLS, which the sender asks for")
    return None


def refuse_unprotected(reply: Reply, error: Exception | None, demand: HostDemand) -> Reply:
    """Return what a TLS failure means: with REQUIRETLS it is for good (RFC 8689 section 4.2.1)."""
    is_certain = error is None or (isinstance(error, TlsFailed) and error.is_certain)
    if demand.needs_requiretls and is_certain and reply.synthetic:
        return make_reply(550, _NOT_PROTECTED, f"the sender asks for TLS: {reply.text}")
    return reply
