"""Opens sessions of paths, and keeps those that are open.

Owns: open sessions and their serial numbers, what a failure holds (path and site by back-off, the vmta where
its source address is not on this host), what all tries share: TLS contexts, faults of peers.
Never: decides that a session is wanted (decide), carries mail (session).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from engine.core.errors import NetworkError
from engine.core.reply import Reply, make_reply
from engine.delivery.adapting import Adapting
from engine.delivery.attempt import Attempt, Target
from engine.delivery.beginnings import Beginnings
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.flight import Met, SessionFacts, Settler
from engine.delivery.paths import PathTable
from engine.delivery.peer_memory import PeerMemory, peer_key
from engine.delivery.session import SLOT_AFTER_OUR_CLOSE_S, Session
from engine.delivery.site_queue import SiteQueue
from engine.delivery.turned_away import TurnedAway
from engine.net.connect import OpenSession
from engine.net.handshake import ClientContexts
from engine.net.site import Host
from engine.net.tls import TlsOutcome, TlsRequirement
from engine.net.tlsa import HostTlsa
from engine.policy.model import Policy
from engine.queue.path import Path, PathLimits, SiteDemand
from engine.telemetry.events import Peer
from engine.telemetry.log import Log
from engine.telemetry.metrics import Counters

SOURCE_RECHECK_S = 2.0
SWEEP_EVERY_S = 0.25

# What a session learns that its peer offers and can't do (design section 6), and for how long it is believed.
SESSION_FAULTS = ("chunking", "pipelining")
FAULT_TTL_S = 86_400.0

log = Log("opening")


class Addresses(Protocol):
    """What opening needs of the resolver."""

    async def addresses(self, host: Host, family: str) -> list[str]: ...
    def may_be_ours(self, port: int) -> bool: ...
    async def is_ours(self, hosts: Iterable[Host], port: int = 0) -> bool: ...
    async def tlsa(self, host: Host, port: int) -> HostTlsa: ...


class Opener:
    """Opens the sessions of this shard, and keeps those that are open."""

    def __init__(
        self,
        resolver: Addresses,
        paths: PathTable,
        contexts: ClientContexts,
        counters: Counters,
        label: Callable[[str], str],
        on_unreachable: Callable[[list[SiteQueue], Reply, Path, Met], None],
    ) -> None:
        """`on_unreachable(queues, reply, path, met)`: no address of the site takes a session."""
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver
        self._paths = paths
        self._counters = counters
        self._label = label
        self._on_unreachable = on_unreachable
        self._tasks: dict[asyncio.Task[None], Path] = {}
        self._beginnings = Beginnings(self._loop)
        self._serial = 0
        self.sessions: dict[Session, None] = {}
        self.contexts = contexts
        self.memory = PeerMemory()
        self.turned_away = TurnedAway(self.memory, self._loop, lambda: self.dispatcher.unix_clock())
        # Told how TLS ended, once for each connection on which the peer was greeted.
        self.on_tls: Callable[[Path, Target, TlsRequirement, TlsOutcome], None] | None = None
        self.adapting: Adapting | None = None
        self.on_first_session: Callable[[], None] | None = None  # called when there was none
        self.dispatcher: Dispatcher  # given right after it is made, since each calls the other
        self.settler: Settler

    def open_soon(self, path: Path, demand: SiteDemand, queues: list[SiteQueue]) -> None:
        """Start opening; the dispatcher has taken the slot and counted the caps."""
        attempt = Attempt(self, path, demand, self._paths.vmtas[path.vmta])
        task = self._loop.create_task(self._open(attempt, queues))
        self._tasks[task] = path
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler({"message": "opening failed", "exception": task.exception()})

    def close(self) -> None:
        """Stop opening, for good: what is given up here must not be asked for again."""
        self.dispatcher.is_paused = True
        for task in list(self._tasks):
            task.cancel()

    def give_up(self, limits: Collection[PathLimits]) -> None:
        """Stop opening what would count in these: its vmta leaves this shard."""
        for task in [task for task, path in self._tasks.items() if path.limits in limits]:
            task.cancel()

    def stop_opening(self, paths: Collection[Path]) -> None:
        """Stop opening for paths that are held; who has just heard why goes on to say so."""
        for task in [task for task, path in self._tasks.items() if path in paths]:
            if task is not asyncio.current_task():
                task.cancel()

    def leave_host(self, host: str) -> None:
        """End the sessions to a host as soon as nothing is in flight there."""
        for session in [each for each in self.sessions if each.facts.peer.host == host]:
            session.quit()

    def trim(self) -> None:
        """End the sessions above what policy and caps allow now, first those that have nothing to do."""
        together: dict[PathLimits, list[Session]] = {}
        for session in self._staying():
            together.setdefault(session.path.limits, []).append(session)
        for sessions in together.values():
            left = len(sessions)
            for session in sessions:
                if 0 < session.path.max_connections < left:
                    session.quit()
                    left -= 1
        caps = {cap: None for session in self.sessions for cap in session.path.caps}
        for cap in [cap for cap in caps if 0 < cap.limit < cap.in_use]:
            sessions = [session for session in self._staying() if cap in session.path.caps]
            leaving = sum(each.is_quitting and cap in each.path.caps for each in self.sessions)
            for session in sessions[: max(0, cap.in_use - cap.limit - leaving)]:
                session.quit()

    def _staying(self) -> list[Session]:
        """Return the sessions that take deliveries, those that have nothing to do first."""
        staying = [session for session in self.sessions if not session.is_quitting]
        return sorted(staying, key=lambda session: not session.is_idle)

    def abort(self, limits: Collection[PathLimits]) -> None:
        """Cut off the sessions that count in these."""
        for session in [session for session in self.sessions if session.path.limits in limits]:
            session.abort()

    # -- one session ------------------------------------------------------------------------------

    async def _open(self, attempt: Attempt, queues: list[SiteQueue]) -> None:
        path = attempt.path
        try:
            await self._beginnings.wait()
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
        self, attempt: Attempt, opened: OpenSession, target: Target, queues: list[SiteQueue]
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
        if self.adapting is not None:
            self.adapting.opened(path)
        if 0 < path.max_connections < path.limits.slots.in_use(self._loop.time()):
            self.trim()  # the limit was lowered while it opened
        return True

    def _make_session(
        self, attempt: Attempt, opened: OpenSession, target: Target, queues: list[SiteQueue]
    ) -> Session:
        self._serial += 1
        path, tls = attempt.path, opened.tls
        facts = SessionFacts(
            f"{self._serial:x}",
            path.vmta,
            target.source or _local_address(opened.transport),
            attempt.vmta.hostname,
            Peer(target.host.name, target.address, target.port),
            f"{tls.version} {tls.cipher}" if tls else "",
            tls.verification if tls else "",
            tls.is_resumed if tls else False,
            str(target.proxy or ""),
            target.secured,
        )
        policy = self._paths.policy_of(path)
        now = self._loop.time()
        return Session(
            opened,
            facts,
            path,
            attempt.demand,
            queues,
            policy,
            self.dispatcher,
            self.settler,
            self._gone,
            [fault for fault in SESSION_FAULTS if self.memory.knows(target.key, fault, now)],
            self._remember_fault,
        )

    def _remember_fault(self, session: Session, fault: str) -> None:
        """A peer can't do what it offers: its next sessions do without."""
        peer = session.facts.peer
        key = peer_key(peer.host, peer.address, peer.port)
        self.memory.remember(key, fault, self._loop.time() + FAULT_TTL_S, peer.host)
        log.info("peer can't do what it offers", peer=peer.host, address=peer.address, fault=fault)

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

    def _report_failure(self, attempt: Attempt, queues: list[SiteQueue]) -> None:
        path, demand = attempt.path, attempt.demand
        if attempt.reply is None and not attempt.is_our_fault:
            attempt.reply = make_reply(451, "4.4.4", "no address to connect to")
        if attempt.is_our_fault or attempt.reply is None:
            self.dispatcher.failed_to_open(path, demand, queues, None)
            return
        if self.adapting is not None and queues:
            self.adapting.failed(path, attempt.reply, queues[0].destination.provider)
        if self.dispatcher.failed_to_open(path, demand, queues, str(attempt.reply)):
            self._on_unreachable(queues, attempt.reply, path, attempt.met)

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
        if found.proxy is None and source in found.addresses and not is_local_source(source):
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

    # -- deadlines --------------------------------------------------------------------------------

    def sweep(self) -> None:
        """End sessions whose peer takes too long; runs every SWEEP_EVERY_S."""
        now = self._loop.time()
        for session in [session for session in self.sessions if session.deadline <= now]:
            session.sweep(now)


def _local_address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("sockname")
    return str(name[0]) if name else ""
