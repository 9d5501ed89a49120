"""Opens one session of a path, host by host and address by address.

Owns: connection slots while a session is being opened, the vmta's source for each family, what a
failure holds (path and site by back-off, the vmta where its source address is not on this host).
Never: decides that a session is wanted (decide), carries mail (session).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

from msgspec import structs

from engine.core.errors import (
    NetworkError,
    RemoteProtocolError,
    ResolveError,
    ResolvePermanent,
    SourceUnavailable,
)
from engine.core.reply import Reply, make_reply
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.paths import PathTable
from engine.delivery.session import SLOT_AFTER_OUR_CLOSE_S, Session, SessionFacts, Settler
from engine.delivery.site_queue import SiteQueue
from engine.net.connect import OpenSession, OpenTimeouts, Rejection, open_session, open_socket
from engine.net.extensions import Extensions
from engine.net.site import Host, order_hosts, pick_family
from engine.policy.model import Policy
from engine.queue.path import Path, SiteDemand
from engine.settings.model import VirtualMTA
from engine.telemetry.events import Peer
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

# How many addresses one try goes through (Postfix: smtp_mx_address_limit = 5).
MAX_ADDRESSES = 5
SOURCE_RECHECK_S = 2.0
LOCAL_PAUSE_S = 1.0  # where this host has no descriptor or port left, the path is asked again after so long
# The next address needs a slot too; the last one's rests for SLOT_AFTER_OUR_CLOSE_S where the peer was met.
NEXT_ADDRESS_WAIT_S = SLOT_AFTER_OUR_CLOSE_S + 1.0
SWEEP_EVERY_S = 0.25

log = Log("opening")


class Addresses(Protocol):
    """What opening needs of the resolver."""

    async def addresses(self, host: Host, family: str) -> list[str]: ...


class Target(NamedTuple):
    """One address to try."""

    host: Host
    address: str
    port: int
    source: str


class Opener:
    """Opens the sessions of this shard, and keeps those that are open."""

    def __init__(
        self,
        resolver: Addresses,
        paths: PathTable,
        tls_context: Callable[[], ssl.SSLContext],
        counters: Counters,
        label: Callable[[str], str],
        on_unreachable: Callable[[list[SiteQueue], Reply, Path], None],
    ) -> None:
        """`on_unreachable(queues, reply, path)`: no address of the site takes a session."""
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver
        self._paths = paths
        self._tls_context = tls_context
        self._counters = counters
        self._label = label
        self._on_unreachable = on_unreachable
        self._tasks: set[asyncio.Task[None]] = set()
        self._serial = 0
        self.sessions: dict[Session, None] = {}
        self.on_first_session: Callable[[], None] | None = None  # called when there was none
        self.dispatcher: Dispatcher  # given right after it is made, since each calls the other
        self.settler: Settler

    def open_soon(self, path: Path, demand: SiteDemand, queues: list[SiteQueue]) -> None:
        """Start opening; the dispatcher has taken the slot and counted the caps."""
        attempt = _Attempt(self, path, demand, self._paths.vmtas[path.vmta])
        task = self._loop.create_task(self._open(attempt, queues))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler({"message": "opening failed", "exception": task.exception()})

    def close(self) -> None:
        """Stop opening, for good: what is given up here must not be asked for again."""
        self.dispatcher.is_paused = True
        for task in list(self._tasks):
            task.cancel()

    # -- one session ------------------------------------------------------------------------------

    async def _open(self, attempt: _Attempt, queues: list[SiteQueue]) -> None:
        path = attempt.path
        try:
            opened = await attempt.run(queues)
        except BaseException:
            attempt.give_slot_back(SLOT_AFTER_OUR_CLOSE_S)
            self._uncount(path)
            self.dispatcher.failed_to_open(path, attempt.demand, queues, None)
            raise
        if opened is None or not self._hand_over(attempt, *opened, queues):
            attempt.give_slot_back(0.0)
            self._uncount(path)
            self._report_failure(attempt, queues)

    def _hand_over(
        self, attempt: _Attempt, opened: OpenSession, target: Target, queues: list[SiteQueue]
    ) -> bool:
        """Make a session of an open connection; False where its vmta went away, or the peer has closed."""
        path = attempt.path
        if path.vmta not in self._paths.vmtas:
            opened.close()
            attempt.give_slot_back(SLOT_AFTER_OUR_CLOSE_S)
            attempt.is_our_fault = True
            return False
        session = self._make_session(attempt, opened, target, queues)
        if not self.sessions and self.on_first_session is not None:
            self.on_first_session()
        self.sessions[session] = None
        try:
            opened.hand_over(session)
        except NetworkError as error:
            del self.sessions[session]
            attempt.reply = make_reply(451, "4.4.2", str(error))
            self.count(path, error.phase)
            return False
        self.count(path, "opened")
        return True

    def _make_session(
        self, attempt: _Attempt, opened: OpenSession, target: Target, queues: list[SiteQueue]
    ) -> Session:
        self._serial += 1
        path = attempt.path
        facts = SessionFacts(
            f"{self._serial:x}",
            path.vmta,
            target.source or _local_address(opened.transport),
            attempt.vmta.hostname,
            Peer(target.host.name, target.address, target.port),
            f"{opened.tls.version} {opened.tls.cipher}" if opened.tls else "",
        )
        policy = within_limits(self._paths.policy_of(path), opened.extensions)
        return Session(
            opened, facts, path, attempt.demand, queues, policy, self.dispatcher, self.settler, self._gone
        )

    def _gone(self, session: Session, slot_at: float) -> None:
        self.sessions.pop(session, None)
        path = session.path
        path.limits.slots.release_at(self._loop.time(), slot_at)
        self._uncount(path)
        if slot_at > self._loop.time():
            self._loop.call_at(slot_at, self.dispatcher.kick, path)

    def _uncount(self, path: Path) -> None:
        for cap in path.caps:
            cap.in_use -= 1

    def _report_failure(self, attempt: _Attempt, queues: list[SiteQueue]) -> None:
        path, demand = attempt.path, attempt.demand
        if attempt.reply is None and not attempt.is_our_fault:
            attempt.reply = make_reply(451, "4.4.4", "no address to connect to")
        if attempt.is_our_fault or attempt.reply is None:
            self.dispatcher.failed_to_open(path, demand, queues, None)
            return
        if self.dispatcher.failed_to_open(path, demand, queues, str(attempt.reply)):
            self._on_unreachable(queues, attempt.reply, path)

    def count(self, path: Path, result: str) -> None:
        """Count a try to open by its result."""
        label = self._label(path.destination)
        self._counters.counter("mailrail_sessions_opened_total", destination=label, result=result)[0] += 1

    # -- a source address that is not on the host ---------------------------------------------------

    def hold_source(self, path: Path, source: str, detail: str) -> None:
        """Hold the vmta until its source address is on this host again."""
        key = f"source {source}"
        if path.vmta not in self._paths.vmtas or key in self._paths.held_vmtas().get(path.vmta, ()):
            return
        self._paths.hold_vmta(path.vmta, key, f"source address {source} is not on this host", float("inf"))
        log.warning("vmta held", vmta=path.vmta, source=source, reason=detail)
        self._loop.call_later(SOURCE_RECHECK_S, self._recheck_source, path.vmta, source)

    def _recheck_source(self, vmta: str, source: str) -> None:
        from engine.net.listen import is_local_source

        found = self._paths.vmtas.get(vmta)
        if found is None:
            return
        if source in (found.v4, found.v6) and not is_local_source(source):
            self._loop.call_later(SOURCE_RECHECK_S, self._recheck_source, vmta, source)
            return
        log.info("vmta released", vmta=vmta, source=source)
        for path in self._paths.release_vmta(vmta, f"source {source}"):
            self.dispatcher.kick(path)

    def policy_of(self, path: Path) -> Policy:
        return self._paths.policy_of(path)

    @property
    def resolver(self) -> Addresses:
        return self._resolver

    def tls_for(self, policy: Policy) -> ssl.SSLContext | None:
        return None if policy.tls == "none" else self._tls_context()

    # -- deadlines --------------------------------------------------------------------------------

    def sweep(self) -> None:
        """End sessions whose peer takes too long; runs every SWEEP_EVERY_S."""
        now = self._loop.time()
        for session in [session for session in self.sessions if session.deadline <= now]:
            session.sweep(now)


class _Attempt:
    """One try to open one session, over the hosts of its site."""

    def __init__(self, opener: Opener, path: Path, demand: SiteDemand, vmta: VirtualMTA) -> None:
        self.vmta = vmta  # as it is now: it may leave this shard while we connect
        self.path = path
        self.demand = demand
        self.reply: Reply | None = None
        self.is_our_fault = False
        self._opener = opener
        self._now = asyncio.get_running_loop().time
        self._has_slot = True
        self._policy = opener.policy_of(path)

    async def run(self, queues: list[SiteQueue]) -> tuple[OpenSession, Target] | None:
        """Return the first session that opens."""
        if not queues:
            self.is_our_fault = True
            return None
        is_first = True
        async for target in self._targets(queues):
            if not is_first and not await self._connect_again():
                return None
            is_first = False
            opened = await self._try(target)
            if opened is not None:
                return opened, target
            if self.is_our_fault:
                return None
        return None

    async def _targets(self, queues: list[SiteQueue]) -> AsyncIterator[Target]:
        """Yield addresses of the site, most preferred host first; only families that have a source."""
        vmta = self.vmta
        family = pick_family(self._policy.address_family, [each for each in (vmta.v4, vmta.v6) if each])
        if not family:
            self._fail(
                make_reply(
                    451, "4.4.4", f"vmta {vmta.name} has no source of family {self._policy.address_family}"
                )
            )
            return
        left = MAX_ADDRESSES
        for host in order_hosts(queues[0].site, random.shuffle):
            try:
                addresses = await self._opener.resolver.addresses(host, family)
            except ResolvePermanent as error:
                if self.reply is None:  # another family might do where ours was narrowed
                    is_narrowed = family in ("v4", "v6")
                    self._fail(make_reply(451, "4.4.4", str(error)) if is_narrowed else error.reply)
                continue
            except ResolveError as error:
                self._fail(make_reply(451, "4.4.3", str(error)))
                continue
            for address in addresses:
                if not left:
                    return
                left -= 1
                source = vmta.v6 if ":" in address else vmta.v4
                yield Target(host, address, host.port or self._policy.port, source)

    async def _try(self, target: Target) -> OpenSession | None:
        policy = self._policy
        try:
            sock = await open_socket(
                target.source or None, target.address, target.port, policy.connect_timeout_s
            )
        except SourceUnavailable as error:
            self.is_our_fault = True
            self._opener.hold_source(self.path, target.source, error.detail)
            return None
        except NetworkError as error:
            if error.phase == "local":
                self.is_our_fault = True
                self.path.hold("local", str(error), self._now() + LOCAL_PAUSE_S)
            self._fail(make_reply(451, "4.4.1", str(error)))
            self._opener.count(self.path, error.phase)
            return None
        timeouts = OpenTimeouts(policy.greeting_timeout_s, policy.ehlo_timeout_s, policy.tls_timeout_s)
        try:
            opened = await open_session(
                sock,
                peer_host=target.host.name,
                helo=self.vmta.hostname,
                timeouts=timeouts,
                tls=policy.tls,
                tls_context=self._opener.tls_for(policy),
            )
        except (NetworkError, RemoteProtocolError) as error:
            self.give_slot_back(SLOT_AFTER_OUR_CLOSE_S)
            self._fail(make_reply(451, "4.4.2", f"{target.host.name}[{target.address}] {error}"))
            self._opener.count(self.path, getattr(error, "phase", "protocol"))
            return None
        if isinstance(opened, Rejection):
            self.give_slot_back(SLOT_AFTER_OUR_CLOSE_S)
            self._fail(opened.reply)
            self._opener.count(self.path, opened.phase)
            return None
        return opened

    async def _connect_again(self) -> bool:
        """The next address is a connection of its own: it needs a slot and a place in the connection rate."""
        self.give_slot_back(0.0)
        path, now = self.path, self._now()
        free_at = path.limits.slots.next_free_at(path.policy.max_connections, now)
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

    def _fail(self, reply: Reply) -> None:
        self.reply = reply


def _local_address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("sockname")
    return str(name[0]) if name else ""


def within_limits(policy: Policy, extensions: Extensions) -> Policy:
    """Return the policy towards a peer that names limits of its own (RFC 9422): the smaller ones hold."""
    if not (extensions.mail_max or extensions.rcpt_max):
        return policy
    messages, recipients = policy.max_messages_per_connection, policy.max_recipients_per_message
    return structs.replace(
        policy,
        max_messages_per_connection=min(messages, extensions.mail_max or messages),
        max_recipients_per_message=min(recipients, extensions.rcpt_max or recipients),
    )
