"""exchange: forwarding, handing over and placing between shards, and what a dead shard leaves open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.envelope import Delivery, MessageIds
from engine.core.errors import NetworkError, PerhapsStored, StoreError, StoreFull, StoreUnhealthy
from engine.delivery.handover import pack
from engine.inject.accept import Acceptor
from engine.inject.context import FeedContext
from engine.inject.former import RECALL
from engine.inject.idempotent import REQUEST
from engine.settings.model import Customer, Pool
from engine.shard.exchange import REPORT_AFTER, REPORT_EVERY_S, Exchange
from engine.store.memory import MemoryStore
from engine.telemetry.events import Event
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import MESSAGE, UNIX_START, make_delivery
from tests.fakes.peer_links import FakeNetwork
from tests.fakes.virtual_loop import run_virtually

POOLS = {"pool": Pool(name="pool", members={"v0": 1, "v1": 1})}
ONLY_ONE = {"v1": 1}
BOTH = {"v0": 0, "v1": 1}


class Shard:
    """Door, store and exchange of one shard, wired as the engine does."""

    def __init__(self, network: FakeNetwork, number: int) -> None:
        self.store = MemoryStore(clock=lambda: UNIX_START)
        self.counters = Counters()
        self.events: list[Event] = []
        self.arrived: list[Delivery] = []
        self.exchange = Exchange(number, Path(), self.counters, {})
        self.links = network.links[number]
        self.acceptor = Acceptor(
            shard=number,
            ids=MessageIds(number, b"test"),
            store=self.store,
            place=self.exchange.place,
            forward=self.exchange.forward,
            arrived=self.arrived.append,
            sign=lambda *_: b"",
            add_event=self.events.append,
            counters=self.counters,
            unix_clock=lambda: UNIX_START,
        )
        customer = Customer(name="acme", pool="pool", senders=("*",))
        self.acceptor.use("mta.example", {"acme": customer}, POOLS)
        self.exchange.acceptor = self.acceptor

    def offer(self) -> list[int]:
        """Inject a message; the list gets the code of the reply."""
        codes: list[int] = []
        self.acceptor.accept(
            "news@acme.example",
            ["ann@x.example"],
            MESSAGE,
            False,
            FeedContext("smtp", "in", "acme"),
            lambda reply, _: codes.append(reply.code),
        )
        return codes

    def count(self, name: str, **labels: str) -> float:
        return self.counters.counter(name, **labels)[0]


class Pair:
    """Two shards; the pool's vmtas are owned as `assignment` says."""

    def __init__(self, network: FakeNetwork, assignment: dict[str, int]) -> None:
        self.network = network
        self.here, self.there = self.shards = [Shard(network, number) for number in (0, 1)]
        settings: Any = SimpleNamespace(pools=POOLS)
        for shard in self.shards:
            shard.exchange.use(settings, assignment, 2)

    async def travel(self) -> None:
        """Wait until everything that was sent has arrived."""
        await asyncio.sleep(3 * self.network.latency_s)

    async def settle(self) -> None:
        """Bring everything over, commit, and bring the answers back."""
        await self.travel()
        for shard in self.shards:
            shard.store.commit()
        await self.travel()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> FakeNetwork:
    network = FakeNetwork()
    monkeypatch.setattr("engine.shard.exchange.PeerLinks", network.make_links)
    return network


def run(network: FakeNetwork, assignment: dict[str, int], scenario: Callable[[Pair], Any]) -> None:
    async def begin() -> None:
        await scenario(Pair(network, assignment))

    run_virtually(begin())


def events_of(shard: Shard) -> list[str]:
    return [event.event for event in shard.events]


# -- forwarding ---------------------------------------------------------------------------------------


