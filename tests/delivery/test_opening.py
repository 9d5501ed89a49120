"""opening: from a decision to an open session, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from engine.core.envelope import Delivery
from engine.core.errors import NetworkError, ResolvePermanent, ResolveTemporary
from engine.core.reply import Reply, make_reply
from engine.delivery import attempt, opening
from engine.delivery.dispatcher import Dispatcher
from engine.delivery.flight import NOBODY, Flight, Met
from engine.delivery.opening import FAULT_TTL_S, Opener
from engine.delivery.paths import PathTable
from engine.delivery.peer_memory import peer_key
from engine.delivery.session import Session
from engine.delivery.site_queue import SiteQueue
from engine.delivery.sites import SiteQueues
from engine.net.handshake import ClientContexts
from engine.net.site import Host, Site, make_site
from engine.net.tlsa import NO_TLSA, HostTlsa
from engine.queue.path import Path
from engine.settings.model import Pool, VirtualMTA
from engine.smtp.client import Outcome
from engine.telemetry.events import Peer as Peer_
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import make_delivery, make_policies

PLAIN = '[default]\ntls = "none"\naddress_family = "v4"\n'


_rigs: list[Rig] = []


def on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    """Run a test; whatever becomes of it, no session outlives its loop, which would wait for it."""

    async def run() -> None:
        try:
            await main
        finally:
            for rig in _rigs:
                rig.opener.close()
                for session in list(rig.opener.sessions):
                    session.abort()
            _rigs.clear()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


class Peer:
    """An SMTP server on one address; `greeting` may be a refusal."""

    def __init__(self, greeting: bytes = b"220 mx ready\r\n") -> None:
        self.greeting = greeting
        self.clients: list[str] = []
        self.names: list[str] = []
        self.messages = 0
        self.at_once = self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(writer.get_extra_info("peername")[0])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)
        self.at_once -= 1
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.gate.wait()
        writer.write(self.greeting)
        while line := (await reader.readline()).decode().strip():
            verb = line[:4].upper()
            if verb == "EHLO":
                self.names.append(line[5:])
                writer.write(b"250-mx\r\n250 PIPELINING\r\n")
            elif verb == "DATA":
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                self.messages += 1
                writer.write(b"250 2.0.0 taken\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")

    @contextlib.asynccontextmanager
    async def listen(self, address: str, port: int = 0) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.serve, address, port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self.port
        finally:
            server.close()


class Rig:
    """A dispatcher and an opener on real sockets; addresses of hosts are what the test says."""

    def __init__(self, policy: str = "", *, vmta: VirtualMTA | None = None) -> None:
        _rigs.append(self)
        self.loop = asyncio.get_running_loop()
        self.addresses_of: dict[str, list[str] | Exception] = {}
        self.own: set[str] = set()  # hosts that are this installation
        self.settled: list[tuple[Flight, Outcome]] = []
        self.unreachable: list[Reply] = []
        self.met: list[Met] = []
        self.counters = Counters()
        self.paths = PathTable(make_policies(PLAIN + policy), (), self.loop.time)
        vmta = vmta or VirtualMTA(name="v1", v4="127.0.0.9", v6="", hostname="v1.acme.example")
        self.paths.own([vmta], 0.0)
        self.opener = Opener(
            self, self.paths, ClientContexts(), self.counters, lambda name: "other", self.note_unreachable
        )
        self.dispatcher = Dispatcher(
            self.loop, self.opener.open_soon, lambda delivery, queue: None, lambda queue: None, time.time
        )
        self.opener.dispatcher = self.dispatcher
        self.opener.settler = self
        pools = {"pool": Pool(name="pool", members={vmta.name: 1})}
        self.sites = SiteQueues(self.paths, self.dispatcher, pools, lambda customer: 1)

    def may_be_ours(self, port: int) -> bool:
        return True

    async def is_ours(self, hosts: Iterable[Host], port: int = 0) -> bool:
        return any(not {host.name, f"{host.name}:{host.port or port}"}.isdisjoint(self.own) for host in hosts)

    async def addresses(self, host: Host, family: str) -> list[str]:
        found = self.addresses_of[host.name]
        if isinstance(found, Exception):
            raise found
        return found

    async def tlsa(self, host: Host, port: int) -> HostTlsa:
        return NO_TLSA

    def settle(self, flight: Flight, outcome: Outcome, session: Session) -> None:
        self.settled.append((flight, outcome))

    def put_back(self, flight: Flight) -> None:
        flight.site_queue.queue.push_front(flight.delivery)

    def push(self, site: Site, *deliveries: Delivery) -> SiteQueue:
        queue = self.sites.find("pool", "acme", "x.example", site)
        assert queue is not None
        for delivery in deliveries:
            delivery.expires_at = time.time() + 1000.0
            queue.queue.push(delivery, 1000)
        self.dispatcher.pushed(queue)
        return queue

    def note_unreachable(self, queues: list[SiteQueue], reply: Reply, path: Path, met: Met) -> None:
        self.unreachable.append(reply)
        self.met.append(met)

    @property
    def path(self) -> Path:
        (path,) = self.paths.paths.values()
        return path

    def in_use(self) -> int:
        return self.path.limits.slots.in_use(self.loop.time())

    def opened(self) -> dict[str, float]:
        rows = self.counters.snapshot()["counters"]
        return {labels[1]: value for name, labels, value in rows if name.endswith("opened_total")}


async def until(is_so: Callable[[], Any], seconds: float = 5.0) -> None:
    """Return when it is so; fails where it does not come to be."""
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.002)


def site_of(*hosts: str, port: int) -> Site:
    return make_site([Host(name, preference=rank, port=port) for rank, name in enumerate(hosts)])


def scene(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        on_uvloop(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


@scene
async def test_a_session_leaves_from_the_vmtas_address_under_its_name() -> None:
    """RFC 5321 section 4.1.1.1."""
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig()
        rig.addresses_of["mx"] = ["127.0.0.1"]
        rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: rig.settled)
        assert (peer.clients, peer.names, peer.messages) == (["127.0.0.9"], ["v1.acme.example"], 1)
        (session,) = rig.opener.sessions
        assert (session.facts.source, session.facts.peer.port) == ("127.0.0.9", port)
        assert rig.opened() == {"opened": 1}
        session.quit()
        await until(lambda: not rig.opener.sessions)
        assert rig.in_use() == 0


@scene
async def test_without_a_source_the_kernels_choice_is_told() -> None:
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig(vmta=VirtualMTA(name="v1", v4="", v6="", hostname="v1.acme.example"))
        rig.addresses_of["mx"] = ["127.0.0.1"]
        rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: rig.settled)
        (session,) = rig.opener.sessions
        assert session.facts.source == "127.0.0.1"
        session.quit()
        await until(lambda: not rig.opener.sessions)


@scene
async def test_the_next_address_and_the_next_host_are_tried() -> None:
    """RFC 5321 section 5.1."""
    peer = Peer()
    async with peer.listen("127.0.0.4") as port:
        rig = Rig("max_connections = 1")
        rig.addresses_of = {"mx1": ["127.0.0.2", "127.0.0.3"], "mx2": ["127.0.0.4"]}
        rig.push(site_of("mx1", "mx2", port=port), make_delivery())
        await until(lambda: rig.settled)
        (session,) = rig.opener.sessions
        assert (session.facts.peer.host, session.facts.peer.address) == ("mx2", "127.0.0.4")
        assert not rig.unreachable
        session.quit()
        await until(lambda: not rig.opener.sessions)


@scene
async def test_a_host_that_has_no_address_is_passed_over() -> None:
    """RFC 5321 section 5.1."""
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig()
        rig.addresses_of = {
            "mx1": ResolvePermanent("mx1", "has no address", make_reply(550, "5.4.4", "no")),
            "mx2": ResolveTemporary("mx2", "SERVFAIL"),
            "mx3": ["127.0.0.1"],
        }
        rig.push(site_of("mx1", "mx2", "mx3", port=port), make_delivery())
        await until(lambda: rig.settled)
        for session in list(rig.opener.sessions):
            session.quit()
        await until(lambda: not rig.opener.sessions)


@scene
async def test_many_addresses_of_a_host_leave_some_tries_for_the_next_one() -> None:
    """RFC 5321 section 5.1: the limit on addresses must not hide the hosts that are less preferred."""
    peer = Peer()
    async with peer.listen("127.0.0.9") as port:
        rig = Rig()
        rig.addresses_of = {"mx1": [f"127.0.0.{n}" for n in range(2, 8)], "mx2": ["127.0.0.8", "127.0.0.9"]}
        rig.push(site_of("mx1", "mx2", port=port), make_delivery())
        await until(lambda: rig.settled)
        assert rig.opened() == {"connect": 4, "opened": 1}
        for session in list(rig.opener.sessions):
            session.quit()
        await until(lambda: not rig.opener.sessions)


@scene
async def test_of_hosts_without_an_address_one_that_another_family_might_reach_makes_mail_wait() -> None:
    """RFC 5321 section 5.1: none of it is for good as long as one host may be met."""
    gone = ResolvePermanent("mx1", "does not exist", make_reply(550, "5.4.4", "no"))
    narrowed = ResolvePermanent(
        "mx2", "has no IPv4 address", make_reply(550, "5.4.4", "no"), is_narrowed=True
    )
    for order in ((gone, narrowed), (narrowed, gone)):
        rig = Rig()
        rig.addresses_of = {"mx1": order[0], "mx2": order[1]}
        rig.push(site_of("mx1", "mx2", port=25), make_delivery())
        await until(lambda rig=rig: rig.unreachable)
        assert (rig.unreachable[0].code, rig.unreachable[0].enhanced) == (451, "4.4.4")


@scene
async def test_hosts_that_do_not_exist_are_for_good_whatever_the_family() -> None:
    """RFC 5321 section 5.1: a name that does not exist is permanent; the vmta here has IPv4 alone."""
    rig = Rig()
    rig.addresses_of["mx"] = ResolvePermanent("mx", "does not exist", make_reply(550, "5.4.4", "no"))
    rig.push(site_of("mx", port=25), make_delivery())
    await until(lambda: rig.unreachable)
    assert (rig.unreachable[0].code, rig.met) == (550, [NOBODY])


@scene
async def test_who_refused_a_session_is_told() -> None:
    refusing, silent = Peer(b"554 no\r\n"), Peer()
    async with refusing.listen("127.0.0.2") as port:
        rig = Rig()
        rig.addresses_of["mx"] = ["127.0.0.2"]
        rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: rig.unreachable)
        assert rig.met == [Met(Peer_("mx", "127.0.0.2", port), "greeting")]
    async with silent.listen("127.0.0.2") as port:
        pass
    rig = Rig()
    rig.addresses_of["mx"] = ["127.0.0.2"]
    rig.push(site_of("mx", port=port), make_delivery())
    await until(lambda: rig.unreachable)
    assert rig.met == [Met(Peer_("mx", "127.0.0.2", port), "connect")]


@scene
async def test_at_a_host_that_refuses_to_greet_the_next_one_waits_for_the_slot() -> None:
    """RFC 5321 section 3.1, a 554. Its slot rests for 5 s; else the backup would never be met."""
    bad, good = Peer(b"554 no service here\r\n"), Peer()
    rests, attempt.SLOT_AFTER_OUR_CLOSE_S = attempt.SLOT_AFTER_OUR_CLOSE_S, 0.2
    try:
        async with bad.listen("127.0.0.2") as port, good.listen("127.0.0.3", port):
            rig = Rig("max_connections = 1")
            rig.addresses_of = {"mx1": ["127.0.0.2"], "mx2": ["127.0.0.3"]}
            rig.push(site_of("mx1", "mx2", port=port), make_delivery())
            await until(lambda: rig.settled)
            assert (len(bad.clients), good.messages) == (1, 1)
            assert rig.opened() == {"greeting": 1, "opened": 1}
            for session in list(rig.opener.sessions):
                session.quit()
            await until(lambda: not rig.opener.sessions)
    finally:
        attempt.SLOT_AFTER_OUR_CLOSE_S = rests


@scene
async def test_a_site_that_refuses_connections_backs_off_and_its_slot_is_free() -> None:
    async with Peer().listen("127.0.0.1") as port:
        pass
    rig = Rig()
    rig.addresses_of["mx"] = ["127.0.0.1"]
    rig.push(site_of("mx", port=port), make_delivery())
    await until(lambda: rig.unreachable)
    assert rig.unreachable[0].enhanced == "4.4.1"
    assert "Connection refused" in rig.unreachable[0].text
    assert rig.in_use() == 0
    (demand,) = rig.path.sites.values()
    assert (demand.failures, demand.opening) == (1, 0)
    assert demand.retry_at > rig.loop.time()
    assert rig.opened() == {"connect": 1}


@scene
async def test_a_refused_greeting_is_the_reply_and_its_slot_rests() -> None:
    peer = Peer(b"421 4.7.0 too many connections\r\n")
    async with peer.listen("127.0.0.1") as port:
        rig = Rig()
        rig.addresses_of["mx"] = ["127.0.0.1"]
        rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: rig.unreachable)
        assert str(rig.unreachable[0]) == "421 4.7.0 too many connections"
        assert rig.in_use() == 1
        assert rig.path.limits.slots.in_use(rig.loop.time() + 5.1) == 0


@scene
async def test_openings_are_told_to_who_adapts() -> None:
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig()
        told: list[object] = []
        rig.opener.adapting = SimpleNamespace(  # type: ignore[assignment]
            opened=lambda path: told.append(path),
            failed=lambda path, reply, provider: told.append((path, reply.code, provider)),
        )
        rig.addresses_of["mx"] = ["127.0.0.1"]
        rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: rig.settled)
        peer.greeting = b"421 4.7.0 too many connections\r\n"
        for session in rig.opener.sessions:
            session.quit()
        rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: len(told) == 2, 10.0)
        assert told == [rig.path, (rig.path, 421, "")]


@scene
async def test_tries_made_at_once_that_fail_are_told_once() -> None:
    peer = Peer(b"421 4.7.0 not now\r\n")
    peer.gate.clear()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig("max_connections = 4")
        rig.addresses_of["mx"] = ["127.0.0.1"]
        queue = rig.push(site_of("mx", port=port), *[make_delivery() for _ in range(100)])
        while queue.opening < 4:
            await asyncio.sleep(0.01)
            rig.dispatcher.kick(rig.path)
        await until(lambda: peer.at_once == 4)
        peer.gate.set()
        await until(lambda: rig.opened().get("greeting") == 4)
        await until(lambda: not queue.opening)
        assert len(rig.unreachable) == 1
        (demand,) = rig.path.sites.values()
        assert demand.failures == 1


@scene
async def test_a_source_that_is_not_here_holds_the_vmta_and_counts_as_no_failure() -> None:
    rig = Rig(vmta=VirtualMTA(name="v1", v4="192.0.2.77", v6="", hostname="v1.acme.example"))
    rig.addresses_of["mx"] = ["127.0.0.1"]
    rig.push(site_of("mx", port=25), *[make_delivery() for _ in range(50)])
    await until(lambda: rig.path.holds)
    assert rig.path.hold_in_force(rig.loop.time()) == (
        "source address 192.0.2.77 is not on this host",
        float("inf"),
    )
    await until(lambda: not rig.path.sessions)
    (demand,) = rig.path.sites.values()
    assert demand.failures == 0
    assert not rig.unreachable
    assert rig.in_use() == 0


@pytest.mark.parametrize("change", ["address comes", "configuration changes"])
def test_a_vmta_is_released_when_its_source_is_here_or_another(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(opening, "SOURCE_RECHECK_S", 0.02)
        here: set[str] = set()
        monkeypatch.setattr("engine.net.listen.is_local_source", lambda address: address in here)
        peer = Peer()
        async with peer.listen("127.0.0.1") as port:
            rig = Rig(vmta=VirtualMTA(name="v1", v4="192.0.2.77", v6="", hostname="v1.acme.example"))
            rig.addresses_of["mx"] = ["127.0.0.1"]
            rig.push(site_of("mx", port=port), make_delivery())
            await until(lambda: rig.path.holds)
            await asyncio.sleep(0.1)
            assert rig.path.holds
            new = VirtualMTA(name="v1", v4="127.0.0.9", v6="", hostname="v1.acme.example")
            rig.paths.own([new], 0.0)
            if change == "address comes":
                here.add("192.0.2.77")
            await until(lambda: rig.settled)
            assert peer.clients == ["127.0.0.9"]

    on_uvloop(main())


@scene
async def test_a_host_without_descriptors_waits_a_moment_and_blames_no_peer() -> None:
    rig = Rig()
    rig.addresses_of["mx"] = ["127.0.0.1"]
    tries = 0

    async def no_descriptor(*_: Any) -> Any:
        nonlocal tries
        tries += 1
        raise NetworkError("local", "no socket: Too many open files")

    real, attempt.open_socket = attempt.open_socket, no_descriptor  # type: ignore[assignment]
    try:
        rig.push(site_of("mx", port=25), make_delivery())
        await until(lambda: rig.path.holds)
        await asyncio.sleep(0.1)
        assert tries == 1
        assert "Too many open files" in rig.path.holds["local"].reason
        (demand,) = rig.path.sites.values()
        assert demand.failures == 0
        assert not rig.unreachable
    finally:
        attempt.open_socket = real


@scene
async def test_a_vmta_without_the_family_is_told() -> None:
    rig = Rig(vmta=VirtualMTA(name="v1", v4="", v6="::1", hostname="h.example"))
    rig.addresses_of["mx"] = ["127.0.0.1"]
    rig.push(site_of("mx", port=25), make_delivery())
    await until(lambda: rig.unreachable)
    assert rig.unreachable[0].text == "vmta v1 has no source of family v4"


@scene
async def test_a_vmta_that_leaves_while_its_session_opens_takes_nothing_with_it() -> None:
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig()
        rig.addresses_of["mx"] = ["127.0.0.1"]
        peer.gate.clear()
        queue = rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: peer.clients)
        path = rig.path
        for each in rig.paths.disown(["v1"]):
            rig.dispatcher.forget_path(each)
        peer.gate.set()
        await until(lambda: not peer.at_once)
        await until(lambda: not path.sites)
        assert path.limits.slots.in_use(rig.loop.time() + 5.1) == 0
        assert not rig.opener.sessions
        peer.gate.set()
        assert queue.opening == 0
        assert len(queue.queue) == 1
        assert not rig.unreachable


@scene
async def test_what_stops_opening_gives_slots_back() -> None:
    silent = Peer(b"")
    async with silent.listen("127.0.0.1") as port:
        rig = Rig()
        rig.addresses_of["mx"] = ["127.0.0.1"]
        queue = rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: silent.clients)
        rig.opener.close()
        await until(lambda: not queue.opening)
        assert rig.path.limits.slots.in_use(rig.loop.time() + 6.0) == 0


@scene
async def test_max_connections_as_the_peer_counts_them() -> None:
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig("max_connections = 2\nmax_messages_per_connection = 3")
        rig.addresses_of["mx"] = ["127.0.0.1"]
        rig.push(site_of("mx", port=port), *[make_delivery() for _ in range(40)])
        await until(lambda: len(rig.settled) == 40)
        assert peer.most_at_once <= 2
        assert len(peer.clients) >= 13
        for session in list(rig.opener.sessions):
            session.quit()
        await until(lambda: not rig.opener.sessions)


@scene
async def test_the_sweep_ends_sessions_whose_time_is_over() -> None:
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig()
        rig.addresses_of["mx"] = ["127.0.0.1"]
        rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: rig.settled)
        (session,) = rig.opener.sessions
        rig.opener.sweep()
        assert session.deadline > rig.loop.time()
        session.deadline = 0.0
        rig.opener.sweep()
        await until(lambda: not rig.opener.sessions)
        assert rig.in_use() == 0


async def open_sessions(rig: Rig, peer: Peer, port: int, count: int) -> SiteQueue:
    """Have so many connections on their way, which the peer does not greet yet."""
    peer.gate.clear()
    rig.addresses_of["mx"] = ["127.0.0.1"]
    queue = rig.push(site_of("mx", port=port), *[make_delivery() for _ in range(40)])
    await until(lambda: rig.dispatcher.kick(rig.path) or peer.at_once == count)
    return queue


@scene
async def test_sessions_above_a_lowered_limit_end_and_those_that_work_last() -> None:
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig("max_connections = 3\n")
        await open_sessions(rig, peer, port, 3)
        peer.gate.set()
        await until(lambda: len(rig.settled) == 40 and all(each.is_idle for each in rig.opener.sessions))
        _, working, _ = rig.opener.sessions
        working._is_idle = False
        rig.paths.replace_policies(make_policies(PLAIN + "max_connections = 1\n"))
        rig.opener.trim()
        rig.opener.trim()
        await until(lambda: len(rig.opener.sessions) == 1)
        assert list(rig.opener.sessions) == [working]
        assert rig.in_use() == 1


@scene
async def test_sessions_above_a_lowered_cap_end_too() -> None:
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig("max_connections = 3\n")
        await open_sessions(rig, peer, port, 3)
        peer.gate.set()
        await until(lambda: len(rig.settled) == 40 and all(each.is_idle for each in rig.opener.sessions))
        rig.paths.vmta_cap("v1").limit = 2
        rig.opener.trim()
        rig.opener.trim()
        await until(lambda: rig.in_use() == 2)
        assert rig.paths.vmta_cap("v1").in_use == 2
        assert sum(not each.is_quitting for each in rig.opener.sessions) == 2


@scene
async def test_what_opens_above_a_lowered_limit_ends_too() -> None:
    peer = Peer()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig("max_connections = 3\n")
        await open_sessions(rig, peer, port, 3)
        rig.paths.replace_policies(make_policies(PLAIN + "max_connections = 1\n"))
        rig.opener.trim()
        peer.gate.set()
        await until(lambda: len(rig.settled) == 40)
        await until(lambda: rig.in_use() == 1)
        assert len(peer.clients) == 3


@scene
async def test_a_vmta_that_leaves_gives_up_what_it_opens_and_what_is_open() -> None:
    peer = Peer()
    peer.gate.clear()
    async with peer.listen("127.0.0.1") as port:
        rig = Rig()
        rig.addresses_of["mx"] = ["127.0.0.1"]
        rig.push(site_of("mx", port=port), make_delivery())
        await until(lambda: peer.at_once)
        limits = rig.paths.limits_of(["v1"])
        rig.opener.give_up([])
        rig.opener.abort(limits)
        assert rig.path.sessions == 1
        rig.opener.give_up(limits)
        await until(lambda: not rig.path.sessions)
        assert rig.in_use() == 1, "the peer may see it for a while"
        assert not rig.opener.sessions
        peer.gate.set()


@scene
async def test_a_peer_that_can_not_do_bdat_gets_data_for_a_day() -> None:
    """Design section 6: turned off for a peer that answers with a protocol error."""
    rig = Rig()
    other = Peer_("mx", "192.0.2.1", 2525)
    session = SimpleNamespace(facts=SimpleNamespace(peer=Peer_("mx", "192.0.2.1", 25)))
    rig.opener._remember_fault(session, "chunking")  # type: ignore[arg-type]
    now = asyncio.get_running_loop().time()
    key = peer_key("mx", "192.0.2.1", 25)
    assert rig.opener.memory.knows(key, "chunking", now + FAULT_TTL_S - 1.0)
    assert not rig.opener.memory.knows(peer_key(other.host, other.address, other.port), "chunking", now)
    assert not rig.opener.memory.knows(key, "chunking", now + FAULT_TTL_S + 1.0)
