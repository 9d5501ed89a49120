"""Everything between the store and the wire, wired as in a shard, over a store and peers in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

from engine.core.envelope import Delivery, Envelope, MessageIds
from engine.core.errors import ResolveError
from engine.core.reply import Reply, make_reply
from engine.core.terms import Terms
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.flight import NOBODY, SessionFacts
from engine.delivery.judging import Judge
from engine.delivery.paths import PathTable
from engine.delivery.readahead import ReadAhead
from engine.delivery.session import Session
from engine.delivery.settle import Dispositions
from engine.delivery.site_queue import SiteQueue
from engine.delivery.sites import SiteQueues
from engine.loading import load_shipped_policies
from engine.message.dsn import Failure
from engine.net.extensions import Extensions
from engine.net.site import Host, Site, make_site
from engine.net.sts import NOTHING, StsState
from engine.net.tlsa import NO_TLSA, HostTlsa
from engine.policy.fold import PolicySet
from engine.policy.model import Policy
from engine.policy.parse import parse_policies
from engine.queue.path import Cap, Path, SiteDemand
from engine.queue.scheduled import Window
from engine.settings.model import Pool, VirtualMTA
from engine.shard.undelivered import Undelivered
from engine.store.memory import MemoryStore
from engine.telemetry.events import Event, Peer
from engine.telemetry.labels import DestinationLabels
from engine.telemetry.metrics import Counters
from tests.fakes.virtual_loop import START
from tests.fakes.wire import ScriptedPeer

UNIX_START = 1_700_000_000.0
MESSAGE = b"From: a@acme.example\r\n\r\nhello\r\n"
UNLIMITED = """
[default]
max_message_rate = "unlimited"
max_connection_rate = "unlimited"
"""
PIPELINING = Extensions({"PIPELINING": "", "SIZE": ""}, has_pipelining=True)

_serial = itertools.count(1)


def make_policies(text: str = "") -> PolicySet:
    """Return the shipped policies without rates, and `text` over them."""
    return parse_policies([*load_shipped_policies(), ("unlimited.toml", UNLIMITED), ("test.toml", text)])


def make_vmta(name: str, address: str = "", v6: str = "") -> VirtualMTA:
    return VirtualMTA(name=name, v4=address, v6=v6, hostname=f"{name}.acme.example")


def make_delivery(
    domain: str = "x.example",
    *,
    customer: str = "acme",
    pool: str = "pool",
    recipients: int = 1,
    now: float = UNIX_START,
    sender: str = "news@acme.example",
    terms: Terms | None = None,
) -> Delivery:
    envelope = Envelope(sender, customer, pool, now, len(MESSAGE), "smtp", terms=terms)
    to = [f"u{number}@{domain}" for number in range(recipients)]
    # Ids of one maker never go backwards: each is accepted at its own `now`, whatever other tests have made.
    message_id = MessageIds(0, next(_serial).to_bytes(4, "big")).make(now)
    due_at = now if terms is None else terms.hold_until or now
    return Delivery(message_id, 0, envelope, domain, to, due_at, MESSAGE)


class FakeResolver:
    """Sites by domain; a domain is known to `lookup` once it was resolved, or at once with `is_warm`."""

    def __init__(self) -> None:
        self.sites: dict[str, Site | ResolveError] = {}
        self.known: set[str] = set()
        self.states: dict[str, StsState] = {}
        self.is_warm = True
        self.asked: list[str] = []

    def lookup(self, domain: str) -> Site | None:
        found = self._find(domain)
        return found if isinstance(found, Site) and (self.is_warm or domain in self.known) else None

    async def resolve(self, domain: str) -> Site:
        self.asked.append(domain)
        await asyncio.sleep(0.01)
        found = self._find(domain)
        if isinstance(found, ResolveError):
            raise found
        self.known.add(domain)
        return found

    async def addresses(self, host: Host, family: str) -> list[str]:
        return ["192.0.2.1"]

    def sts_of(self, domain: str) -> StsState:
        return self.states.get(domain, NOTHING)

    async def tlsa(self, host: Host, port: int) -> HostTlsa:
        return NO_TLSA

    def _find(self, domain: str) -> Site | ResolveError:
        return self.sites.get(domain) or make_site([Host(f"mx.{domain}")])


class Rig:
    """A shard's delivery; `answer(path, site)` says what a connection meets: a peer, or why there is none."""

    def __init__(
        self,
        policy: str = "",
        *,
        vmtas: dict[str, int] | None = None,
        window: tuple[int, int] = (1000, 1 << 30),
        caps: tuple[Cap, ...] = (),
        share_of: Callable[[str], int] = lambda customer: 1,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = MemoryStore(clock=self.unix)
        self.resolver = FakeResolver()
        self.events: list[Event] = []
        self.bounced: list[tuple[Delivery, list[Failure], str]] = []
        self.peers: list[tuple[Path, str, ScriptedPeer]] = []
        self.sessions: dict[Session, None] = {}
        self.answer: Callable[[Path, str], ScriptedPeer | Reply] = lambda path, site: ScriptedPeer()
        self.open_s = 0.01
        self.serial = itertools.count(1)
        self.pools = {"pool": Pool(name="pool", members=vmtas or {"v1": 1})}
        self.share_of = share_of
        self.paths = PathTable(make_policies(policy), caps, self.loop.time)
        self.paths.own([make_vmta(name) for name in self.pools["pool"].members], 0.0)
        parts: Any = self
        self.undelivered = Undelivered(parts, self.unix)
        self.dispatcher = Dispatcher(
            self.loop, self.open, self.expired, lambda queue: self.readahead.refill(queue), self.unix
        )
        self.sites = SiteQueues(self.paths, self.dispatcher, self.pools, share_of)
        self.window = Window(*window)
        self.foreign: list[Delivery] = []
        self.readahead = ReadAhead(
            self.store,
            self.resolver,
            self.sites,
            self.dispatcher,
            self.window,
            self.unix,
            pool_of=lambda customer: "pool",
            on_unresolved=self.undelivered.unresolved,
            on_foreign=self.take_foreign,
        )
        self.counters = Counters()
        self.dispositions = Dispositions(
            self.store,
            self.events.append,
            self.counters,
            DestinationLabels(),
            self,
            lambda *bounce: self.bounced.append(bounce),
            judge=Judge(self.paths.policies),
            shard=0,
            unix_clock=self.unix,
            jitter=lambda: 0.5,
        )

    def unix(self) -> float:
        return UNIX_START + self.loop.time() - START

    # -- what a test does -------------------------------------------------------------------------

    def accept(self, *deliveries: Delivery) -> None:
        """Store deliveries, as an injector's commit does."""
        for delivery in deliveries:

            def committed(error: object, delivery: Delivery = delivery) -> None:
                assert error is None
                self.readahead.arrived(delivery)

            self.store.put([delivery], delivery.message, committed)
        self.store.commit()

    async def run(self, seconds: float, step_s: float = 0.05) -> None:
        """Let time pass; what is staged is committed at each step."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            await asyncio.sleep(min(step_s, end - self.loop.time()))
            self.store.commit()
            self.sweep()

    def sweep(self) -> None:
        now = self.loop.time()
        for session in [each for each in self.sessions if each.deadline <= now]:
            session.sweep(now)

    def told(self, event: str) -> list[Event]:
        return [each for each in self.events if each.event == event]

    def count(self, event: str) -> int:
        return len(self.told(event))

    def messages(self, vmta: str = "", site: str = "") -> list[tuple[str, list[str], float]]:
        """Return what peers have taken."""
        return [
            message
            for path, name, peer in self.peers
            if vmta in ("", path.vmta) and site in ("", name)
            for message in peer.messages
        ]

    def close(self) -> None:
        self.readahead.close()

    # -- opening ----------------------------------------------------------------------------------

    def open(self, path: Path, demand: SiteDemand, queues: list[SiteQueue]) -> None:
        self.loop.call_later(self.open_s, self._opened, path, demand, queues)

    def _opened(self, path: Path, demand: SiteDemand, queues: list[SiteQueue]) -> None:
        met = self.answer(path, demand.site)
        if isinstance(met, Reply):
            self._give_back(path, self.loop.time())
            if self.dispatcher.failed_to_open(path, demand, queues, str(met)):
                self.undelivered.unreachable(queues, met, path, NOBODY)
            return
        self.peers.append((path, demand.site, met))
        session = make_session(self, path, demand, queues, serial=next(self.serial))
        self.sessions[session] = None
        met.connect(session)

    def _give_back(self, path: Path, at: float) -> None:
        path.limits.slots.release_at(self.loop.time(), at)
        for cap in path.caps:
            cap.in_use -= 1

    def gone(self, session: Session, slot_at: float) -> None:
        del self.sessions[session]
        self._give_back(session.path, slot_at)
        if slot_at > self.loop.time():
            self.loop.call_at(slot_at, self.dispatcher.kick, session.path)

    # -- what becomes of deliveries ---------------------------------------------------------------

    def settle(self, *arguments: Any) -> None:
        self.dispositions.settle(*arguments)

    def put_back(self, *arguments: Any) -> None:
        self.dispositions.put_back(*arguments)

    def deferred(self, delivery: Delivery) -> None:
        self.readahead.left(delivery)

    def ended(self, delivery: Delivery) -> None:
        self.readahead.left(delivery)

    def ready_again(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        self.readahead.ready_again(delivery, site_queue)

    def expired(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        policy = site_queue.policy_of(delivery.envelope.customer)
        self.dispositions.expire(delivery, policy, site_queue)

    def policy_for(self, customer: str, domain: str) -> Policy:
        policies = self.paths.policies
        return policies.effective(policies.destination(domain, "", ()), customer)

    def take_foreign(self, delivery: Delivery) -> bool:
        self.foreign.append(delivery)
        return False


def make_session(
    rig: Any,
    path: Path,
    demand: SiteDemand,
    queues: list[SiteQueue],
    *,
    serial: int = 1,
    extensions: Extensions = PIPELINING,
    faults: Collection[str] = (),
) -> Session:
    """Return a session as the opener makes it; `rig` is dispatcher's, settler's and `gone`'s owner."""
    opened: Any = SimpleNamespace(extensions=extensions)
    facts = SessionFacts(
        str(serial), path.vmta, "192.0.2.9", f"{path.vmta}.acme.example", Peer("mx", "192.0.2.1", 25), ""
    )
    policy = rig.paths.policy_of(path)
    on_fault = getattr(rig, "on_fault", None)
    return Session(
        opened, facts, path, demand, queues, policy, rig.dispatcher, rig, rig.gone, faults, on_fault
    )


REFUSED = make_reply(451, "4.4.1", "connect: 192.0.2.1 port 25: Connection refused")