def test_a_message_is_promised_after_the_commit_of_its_owner(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        codes = pair.here.offer()
        await pair.travel()
        assert codes == []
        pair.there.store.commit()
        await pair.travel()
        assert codes == [250]
        assert (pair.here.store.count(), pair.there.store.count()) == (0, 1)
        assert [delivery.recipients for delivery in pair.there.arrived] == [["ann@x.example"]]
        assert pair.here.count("mailrail_forwarded_total", kind="placed") == 1

    run(network, ONLY_ONE, scenario)


def test_a_forwarded_message_is_accepted_once_by_its_owner(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        pair.here.offer()
        await pair.settle()
        assert (events_of(pair.here), events_of(pair.there)) == ([], ["accepted"])
        assert pair.there.events[0].shard == 1

    run(network, ONLY_ONE, scenario)


def test_what_the_owner_refuses_is_kept_here_unheld(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        pair.there.store.full_reason = "map"
        codes = pair.here.offer()
        await pair.settle()
        assert codes == [250]
        assert [delivery.held for delivery in pair.here.arrived] == [""]
        assert (events_of(pair.here), events_of(pair.there)) == (["accepted"], [])

    run(network, ONLY_ONE, scenario)


def test_what_an_owner_that_is_down_was_never_asked_is_kept_here_unheld(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        network.kill(1)
        codes = pair.here.offer()
        await pair.settle()
        assert codes == [250]
        assert [delivery.held for delivery in pair.here.arrived] == [""]

    run(network, ONLY_ONE, scenario)


def test_what_died_on_the_way_is_kept_here_and_held_for_that_shard(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        codes = pair.here.offer()
        await pair.travel()
        network.kill(1)
        await pair.settle()
        assert codes == [250]
        assert [delivery.held for delivery in pair.here.arrived] == ["shard 1"]

    run(network, ONLY_ONE, scenario)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NetworkError("request", "StoreFull: map"), StoreUnhealthy),
        (NetworkError("link", "lost"), PerhapsStored),
        (NetworkError("timeout", "no answer"), PerhapsStored),
    ],
)
def test_only_an_answer_tells_that_the_other_shard_has_nothing(
    network: FakeNetwork, error: NetworkError, kind: type[StoreError]
) -> None:
    async def scenario(pair: Pair) -> None:
        answers: list[Any] = []
        pair.here.links.send = lambda *sent: answers.append(sent[3])  # type: ignore[method-assign]
        results: list[StoreError | None] = []
        pair.here.exchange.forward(1, [make_delivery()], MESSAGE, results.append)
        answers[0](None, error)
        assert [type(result) for result in results] == [kind]
        if kind is PerhapsStored:
            assert isinstance(results[0], PerhapsStored)
            assert results[0].shard == 1

    run(network, ONLY_ONE, scenario)


# -- handing over -------------------------------------------------------------------------------------


def test_what_may_be_at_another_shard_goes_to_that_one_only(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        exchange, delivery = pair.here.exchange, make_delivery()
        delivery.held = "shard 1"
        exchange.use(SimpleNamespace(pools=POOLS), {"v0": 0}, 2)  # type: ignore[arg-type]
        assert exchange.keeper_of(delivery) == 1  # though no vmta is there any more
        exchange.use(SimpleNamespace(pools=POOLS), {"v0": 0}, 1)  # type: ignore[arg-type]
        assert exchange.keeper_of(delivery) is None  # fewer shards: its store is ours

    run(network, BOTH, scenario)


def test_what_may_be_at_a_shard_that_is_down_waits_for_it(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        delivery = make_delivery()
        delivery.held = "shard 1"
        network.kill(1)
        assert pair.here.exchange.keeper_of(delivery) is None

    run(network, BOTH, scenario)


def test_other_deliveries_go_to_a_shard_that_carries_their_pool(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        assert pair.here.exchange.keeper_of(make_delivery()) == 1
        assert pair.here.exchange.keeper_of(make_delivery(pool="unknown")) is None
        assert pair.there.exchange.keeper_of(make_delivery()) is None

    run(network, ONLY_ONE, scenario)


def test_what_is_known_already_is_as_good_as_stored(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        delivery = make_delivery()
        octets = pack(delivery.envelope, MESSAGE, [delivery])
        results: list[Any] = []
        for _ in range(2):
            pair.here.exchange.send(1, "handover", octets, lambda *result: results.append(result), 1)
            await pair.settle()
        assert results == [("stored", None), ("known", None)]
        assert (pair.there.store.count(), len(pair.there.arrived)) == (1, 1)
        assert pair.there.count("mailrail_duplicates_refused_total") == 1
        assert events_of(pair.there) == []

    run(network, BOTH, scenario)


def test_a_commit_that_fails_there_is_told_here(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        results: list[StoreError | None] = []
        pair.here.exchange.forward(1, [make_delivery()], MESSAGE, results.append)
        await pair.travel()
        pair.there.store.commit(StoreFull("disk"))
        await pair.travel()
        assert [type(result) for result in results] == [StoreUnhealthy]

    run(network, BOTH, scenario)


# -- placing ------------------------------------------------------------------------------------------


def test_placements_are_told_after_so_many_and_after_a_time(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        exchange = pair.here.exchange
        await exchange.open()
        for _ in range(REPORT_AFTER + 3):
            exchange.place("pool")
        told = [sum(body["pool"].values()) for body in network.bodies("placed")]
        assert len(told) == 1
        await asyncio.sleep(1.5 * REPORT_EVERY_S)
        told = [sum(body["pool"].values()) for body in network.bodies("placed")]
        assert (len(told), sum(told)) == (2, REPORT_AFTER + 3)
        exchange.close()

    run(network, BOTH, scenario)


def test_what_others_placed_here_is_made_up_for(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        network.carry(pair.there.links, 0, "placed", {"pool": {0: 1000}}, None)
        await pair.travel()
        assert [pair.here.exchange.place("pool") for _ in range(50)] == [1] * 50

    run(network, BOTH, scenario)


def test_a_shard_that_is_down_gets_nothing(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        heard: list[tuple[int, bool]] = []
        exchange = pair.here.exchange
        exchange.on_peer = [lambda shard, is_up: heard.append((shard, is_up))]
        assert exchange.place("pool") == 1
        network.kill(1)
        exchange.set_peer(1, None)
        assert exchange.place("pool") == 0
        network.make_links(1)
        exchange.set_peer(1, b"next")
        assert exchange.place("pool") == 1
        assert heard == [(1, False), (1, True)]
        assert pair.here.links.told == [(1, None), (1, b"next")]

    run(network, ONLY_ONE, scenario)


def test_repeatable_ids_are_refused_until_the_feeds_serve(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        results: list[Any] = []
        pair.here.links.send(1, REQUEST, b"", lambda *result: results.append(result))
        await pair.travel()
        assert results[0][1].phase == "request"

        async def taken() -> list[Any]:
            return [250]

        took: list[Any] = []

        def take(shard: int, octets: bytes) -> Any:
            took.append((shard, octets))
            return asyncio.ensure_future(taken())

        pair.there.exchange.repeats = SimpleNamespace(take=take)  # type: ignore[assignment]
        pair.here.links.send(1, REQUEST, b"x", lambda *result: results.append(result))
        await pair.travel()
        assert (took, results[1]) == ([(0, b"x")], ([250], None))

    run(network, BOTH, scenario)


# -- left stores --------------------------------------------------------------------------------------


def test_what_a_left_store_has_had_is_known_here(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        known, new = make_delivery(), make_delivery()
        pair.there.exchange.knows_left = lambda key: key == known.key
        answers: list[tuple[Any, Any]] = []
        for delivery in (known, new):
            octets = pack(delivery.envelope, delivery.message, [delivery])
            pair.here.exchange.send(
                1, "handover", octets, lambda *answer: answers.append(answer), len(octets)
            )
        await pair.settle()
        assert [answer for answer, _ in answers] == ["known", "stored"]
        assert [delivery.key for delivery in pair.there.arrived] == [new.key]

    run(network, ONLY_ONE, scenario)


def test_what_was_answered_to_an_id_is_told_to_its_keeper(network: FakeNetwork) -> None:
    async def scenario(pair: Pair) -> None:
        answers: list[tuple[Any, NetworkError | None]] = []
        ask = pair.here.exchange.send
        ask(1, RECALL, ["acme", "s1"], lambda *answer: answers.append(answer), 2)
        await pair.travel()
        pair.there.exchange.repeats = SimpleNamespace(recall=lambda *key: repr(key).encode())  # type: ignore[assignment]
        ask(1, RECALL, ["acme", "s1"], lambda *answer: answers.append(answer), 2)
        await pair.travel()
        assert isinstance(answers[0][1], NetworkError)
        assert answers[1] == (b"('acme', 's1')", None)

    run(network, ONLY_ONE, scenario)
