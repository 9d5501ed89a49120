"""attempts: however many shards a client meets, its failures to log in count as one engine's."""

from __future__ import annotations

import asyncio

from engine.inject.attempts import MAX_FAILURES_PER_ADDRESS, MAX_FAILURES_PER_USER, UNKNOWN, WINDOW_S
from engine.shard.attempts import MAX_WAIT_S, OWNER, SharedTries
from tests.fakes.peer_links import FakeNetwork
from tests.fakes.virtual_loop import run_virtually

SHARDS = 4


class Cluster:
    """Shards over one network."""

    def __init__(self) -> None:
        self.network = FakeNetwork()
        self.shards: dict[int, SharedTries] = {}
        for number in range(SHARDS):
            self.start(number)

    def start(self, number: int) -> SharedTries:
        shard = SharedTries(number)
        shard.connect(self.network.make_links(number, handlers=shard.handlers()))
        self.shards[number] = shard
        for other, tries in self.shards.items():
            if other != number:
                tries.peer_changed(number, True)
                shard.peer_changed(other, True)
        return shard

    def kill(self, number: int) -> None:
        self.shards.pop(number).close()
        self.network.kill(number)
        for tries in self.shards.values():
            tries.peer_changed(number, False)

    async def attempt(self, number: int, peer: str, user: str, *, is_known: bool = False) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        now = asyncio.get_running_loop().time()
        self.shards[number].begin(peer, user, now, answer.set_result, is_known=is_known)
        return await answer

    def succeed(self, number: int, peer: str, user: str) -> None:
        self.shards[number].succeed(peer, user, asyncio.get_running_loop().time())


def test_an_address_gets_its_tries_once_over_all_shards_also_when_they_come_at_once() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        limits = await asyncio.gather(
            *(
                cluster.attempt(n % SHARDS, "192.0.2.1", f"user{n}")
                for n in range(5 * MAX_FAILURES_PER_ADDRESS)
            )
        )
        assert limits.count("") == MAX_FAILURES_PER_ADDRESS
        assert set(limits) == {"", "address"}
        for number in range(SHARDS):
            assert await cluster.attempt(number, "192.0.2.2", "ann") == ""
        await asyncio.sleep(WINDOW_S + 1.0)
        assert await cluster.attempt(3, "192.0.2.1", "ann") == ""

    run_virtually(scenario())


def test_a_user_gets_them_once_too_and_is_let_in_anywhere_from_where_he_has_logged_in() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        assert await cluster.attempt(1, "198.51.100.1", "ann") == ""
        cluster.succeed(1, "198.51.100.1", "ann")
        limits = [
            await cluster.attempt(n % SHARDS, f"192.0.2.{n}", "ann") for n in range(2 * MAX_FAILURES_PER_USER)
        ]
        assert limits.count("") == MAX_FAILURES_PER_USER
        for number in range(SHARDS):
            assert await cluster.attempt(number, "198.51.100.1", "ann") == ""

    run_virtually(scenario())


def test_what_is_known_to_be_right_is_asked_for_and_not_counted() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        for _ in range(2 * MAX_FAILURES_PER_USER):
            assert await cluster.attempt(2, "192.0.2.1", "ann", is_known=True) == ""
        for _ in range(MAX_FAILURES_PER_ADDRESS):
            await cluster.attempt(1, "192.0.2.1", "bob")
        assert await cluster.attempt(2, "192.0.2.1", "ann", is_known=True) == "address"

    run_virtually(scenario())


def test_without_the_shard_that_counts_nobody_may_try_and_a_new_one_hears_what_was_tried() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        for n in range(MAX_FAILURES_PER_ADDRESS):
            assert await cluster.attempt(1 + n % 2, "192.0.2.1", f"user{n}") == ""
        cluster.kill(OWNER)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await cluster.attempt(1, "192.0.2.1", "ann") == UNKNOWN
        assert MAX_WAIT_S <= loop.time() - began < MAX_WAIT_S + 0.1
        waiting = [loop.create_task(cluster.attempt(n, f"192.0.2.{n}", "ann")) for n in (1, 2)]
        await asyncio.sleep(0.2)
        cluster.start(OWNER)
        assert await asyncio.gather(*waiting) == ["address", ""]
        for number in range(SHARDS):
            assert await cluster.attempt(number, "192.0.2.1", "ann") == "address"
            assert await cluster.attempt(number, "192.0.2.2", "ann") == ""
        assert len(cluster.network.bodies("auth-known")) == 2 * (SHARDS - 1)
        for tries in cluster.shards.values():
            tries.close()

    run_virtually(scenario())


def test_a_new_owner_hears_first_and_is_asked_then() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        await cluster.attempt(1, "192.0.2.1", "ann")
        cluster.kill(OWNER)
        cluster.network.sent.clear()
        links, ready = cluster.network.links[1], False
        links.is_up = lambda _shard: ready  # type: ignore[method-assign]
        cluster.start(OWNER)  # the supervisor says so before the link stands
        waiting = asyncio.get_running_loop().create_task(cluster.attempt(1, "192.0.2.1", "ann"))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        ready = True
        assert await waiting == ""
        assert [kind for source, _, kind, _ in cluster.network.sent if source == 1] == [
            "auth-known",
            "auth-begin",
        ]
        for tries in cluster.shards.values():
            tries.close()

    run_virtually(scenario())
