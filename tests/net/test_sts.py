"""MTA-STS policies found, kept and refreshed (RFC 8461)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.core.errors import ResolveTemporary
from engine.net.dns import Answer
from engine.net.https import FetchFailed
from engine.net.sts import REFRESH_S, RETRY_S, StsFinder
from engine.security.tally import STS_POLICY_FETCH_ERROR

RECORD = "_mta-sts.example"


def policy(mode: str = "enforce", max_age: int = 604_800) -> bytes:
    return f"version: STSv1\nmode: {mode}\nmx: mx.example\nmax_age: {max_age}\n".encode()


class World:
    """DNS, the policy host, the disk and the clock of one domain."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.record: str | Exception = "v=STSv1; id=1"
        self.served: bytes | Exception = policy()
        self.disk: dict[str, bytes] = {}
        self.urls: list[str] = []
        self.questions = 0
        self.make()

    def make(self, port: int = 443) -> None:
        """Begin a new process."""
        self.finder = StsFinder(
            self, self, self, port=port, clock=lambda: self.now, unix_clock=lambda: self.now
        )

    async def ask(self, name: str, record_type: str) -> Answer:
        assert (name, record_type) == (RECORD, "TXT")
        self.questions += 1
        if isinstance(self.record, Exception):
            raise self.record
        return Answer(((0, self.record),), 300.0) if self.record else Answer()

    async def get(self, url: str, *, media_type: str, max_bytes: int) -> bytes:
        assert (media_type, max_bytes) == ("text/plain", 65536)
        self.urls.append(url)
        if isinstance(self.served, Exception):
            raise self.served
        return self.served

    def load(self, domain: str) -> bytes | None:
        return self.disk.get(domain)

    def save(self, domain: str, octets: bytes, ends_at: float) -> None:
        self.disk[domain] = octets

    def close(self) -> None:
        pass

    async def look(self, after_s: float = 0.0) -> Any:
        """Let time pass, look, and let what that began come to its end."""
        self.now += after_s
        state = await self.finder.fetch("example")
        await self.finder.refreshed()
        return state


@pytest.fixture
def world():
    return World()


def run_steps(steps):
    asyncio.run(steps)


def test_policy_is_fetched_from_the_policy_host_and_kept(world):
    """RFC 8461 sections 3.1 to 3.3."""

    async def scenario() -> None:
        assert world.finder.find("example") is None
        state = await world.look()
        assert state.policy.mode == "enforce"
        assert world.finder.find("example") is state
        assert world.urls == ["https://mta-sts.example/.well-known/mta-sts.txt"]
        await world.look(301)
        assert len(world.urls) == 1  # same id

    run_steps(scenario())


def test_without_a_record_nobody_asks_the_policy_host(world):
    world.record = "v=spf1 -all"

    async def scenario() -> None:
        assert (await world.look()).policy is None
        assert world.urls == []

    run_steps(scenario())


def test_new_id_replaces_the_policy(world):
    """RFC 8461 section 3.1: the id tells that the policy has changed."""

    async def scenario() -> None:
        await world.look()
        world.record, world.served = "v=STSv1; id=2", policy("testing")
        assert (await world.look(301)).policy.mode == "enforce"  # mail does not wait for the refresh
        assert (await world.look(61)).policy.mode == "testing"

    run_steps(scenario())


@pytest.mark.parametrize(
    ("record", "served"),
    [
        ("v=STSv1; id=2", FetchFailed(STS_POLICY_FETCH_ERROR, "down")),
        ("v=STSv1; id=2", b"<html>"),
        ("", FetchFailed(STS_POLICY_FETCH_ERROR, "down")),
        (ResolveTemporary(RECORD, "SERVFAIL"), policy("none")),
        ("v=STSv1; id=bad-id", policy("none")),
    ],
)
def test_never_downgraded_while_cached(world, record, served):
    """RFC 8461 sections 3.1, 5.1 and 10.2: what is cached holds, whatever an attacker suppresses."""

    async def scenario() -> None:
        await world.look()
        world.record, world.served = record, served
        for _ in range(20):
            assert (await world.look(20_000)).policy.mode == "enforce"

    run_steps(scenario())


