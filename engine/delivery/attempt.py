"""One try to open one session, host by host and address by address.

TLS that fails is tried again at the same address, each time with less: without the ticket that was offered,
then (where policy allows it) in clear. Both are connections of their own, and count as such, not as attempts.

Owns: the slot while it tries; which address is next; what a failed handshake is remembered as.
Never: decides that a session is wanted (decide), counts sessions or makes one (opening).
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from engine.core.errors import (
    NetworkError,
    RemoteProtocolError,
    ResolveError,
    ResolvePermanent,
    SourceUnavailable,
    TlsFailed,
)
from engine.core.reply import Reply, make_reply
from engine.delivery.flight import NOBODY, Met
from engine.delivery.hearing import Whence
from engine.delivery.peer_memory import TLS, peer_key
from engine.delivery.securing import Secured, Unusable, may_carry, refuse_unprotected, secure
from engine.delivery.session import SLOT_AFTER_OUR_CLOSE_S
from engine.delivery.site_queue import SiteQueue
from engine.net.connect import (
    Login,
    OpenSession,
    OpenTimeouts,
    Rejection,
    open_session,
)
from engine.net.own import loop_reply
from engine.net.proxy import open_through
from engine.net.site import NO_ACCESS, Access, Host, Site, balance, order_hosts, pick_family, routed_host
from engine.net.sockets import open_socket, open_unix_socket
from engine.net.tls import CLEAR, VALIDATION_FAILURE, TlsOutcome, TlsRequirement
from engine.queue.path import Path, SiteDemand
from engine.security.demand import HostDemand
from engine.settings.model import EgressProxy, VirtualMTA
from engine.telemetry.events import Peer

if TYPE_CHECKING:
    from engine.delivery.opening import Opener

# How many addresses one try goes through (Postfix: smtp_mx_address_limit = 5).
MAX_ADDRESSES = 5
# So many of them are kept for the hosts behind one with many addresses: one of each family.
KEPT_ADDRESSES = 2
PROXY_PAUSE_S = 5.0  # where a vmta's proxy does not answer: long enough to be seen, short against a restart
LOCAL_PAUSE_S = 1.0  # where this host has no descriptor or port left, the path is asked again after so long
# The next address needs a slot too; the last one's rests for SLOT_AFTER_OUR_CLOSE_S where the peer was met.
NEXT_ADDRESS_WAIT_S = SLOT_AFTER_OUR_CLOSE_S + 1.0
# A handshake that failed is remembered as policy says once the peer takes a session in clear: before, it may
# have been the network. Until then for so long, in case this try finds no slot or rate left to go in clear.
UNPROVEN_S = 600.0
NOT_TRIED = "not tried: a handshake with that host has failed before"


_PHASES = {"greeting": "connect", "auth": "ehlo"}  # as rules for replies call them


class Target(NamedTuple):
    """One address to try."""

    host: Host
    address: str
    port: int
    source: str
    secured: Secured
    domain: str  # whose mail made us connect
    proxy: EgressProxy | None = None

    def __str__(self) -> str:
        return f"{self.host.name}[{self.address}]" if self.address else self.host.name

    @property
    def key(self) -> str:
        """Under what name its faults are remembered."""
        return peer_key(self.host.name, self.address, self.port)

    def met(self, phase: str) -> Met:
        """Return what events say of a try that ended here, in that phase."""
        return Met(Peer(self.host.name, self.address, self.port), phase)


class Attempt:
    """One try to open one session, over the hosts of its site."""

    def __init__(self, opener: Opener, path: Path, demand: SiteDemand, vmta: VirtualMTA) -> None:
        self.vmta = vmta  # as it is now: it may leave this shard while we connect
        self.path = path
        self.demand = demand
        self.reply: Reply | None = None
        self.met = NOBODY  # whose reply it is
        self.is_our_fault = False
        self._opener = opener
        self._now = asyncio.get_running_loop().time
        self._has_slot = True
        self._policy = opener.policy_of(path)
        self._access = NO_ACCESS
        self._tls_error: NetworkError | None = None  # of the last connection
        self._outer = ""  # from where that was made, as a proxy says

    async def run(self, queues: list[SiteQueue]) -> tuple[OpenSession, Target] | None:
        """Return the first session that opens."""
        if not queues:
            self.is_our_fault = True
            return None
        self._access = queues[0].site.access
        self._destination = queues[0].destination
        self._customer = next((each.envelope.customer for queue in queues for each in queue.queue), "")
        is_first = True
        async for target in self._targets(queues):
            if not is_first and not await self._connect_again():
                return None
            is_first = False
            opened = await self._visit(target)
            if opened is not None:
                return opened, self._seen(target)
            if self.is_our_fault or self.path.hold_in_force(self._now()) is not None:
                return None
        return None

    async def _targets(self, queues: list[SiteQueue]) -> AsyncIterator[Target]:
        """Yield addresses of the site, most preferred host first; only families that have a source."""
        vmta = self.vmta
        family = pick_family(self._policy.address_family, [each for each in (vmta.v4, vmta.v6) if each])
        site = queues[0].site
        is_local = all(host.is_lmtp for host in site.hosts)
        if not family and not is_local:
            self._fail(
                make_reply(
                    451, "4.4.4", f"vmta {vmta.name} has no source of family {self._policy.address_family}"
                )
            )
            return
        left = MAX_ADDRESSES
        domain = next((delivery.domain for queue in queues for delivery in queue.queue), "")
        hosts_left = len(site.hosts)
        async for host in self._willing_first(site):
            hosts_left -= 1
            most = max(1, left - KEPT_ADDRESSES) if hosts_left else left
            async for target in self._targets_of(host, site, family, domain, most):
                yield target
                left -= 1
            if not left:
                return

    async def _targets_of(
        self, host: Host, site: Site, family: str, domain: str, most: int
    ) -> AsyncIterator[Target]:
        """Yield at most so many addresses of a host."""
        vmta = self.vmta
        port = host.port or self._policy.port
        secured = await secure(self._opener.resolver, site, host, port, self._policy)
        if isinstance(secured, Unusable):
            self._fail(secured.reply)
            self._tell_unusable(host, secured, domain)
            return
        if host.path:
            yield Target(host, "", 0, "", secured, domain)
            return
        asked = self._policy.address_family if host.is_lmtp else family
        try:
            addresses = await self._opener.resolver.addresses(host, asked)
        except ResolvePermanent as error:
            if self.reply is None or (self.reply.synthetic and self.reply.is_permanent):
                # Another family, of another vmta, might do where ours was narrowed.
                self._fail(make_reply(451, "4.4.4", str(error)) if error.is_narrowed else error.reply)
            return
        except ResolveError as error:
            self._fail(make_reply(451, "4.4.3", str(error)))
            return
        for address in balance(addresses, most):
            if host.is_lmtp:  # next door: from whatever address leads there
                yield Target(host, address, port, "", secured, domain)
            else:
                source = vmta.v6 if ":" in address else vmta.v4
                yield Target(host, address, port, source, secured, domain, vmta.proxy)

    async def _willing_first(self, site: Site) -> AsyncIterator[Host]:
        """Yield the hosts, those that turned mail away lately behind the others."""
        behind = []
        async for host in self._hosts(site):
            if self._opener.turned_away.is_passed_over(host.name, host.port or self._policy.port):
                behind.append(host)
            else:
                yield host
        for host in behind:
            yield host

    async def _hosts(self, site: Site) -> AsyncIterator[Host]:
        """Yield the hosts, most preferred first, up to where we are among them (RFC 5321 section 5.1)."""
        resolver, port = self._opener.resolver, self._policy.port
        rank = -1 if resolver.may_be_ours(port) else 0  # of the first the resolver has made sure otherwise
        is_skipped = self._opener.dispatcher.hearer.is_skipped
        hosts = list(order_hosts(site, random.shuffle))
        kept = [host for host in hosts if not is_skipped(host.name)]
        for host in kept or hosts:  # a site all of whose hosts are left out is tried like any other
            if host.preference > rank and not host.is_routed:
                rank = host.preference
                equal = [each for each in site.hosts if each.preference == rank]
                if await resolver.is_ours(equal, port):
                    if rank == 0:
                        self._fail(loop_reply(f"{host.name} is this host, which has no route for that mail"))
                    return
            yield host

    async def _visit(self, target: Target) -> OpenSession | None:
        """Try one address; where its TLS fails, again with less of it, as far as the requirement allows."""
        asked = tls = self._requirement(target)
        has_ticket = True
        before = self.reply, self.met  # of the hosts before this one
        opened = await self._try(target, tls)
        if opened is not None and asked is CLEAR and target.secured.tls.mode == "opportunistic":
            # RFC 8460 section 4.4 counts sessions: what is remembered has failed again in each.
            self._tell(target, target.secured.tls, TlsOutcome(VALIDATION_FAILURE, NOT_TRIED))
        while opened is None and self._tls_error is not None:
            error = self._tls_error
            if has_ticket and isinstance(error, TlsFailed) and error.was_resuming:
                has_ticket = False
            elif tls.allows_clear:
                tls = CLEAR
                self._remember(target, asked, error, min(UNPROVEN_S, self._policy.tls_failure_ttl_s))
            else:
                # RFC 3463 section 3.8: X.7.5, a cryptographic failure.
                reply = make_reply(451, "4.7.5", f"{target} TLS is required: {error.detail}")
                self.reply, self.met = before
                self._fail(refuse_unprotected(reply, error, target.secured.demand), target.met("tls"))
                return None
            if not await self._connect_again():
                self.is_our_fault = self._policy.tls_failure_ttl_s > 0  # the next one begins where we stop
                return None
            opened = await self._try(target, tls)
        if tls is not asked and opened is not None:
            self._remember(target, asked, error, self._policy.tls_failure_ttl_s)
        elif tls is not asked and not self.is_our_fault:
            self._opener.memory.forget(target.key, TLS, self._terms(target, asked))
        return opened

    def _requirement(self, target: Target) -> TlsRequirement:
        """Return what a session to that address needs of TLS."""
        requirement = target.secured.tls
        if requirement.mode == "opportunistic":
            terms = self._terms(target, requirement)
            if self._opener.memory.knows(target.key, TLS, self._now(), terms):
                return CLEAR
        if requirement.allows_clear and self._opener.dispatcher.hearer.is_in_clear(target.host.name):
            return CLEAR
        return requirement

    def _terms(self, target: Target, asked: TlsRequirement) -> str:
        return self._opener.contexts.describe_offer(asked, target.host.name)

    def _remember(self, target: Target, asked: TlsRequirement, error: NetworkError, ttl_s: float) -> None:
        if ttl_s > 0:
            until = self._now() + ttl_s
            self._opener.memory.remember(target.key, TLS, until, error.detail, self._terms(target, asked))

    async def _try(self, target: Target, tls: TlsRequirement) -> OpenSession | None:
        policy = self._policy
        self._tls_error = None
        try:
            sock = await self._connect(target)
            self._outer = getattr(sock, "outer", "")
        except SourceUnavailable as error:
            self.is_our_fault = True
            self._opener.hold_source(self.path, target.source, error.detail)
            return None
        except NetworkError as error:
            if error.phase in ("local", "proxy"):
                self.is_our_fault = True
                pause_s = LOCAL_PAUSE_S if error.phase == "local" else PROXY_PAUSE_S
                self.path.hold(error.phase, str(error), self._now() + pause_s)
            self._fail(make_reply(451, "4.4.1", str(error)), target.met("connect"))
            self._opener.count(self.path, error.phase)
            return None
        timeouts = OpenTimeouts(policy.greeting_timeout_s, policy.ehlo_timeout_s, policy.tls_timeout_s)
        try:
            opened = await open_session(
                sock,
                peer_host=tls.server_name or target.host.name,
                helo=self.vmta.hostname,
                timeouts=timeouts,
                tls=tls,
                contexts=self._opener.contexts,
                login=login_of(self._access),
                is_lmtp=target.host.is_lmtp,
            )
        except (NetworkError, RemoteProtocolError) as error:
            self.give_slot_back(SLOT_AFTER_OUR_CLOSE_S)
            if isinstance(error, NetworkError) and error.phase == "tls":
                self._tls_error = error
                result = error.result if isinstance(error, TlsFailed) else VALIDATION_FAILURE
                self._tell(target, tls, TlsOutcome(result, error.detail))
            self._fail(make_reply(451, "4.4.2", f"{target} {error}"), target.met("greeting"))
            self._opener.count(self.path, getattr(error, "phase", "protocol"))
            return None
        if isinstance(opened, Rejection):
            self.give_slot_back(SLOT_AFTER_OUR_CLOSE_S)
            is_tls = opened.phase == "tls"
            self._fail(
                refuse_unprotected(opened.reply, None, target.secured.demand) if is_tls else opened.reply,
                target.met(opened.phase),
            )
            self._opener.count(self.path, opened.phase)
            self._hear(opened, target)
            if opened.tls is not None:
                self._tell(target, tls, opened.tls)
            return None
        self._tell(target, tls, opened.outcome)
        refusal = may_carry(opened, target.secured.demand)
        if refusal is not None:
            opened.leave()
            self.give_slot_back(SLOT_AFTER_OUR_CLOSE_S)
            self._fail(refusal, target.met("tls"))
            self._opener.count(self.path, "tls")
            return None
        return opened

    def _hear(self, rejection: Rejection, target: Target) -> None:
        """Tell whoever reacts what the peer said, before the next address is tried."""
        if not rejection.reply.synthetic:
            phase = _PHASES.get(rejection.phase, rejection.phase)
            whence = Whence(self.path, self._destination, self._customer, target.host.name, phase)
            self._opener.dispatcher.hearer.heard(rejection.reply, whence)

    async def _connect(self, target: Target) -> socket.socket:
        """Return a socket that leads to the target."""
        timeout_s = self._policy.connect_timeout_s
        if target.host.path:
            return await open_unix_socket(target.host.path, timeout_s)
        if target.proxy is None:
            return await open_socket(target.source or None, target.address, target.port, timeout_s)
        host = target.proxy.host
        at = routed_host(host)
        try:
            address = (await self._opener.resolver.addresses(at, "prefer_v4"))[0]
        except ResolveError as error:
            raise NetworkError("proxy", f"{target.proxy}: {error}") from error
        peer = (target.address, target.port)
        return await open_through(target.proxy, address, target.source, peer, timeout_s)

    def _seen(self, target: Target) -> Target:
        """Return the target as the peer sees us: from the address that a proxy says it has used."""
        return target._replace(source=self._outer) if self._outer else target

    def _tell(self, target: Target, tls: TlsRequirement, outcome: TlsOutcome) -> None:
        if self._opener.on_tls is not None:
            self._opener.on_tls(self.path, self._seen(target), tls, outcome)

    def _tell_unusable(self, host: Host, unusable: Unusable, domain: str) -> None:
        target = Target(host, "", 0, "", Secured(CLEAR, HostDemand("none"), unusable.tlsa), domain)
        self._tell(target, CLEAR, TlsOutcome(unusable.result, unusable.reply.text))

    async def _connect_again(self) -> bool:
        """The next address is a connection of its own: it needs a slot and a place in the connection rate."""
        self.give_slot_back(0.0)
        path, now = self.path, self._now()
        free_at = path.limits.slots.next_free_at(path.max_connections, now)
        at = max(free_at, path.connect_ready_at(now))
        if now < at <= now + NEXT_ADDRESS_WAIT_S:
            await asyncio.sleep(at - now + 0.001)  # timers of the loop may be early by that
        self._has_slot = path.try_connect(self._now())
        return self._has_slot

    def give_slot_back(self, after_s: float) -> None:
        """The peer may still count a connection that we closed: its slot rests first."""
        if self._has_slot:
            self._has_slot = False
            now = self._now()
            self.path.limits.slots.release_at(now, now + after_s)

    def _fail(self, reply: Reply, met: Met = NOBODY) -> None:
        """Keep the last reply, but one of ours that is for good only where no host may do better later."""
        if reply.synthetic and reply.is_permanent and self.reply is not None and self.reply.is_temporary:
            return
        self.reply, self.met = reply, met


def login_of(access: Access) -> Login | None:
    """Return who to be, where the route says so."""
    return Login(access.user, access.password, access.allows_plaintext) if access.user else None
