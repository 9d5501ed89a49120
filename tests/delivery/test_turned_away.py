"""Hosts that turn mail away: the retry begins with the next one (RFC 5321 section 5.1)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from engine.core.reply import Reply, make_reply
from engine.delivery.flight import Bearer, Flight
from engine.delivery.peer_memory import PeerMemory
from engine.delivery.turned_away import MARGIN_S, MAX_S, TurnedAway
from engine.net.site import Host, make_site
from engine.smtp.client import Outcome
from engine.telemetry.events import Peer as Peer_
from tests.delivery.test_opening import Peer, Rig, on_uvloop, site_of, until
from tests.fakes.delivery_rig import make_delivery

OK, LATER, NOT_THAT = Reply(250, "", "ok"), Reply(451, "4.3.0", "later"), Reply(550, "5.7.1", "not yours")
UNIX = 1_700_000_000.0


class Loop:
    """A clock, and what is to be called soon."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.soon: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Any, *arguments: Any) -> None:
        self.soon.append(lambda: call(*arguments))


class FakeSession:
    def __init__(self, host: str = "mx1") -> None:
        self.facts = SimpleNamespace(peer=Peer_(host, "192.0.2.1", 25))
        self.is_idle = True
        self.has_quit = False

    def quit(self) -> None:
        self.has_quit = True


class Scene:
    def __init__(self, *hosts: str) -> None:
        self.loop = Loop()
        self.memory = PeerMemory()
        self.turned = TurnedAway(self.memory, self.loop, lambda: UNIX)  # type: ignore[arg-type]
        self.session: Any = FakeSession()
        site = make_site([Host(name, rank) for rank, name in enumerate(hosts or ("mx1", "mx2"))])
        self.queue: Any = SimpleNamespace(site=site)

    def end(self, mail: Reply, final: Reply | None = None, *, due_s: float = 300.0) -> None:
        delivery = make_delivery()
        delivery.due_at = UNIX + due_s
        flight = Flight(delivery, delivery.recipients, self.queue, 0.0, 0.0)
        self.turned.note(self.session, flight, Outcome(flight, mail, [OK], final))
        for call in self.loop.soon:
            call()
        self.loop.soon.clear()

    def is_passed_over(self, host: str = "mx1", port: int = 25) -> bool:
        return self.turned.is_passed_over(host, port)


def test_host_that_says_4xx_to_mail_is_passed_over_until_the_retry() -> None:
    scene = Scene()
    scene.end(LATER)
    assert scene.is_passed_over()
    assert not scene.is_passed_over("mx2")
    assert not scene.is_passed_over(port=26)
    scene.loop.now += 300.0 + MARGIN_S
    assert not scene.is_passed_over()


def test_it_is_passed_over_for_an_hour_at_most() -> None:
    scene = Scene()
    scene.end(LATER, due_s=4 * 3600.0)
    scene.loop.now += MAX_S
    assert not scene.is_passed_over()


def test_host_that_takes_mail_is_not_passed_over() -> None:
    scene = Scene()
    scene.end(LATER)
    scene.end(OK, OK)
    assert not scene.is_passed_over()


def test_what_is_said_of_recipients_or_message_or_for_good_says_nothing_of_the_host() -> None:
    for mail, final in ((OK, LATER), (NOT_THAT, None), (make_reply(451, "4.4.2", "lost"), None)):
        scene = Scene()
        scene.end(mail, final)
        assert not scene.is_passed_over()


def test_the_only_host_is_never_passed_over() -> None:
    scene = Scene("mx1")
    scene.end(LATER)
    assert not scene.is_passed_over()
    assert not scene.session.has_quit


def test_session_that_waits_for_the_next_message_there_quits() -> None:
    scene = Scene()
    scene.end(LATER)
    assert scene.session.has_quit
    busy = Scene()
    busy.session.is_idle = False
    busy.end(LATER)
    assert not busy.session.has_quit


class Refusing(Peer):
    """Turns mail away."""

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.greeting)
        while line := (await reader.readline()).decode().strip():
            verb = line[:4].upper()
            self.names.append(verb)
            writer.write(b"451 4.3.0 later\r\n" if verb in ("MAIL", "RCPT", "DATA") else b"250 mx\r\n")
            if verb == "QUIT":
                return


class SettlingRig(Rig):
    """Tells what was settled as the shard does."""

    def settle(self, flight: Flight, outcome: Outcome, session: Bearer) -> None:
        super().settle(flight, outcome, session)
        self.opener.turned_away.note(session, flight, outcome)  # type: ignore[arg-type]


def test_the_next_session_begins_with_the_next_host_and_comes_back_where_all_refuse() -> None:
    """RFC 5321 section 5.1."""

    async def scenario() -> None:
        bad, good, bad_too = Refusing(), Peer(), Refusing()
        async with bad.listen("127.0.0.2") as port, good.listen("127.0.0.3", port):
            rig = SettlingRig()
            rig.addresses_of = {"mx1": ["127.0.0.2"], "mx2": ["127.0.0.3"]}
            site = site_of("mx1", "mx2", port=port)
            rig.push(site, make_delivery())
            await until(lambda: rig.settled and not rig.opener.sessions)
            assert (len(bad.clients), good.messages) == (1, 0)
            rig.push(site, make_delivery())
            await until(lambda: good.messages == 1)
            assert len(bad.clients) == 1
        async with bad.listen("127.0.0.2") as port, bad_too.listen("127.0.0.3", port):
            rig = SettlingRig()
            rig.addresses_of = {"mx1": ["127.0.0.2"], "mx2": ["127.0.0.3"]}
            site = site_of("mx1", "mx2", port=port)
            for count, met in enumerate(((2, 0), (2, 1), (3, 1)), 1):
                rig.push(site, make_delivery())
                await until(lambda count=count: len(rig.settled) == count and not rig.opener.sessions)
                assert (len(bad.clients), len(bad_too.clients)) == met

    on_uvloop(scenario())
