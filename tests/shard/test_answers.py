"""answers: the rows that operators get, their bounds and filters."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.errors import ResolvePermanent
from engine.core.reply import make_reply
from engine.net.site import Host, make_site, with_demand
from engine.net.sts import Problem, StsState
from engine.security.demand import Demand
from engine.security.sts import StsPolicy
from engine.shard.answers import Answers
from engine.store.records import queue_name
from tests.fakes.delivery_rig import UNIX_START, Rig, make_delivery
from tests.fakes.rig_engine import make_engine, run_shard

POOLS_OF = {"acme": "pool", "other": "second"}


class Shard:
    """An engine over a store and peers in memory; its only vmta is held, so that everything stays."""

    def __init__(self) -> None:
        self.rig = rig = Rig()
        rig.paths.hold_vmta("v1", "operator", "paused", math.inf)
        vmta = SimpleNamespace(max_connections=7)
        engine = SimpleNamespace(max_connections_per_shard=0, max_connections=0)
        settings = SimpleNamespace(customers=POOLS_OF, vmtas={"v1": vmta}, engine=engine)
        self.engine = make_engine(
            rig,
            model=SimpleNamespace(settings=settings),
            pool_of=lambda customer: POOLS_OF.get(customer, ""),
            started_at=UNIX_START,
        )

    def ask(self, what: str, limit: int = 100, **criteria: str) -> Any:
        return Answers(self.engine).answer(what, criteria, limit)

    def rows(self, what: str, limit: int = 100, **criteria: str) -> list[dict[str, Any]]:
        answer = self.ask(what, limit, **criteria)
        assert answer["is_whole"]
        return list(answer["rows"])


def run(scenario: Callable[[Shard], Any]) -> None:
    run_shard(Shard, scenario)


def test_status_counts_what_is_there() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.accept(*[make_delivery() for _ in range(3)])
        for customer, count in (("acme", 2), ("other", 3)):
            labels = {"event": "delivered", "customer": customer, "destination": "x"}
            shard.rig.counters.counter("mailrail_messages_total", **labels)[0] += count
        await asyncio.sleep(0.1)
        status = shard.ask("status")
        expected = {
            "stored": 3,
            "ready": 3,
            "in_memory": 3,
            "sessions": 0,
            "idle_sessions": 0,
            "vmtas": 1,
            "vmtas_held": 1,
            "events": {"delivered": 5},
            "started_at": UNIX_START,
        }
        assert status.items() >= expected.items()
        assert status["in_memory_bytes"] > 0

    run(scenario)


def test_paths_say_why_they_do_nothing() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.accept(*[make_delivery() for _ in range(3)])
        await asyncio.sleep(0.1)
        (row,) = shard.rows("paths")
        assert (row["vmta"], row["ready"], row["sessions"], row["connections"]) == ("v1", 3, 0, 0)
        assert (row["reason"], row["is_held"]) == ("held: paused", True)
        assert shard.rows("paths", vmta="v1", pool="pool", destination=row["destination"]) == [row]
        for nothing in ({"vmta": "v2"}, {"pool": "second"}, {"destination": "other"}):
            assert shard.rows("paths", **nothing) == []

    run(scenario)


def test_paths_tell_which_site_failed_last() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.accept(make_delivery())
        await asyncio.sleep(0.1)
        path = next(iter(shard.rig.paths.paths.values()))
        for demand in path.sites.values():
            demand.fail(shard.rig.loop.time(), "refused")
        (row,) = shard.rows("paths")
        assert list(row["sites"].values()) == ["refused"]

    run(scenario)


def test_queues_tell_stored_ready_and_why() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.accept(make_delivery("x.example"), make_delivery("x.example"), make_delivery("y.example"))
        shard.rig.accept(make_delivery("x.example", customer="other", now=UNIX_START + 9000.0))
        await asyncio.sleep(0.1)
        rows = {(row["customer"], row["domain"]): row for row in shard.rows("queues")}
        assert {name: (row["messages"], row["ready"]) for name, row in rows.items()} == {
            ("acme", "x.example"): (2, 2),
            ("acme", "y.example"): (1, 1),
            ("other", "x.example"): (1, rows["other", "x.example"]["ready"]),
        }
        assert rows["acme", "x.example"]["reason"] == "held: paused"
        assert rows["other", "x.example"]["due_at"] == UNIX_START + 9000.0
        for criteria, count in (
            ({"customer": "acme"}, 2),
            ({"domain": "x.example"}, 2),
            ({"pool": "second"}, 1),
            ({"customer": "acme", "domain": "x.example"}, 1),
            ({"customer": "acme", "domain": "z.example"}, 0),
        ):
            assert len(shard.rows("queues", **criteria)) == count, criteria

    run(scenario)


@pytest.mark.parametrize("what", ["paths", "queues", "messages"])
@pytest.mark.parametrize(("limit", "is_whole"), [(2, False), (3, True)])
def test_rows_are_bounded_and_say_whether_more_are_left(what: str, limit: int, is_whole: bool) -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.accept(*[make_delivery(f"{name}.example") for name in "abc"])
        await asyncio.sleep(0.1)
        answer = shard.ask(what, limit)
        assert (len(answer["rows"]), answer["is_whole"]) == (limit, is_whole)

    run(scenario)


def test_messages_of_one_queue_are_bounded_too() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.accept(*[make_delivery() for _ in range(5)])
        answer = shard.ask("messages", 4, customer="acme", domain="x.example")
        assert (len(answer["rows"]), answer["is_whole"]) == (4, False)

    run(scenario)


def test_a_message_tells_its_state() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.paths.release_vmta("v1", "operator")
        shard.rig.dispatcher.is_paused = True
        ready, later, held = make_delivery(), make_delivery("y.example"), make_delivery("z.example")
        shard.rig.accept(ready, later, held)
        later.attempts, later.last_reply = 2, "451 later"
        shard.rig.store.amend(later, UNIX_START + 9000.0)
        shard.rig.readahead.in_memory.pop(later.key, None)
        held.held = "poison"
        shard.rig.store.amend(held, UNIX_START + 1e9)
        shard.rig.store.commit()
        await asyncio.sleep(0.1)
        rows = {row["domain"]: row for row in shard.rows("messages")}
        states = {domain: row["state"] for domain, row in rows.items()}
        assert states == {"x.example": "ready", "y.example": "scheduled", "z.example": "held"}
        assert [rows[domain]["held"] for domain in sorted(rows)] == ["", "", "poison"]
        assert (rows["y.example"]["attempts"], rows["y.example"]["last_reply"]) == (2, "451 later")
        assert rows["y.example"]["due_at"] == UNIX_START + 9000.0
        assert rows["x.example"]["recipients"] == ["u0@x.example"]
        message_id = ready.message_id.hex()
        whole = shard.ask("message", id=message_id)
        assert whole == {"id": message_id, "deliveries": [rows["x.example"]]}
        assert shard.ask("message", id="00" * 12) is None

    run(scenario)


def test_mail_whose_every_path_is_held_is_held_and_says_why() -> None:
    """In its ready queue and behind it on disk, but not what is due later."""

    async def scenario(shard: Shard) -> None:
        waiting = [make_delivery() for _ in range(4)]
        shard.rig.accept(*waiting)
        await asyncio.sleep(0.1)
        (site_queue,) = shard.rig.sites
        site_queue.queue.take(lambda delivery: delivery is not waiting[0])
        for delivery in waiting[1:]:
            shard.rig.readahead.left(delivery)
        site_queue.wait_behind("acme", queue_name("acme", "x.example"))
        shard.rig.store.amend(waiting[3], time.time() + 9000.0)
        shard.rig.store.commit()
        rows = {row["id"]: row for row in shard.rows("messages")}
        found = [rows[delivery.message_id.hex()] for delivery in waiting]
        assert [(row["state"], row["held"]) for row in found] == [
            ("held", "paused"),
            ("held", "paused"),
            ("held", "paused"),
            ("scheduled", ""),
        ]
        site_queue.spare.append(("v2", 1))  # another vmta of the pool may carry it
        assert [row["state"] for row in shard.rows("messages")] == ["ready"] + ["scheduled"] * 3

    run(scenario)


def test_messages_of_a_pool_are_found_behind_those_of_another() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.accept(*[make_delivery() for _ in range(5)], make_delivery(pool="second"))
        answer = shard.ask("messages", 2, pool="second")
        assert (len(answer["rows"]), answer["is_whole"]) == (1, True)

    run(scenario)


def test_explain_tells_what_applies_and_which_paths_there_are() -> None:
    async def scenario(shard: Shard) -> None:
        shard.rig.accept(make_delivery())
        await asyncio.sleep(0.1)
        answer = await shard.ask("explain", domain="X.example", vmta="v1")
        assert (answer["domain"], answer["problem"]) == ("x.example", "")
        assert [row["vmta"] for row in answer["paths"]] == ["v1"]
        assert answer["site"]
        assert await shard.ask("explain", domain="x.example", customer="no") == {"error": "no customer 'no'"}
        assert await shard.ask("explain", domain="x.example", vmta="no") == {"error": "no vmta 'no'"}

    run(scenario)


def test_explain_knows_a_domain_by_either_of_its_names_and_refuses_what_is_none() -> None:
    async def scenario(shard: Shard) -> None:
        assert (await shard.ask("explain", domain="Bücher.test"))["domain"] == "xn--bcher-kva.test"
        for name in ("bad..dom", "not a domain!"):
            answer = await shard.ask("explain", domain=name)
            assert answer == {"error": f"expected a domain name, got {name!r}"}

    run(scenario)


def test_explain_tells_what_is_known_of_the_domains_hosts() -> None:
    async def scenario(shard: Shard) -> None:
        memory = shard.engine.opener.memory
        until = shard.rig.loop.time() + 60.0
        for peer in ("192.0.2.1", "192.0.2.2", "mx.x.example"):  # the first is where the resolver points
            memory.remember(peer, "tls", until, "why", "as mx.x.example, TLS 1.2 or newer")
        memory.remember("192.0.2.1:2525", "tls", until, "another server", "as mx.x.example, TLS 1.2 or newer")
        answer = await shard.ask("explain", domain="x.example")
        assert [row["peer"] for row in answer["peers"]] == ["192.0.2.1", "mx.x.example"]
        assert {row["fault"] for row in answer["peers"]} == {"tls"}
        assert answer["peers"][0]["detail"] == "why"
        assert answer["peers"][0]["terms"] == "as mx.x.example, TLS 1.2 or newer"

    run(scenario)


def test_explain_tells_the_security_policy_in_force() -> None:
    async def scenario(shard: Shard) -> None:
        policy = StsPolicy("enforce", ("mx.x.example",), 86400)
        site = with_demand(make_site([Host("mx.x.example")]), Demand(True, policy))
        resolver = shard.rig.resolver
        resolver.sites["x.example"] = site
        resolver.states["x.example"] = StsState(problem=Problem("sts-policy-fetch-error", "HTTP status 404"))
        answer = await shard.ask("explain", domain="x.example")
        assert answer["site"] == "mx.x.example"
        assert answer["security"] == [
            "DANE: DNSSEC vouches for the MX answer; TLSA records of a host are obeyed",
            "MTA-STS: enforce, mx mx.x.example, 86400 s",
            "mx.x.example: no TLSA records",
            "MTA-STS: announced, but sts-policy-fetch-error: HTTP status 404",
        ]

    run(scenario)


def test_explain_tells_why_a_domain_has_no_site() -> None:
    async def scenario(shard: Shard) -> None:
        reply = make_reply(550, "5.1.2", "no such domain")
        shard.rig.resolver.sites["x.example"] = ResolvePermanent("x.example", "NXDOMAIN", reply)
        answer = await shard.ask("explain", domain="x.example")
        assert (answer["site"], answer["problem"]) == ("", "x.example: NXDOMAIN")

    run(scenario)