def test_policy_ends_with_its_max_age(world):
    """RFC 8461 section 3.2."""

    async def scenario() -> None:
        await world.look()
        world.record = ""
        assert (await world.look(604_799)).policy is not None
        assert (await world.look(2)).policy is None

    run_steps(scenario())


def test_policy_is_refreshed_before_it_ends(world):
    """RFC 8461 section 3.3: the same id, daily, so that it is never without one."""

    async def scenario() -> None:
        await world.look()
        await world.look(REFRESH_S + 1)
        assert len(world.urls) == 2
        world.record = ""  # kept for a week from the second fetch
        assert (await world.look(604_700)).policy is not None

    run_steps(scenario())


def test_short_policy_is_refreshed_at_half_its_age(world):
    world.served = policy(max_age=3600)

    async def scenario() -> None:
        await world.look()
        await world.look(1801)
        assert len(world.urls) == 2

    run_steps(scenario())


def test_mode_none_withdraws_a_policy(world):
    """RFC 8461 section 8.3."""

    async def scenario() -> None:
        await world.look()
        world.record, world.served = "v=STSv1; id=2", policy("none")
        await world.look(301)
        state = await world.look(61)
        assert state.policy is None
        assert state.problem is None

    run_steps(scenario())


def test_first_fetch_that_fails_leaves_the_domain_without_a_policy(world):
    """RFC 8461 section 3.3: delivery goes on as though it had not implemented MTA-STS."""
    world.served = FetchFailed(STS_POLICY_FETCH_ERROR, "HTTP status 301")

    async def scenario() -> None:
        state = await world.look()
        assert state.policy is None
        assert state.problem.result == STS_POLICY_FETCH_ERROR
        await world.look(RETRY_S - 100)
        assert len(world.urls) == 1  # section 3.3: not again within five minutes
        world.served = policy()
        assert (await world.look(RETRY_S)).policy is not None

    run_steps(scenario())


def test_refresh_that_fails_is_not_repeated_at_once(world):
    async def scenario() -> None:
        await world.look()
        world.record, world.served = "v=STSv1; id=2", FetchFailed(STS_POLICY_FETCH_ERROR, "down")
        await world.look(301)
        await world.look(61)
        await world.look(61)
        assert len(world.urls) == 2

    run_steps(scenario())


def test_kept_policy_holds_after_a_restart_without_a_fetch(world):
    async def scenario() -> None:
        await world.look()
        world.make()
        world.served = FetchFailed(STS_POLICY_FETCH_ERROR, "down")
        assert (await world.look()).policy.mode == "enforce"
        assert len(world.urls) == 1

    run_steps(scenario())


def test_kept_octets_that_are_none_are_fetched_anew(world):
    world.disk["example"] = b"rubbish"

    async def scenario() -> None:
        assert (await world.look()).policy is not None

    run_steps(scenario())


def test_policy_host_may_have_another_port_for_tests(world):
    world.make(port=8443)

    async def scenario() -> None:
        await world.look()
        assert world.urls == ["https://mta-sts.example:8443/.well-known/mta-sts.txt"]

    run_steps(scenario())


def test_fetches_are_counted_by_result_and_what_is_not_fetched_is_not(world):
    async def scenario() -> None:
        world.served = FetchFailed("sts-webpki-invalid", "another name")
        await world.look()
        await world.look(301 - 60)  # too soon for another try
        world.served = b"version: STSv2"
        await world.look(400)
        world.served = policy()
        await world.look(400)
        await world.look(100)
        assert world.finder.counts == {"sts-webpki-invalid": 1, "sts-policy-invalid": 1, "fetched": 1}

    run_steps(scenario())
