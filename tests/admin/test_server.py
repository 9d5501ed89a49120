"""The admin API, asked over a real unix socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine.admin.engine import Answers
from engine.admin.server import AdminServer
from engine.core.errors import ConfigError, Origin

ID = "0123456789abcdef01234567"


class FakeEngine:
    """Answers from attributes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], int]] = []
        self.answers = Answers({}, {})
        self.error: Exception | None = None
        self.is_draining = False

    async def format_metrics(self) -> tuple[bytes, str]:
        return b"mailrail_uncertain_total 0\n", "text/plain; version=0.0.4; charset=utf-8"

    def describe(self) -> dict[str, Any]:
        return {"generation": 1, "shards": [{"shard": 0}, {"shard": 1}]}

    async def ask(self, what: str, criteria: dict[str, str], limit: int) -> Answers:
        self.asked.append((what, criteria, limit))
        if self.error is not None:
            raise self.error
        return self.answers

    async def reload(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"generation": 2}

    async def retry(self, message_id: str) -> Answers:
        self.asked.append(("retry", {"id": message_id}, 0))
        return self.answers

    async def cancel_rule(self, key: str) -> Answers:
        self.asked.append(("cancel_rule", {"key": key}, 0))
        return self.answers

    async def drain(self, is_on: bool) -> dict[str, Any]:
        self.is_draining = is_on
        return {"is_draining": is_on}


class Client:
    """Asks the server under test."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._session.get(f"http://admin{path}") as reply:
            return reply.status, await reply.json()

    async def post(self, path: str, **options: Any) -> tuple[int, Any]:
        async with self._session.post(f"http://admin{path}", **options) as reply:
            return reply.status, await reply.json()

    async def text(self, path: str) -> tuple[str, str]:
        async with self._session.get(f"http://admin{path}") as reply:
            return await reply.text(), reply.headers["Content-Type"]


Ask = Callable[[FakeEngine, Callable[[Client], Awaitable[None]]], None]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Run a scenario against a server over a fake engine."""

    def run(engine: FakeEngine, scenario: Callable[[Client], Awaitable[None]]) -> None:
        async def main() -> None:
            path = str(tmp_path / "admin.sock")
            server = AdminServer(engine)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            await server.open(listener)
            try:
                async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
                    await scenario(Client(session))
            finally:
                await server.close()

        asyncio.run(main())

    return run


def test_metrics_are_prometheus_text(ask: Ask) -> None:
    async def scenario(client: Client) -> None:
        text, content_type = await client.text("/metrics")
        assert text == "mailrail_uncertain_total 0\n"
        assert content_type.startswith("text/plain; version=0.0.4")

    ask(FakeEngine(), scenario)


def test_status_carries_each_shards_counts_and_their_sum_and_who_is_silent(ask: Ask) -> None:
    engine = FakeEngine()
    engine.answers = Answers({0: {"stored": 3}}, {1: "link: shard 1 is down"})

    async def scenario(client: Client) -> None:
        status, answer = await client.get("/status")
        assert status == 200
        assert answer["counts"] == {"stored": 3}
        assert [shard["counts"] for shard in answer["shards"]] == [{"stored": 3}, None]
        assert answer["unanswered"] == {"1": "link: shard 1 is down"}

    ask(engine, scenario)


def test_criteria_and_limit_reach_the_shards(ask: Ask) -> None:
    engine = FakeEngine()
    engine.answers = Answers({0: {"rows": [], "is_whole": True}}, {})

    async def scenario(client: Client) -> None:
        assert await client.get("/queues?customer=acme&limit=5") == (200, {"queues": [], "is_whole": True})
        assert await client.get("/paths?vmta=a1") == (200, {"paths": [], "is_whole": True})
        assert await client.get("/messages?domain=x.example") == (200, {"messages": [], "is_whole": True})

    ask(engine, scenario)
    assert engine.asked == [
        ("queues", {"customer": "acme"}, 5),
        ("paths", {"vmta": "a1"}, 100),
        ("messages", {"domain": "x.example"}, 100),
    ]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/queues?color=red", "'color'"),
        ("/queues?limit=0", "'0'"),
        ("/queues?limit=10001", "'10001'"),
        ("/queues?limit=%C2%B2", "limit"),
        ("/status?limit=1", "'limit'"),
        ("/messages/zz", "'zz'"),
        ("/explain", "domain=NAME"),
    ],
)
def test_a_wrong_parameter_is_named(ask: Ask, path: str, named: str) -> None:
    async def scenario(client: Client) -> None:
        status, answer = await client.get(path)
        assert status == 400
        assert named in answer["error"]

    ask(FakeEngine(), scenario)


def test_a_message_is_found_on_whichever_shard_holds_it(ask: Ask) -> None:
    engine = FakeEngine()
    engine.answers = Answers({0: None, 1: {"id": ID}}, {})

    async def scenario(client: Client) -> None:
        assert await client.get(f"/messages/{ID.upper()}") == (200, {"id": ID, "shard": 1})

    ask(engine, scenario)


def test_a_message_that_no_shard_holds_is_404_only_if_all_answered(ask: Ask) -> None:
    engine = FakeEngine()

    async def scenario(client: Client) -> None:
        engine.answers = Answers({0: None}, {})
        assert (await client.get(f"/messages/{ID}"))[0] == 404
        engine.answers = Answers({0: None}, {1: "down"})
        status, answer = await client.get(f"/messages/{ID}")
        assert status == 503
        assert answer["error"] == f"no shard that answers holds message {ID}, but not all did: shard 1: down"
        assert answer["unanswered"] == {"1": "down"}

    ask(engine, scenario)


def test_explain_gives_the_shards_answer_or_its_refusal(ask: Ask) -> None:
    engine = FakeEngine()

    async def scenario(client: Client) -> None:
        engine.answers = Answers({0: {"domain": "x"}}, {})
        assert await client.get("/explain?domain=x") == (200, {"domain": "x"})
        engine.answers = Answers({0: {"error": "no vmta 'b'"}}, {})
        assert await client.get("/explain?domain=x&vmta=b") == (422, {"error": "no vmta 'b'"})
        engine.answers = Answers({}, {0: "down"})
        assert (await client.get("/explain?domain=x"))[0] == 503

    ask(engine, scenario)


def test_a_refused_reload_says_why(ask: Ask) -> None:
    engine = FakeEngine()

    async def scenario(client: Client) -> None:
        assert await client.post("/reload", json={}) == (200, {"generation": 2})
        engine.error = ConfigError(Origin("mailrail.toml", 7), "key 'x': unknown")
        assert await client.post("/reload", json={}) == (422, {"error": "mailrail.toml:7: key 'x': unknown"})

    ask(engine, scenario)


def test_drain_wants_a_boolean(ask: Ask) -> None:
    engine = FakeEngine()

    async def scenario(client: Client) -> None:
        assert await client.post("/drain", json={"on": True}) == (200, {"is_draining": True})
        status, answer = await client.post("/drain", json={"on": "yes"})
        assert status == 400
        assert "$.on" in answer["error"]
        assert (await client.post("/drain", json={}))[0] == 400

    ask(engine, scenario)
    assert engine.is_draining


def test_a_web_page_can_not_steer_the_engine(ask: Ask) -> None:
    engine = FakeEngine()

    async def scenario(client: Client) -> None:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            status, answer = await client.post(
                "/drain", data=b'{"on": true}', headers={"Content-Type": content_type}
            )
            assert status == 400
            assert "application/json" in answer["error"]

    ask(engine, scenario)
    assert not engine.is_draining


def test_unknown_paths_methods_and_bugs_answer_as_json_too(ask: Ask) -> None:
    engine = FakeEngine()
    engine.error = AssertionError("a secret")

    async def scenario(client: Client) -> None:
        assert await client.get("/nowhere") == (404, {"error": "GET /nowhere: Not Found"})
        assert (await client.get("/reload"))[0] == 405
        status, answer = await client.get("/queues")
        assert status == 500
        assert "secret" not in answer["error"]
        assert (await client.post("/drain", json={"on": True, "x": "y" * 100_000}))[0] == 413

    ask(engine, scenario)


def test_retry_adds_up_what_the_shards_did(ask: Ask) -> None:
    engine = FakeEngine()

    async def scenario(client: Client) -> None:
        engine.answers = Answers({0: {"due": 1, "released": 1}, 1: {"due": 0, "released": 0}}, {})
        answer = await client.post("/retry", json={"id": ID.upper()})
        assert answer == (200, {"id": ID, "due": 1, "released": 1})
        engine.answers = Answers({0: {"due": 0}, 1: {"due": 0}}, {})
        assert (await client.post("/retry", json={"id": ID}))[0] == 404
        engine.answers = Answers({0: {"due": 0}}, {1: "down"})
        status, answer = await client.post("/retry", json={"id": ID})
        assert (status, "but not all did: shard 1: down" in answer["error"]) == (503, True)
        assert (await client.post("/retry", json={"id": "xyz"}))[0] == 400
        assert (await client.post("/retry", json={}))[0] == 400

    ask(engine, scenario)
    assert engine.asked == [("retry", {"id": ID}, 0)] * 3


def test_rules_add_up_over_shards_and_what_is_in_force_comes_once(ask: Ask) -> None:
    engine = FakeEngine()

    async def scenario(client: Client) -> None:
        rules = [{"rule": "a", "matched": 1, "fired": 0}, {"rule": "b", "matched": 2, "fired": 2}]
        near, far = {"key": "b@mx", "until_at": 5.0}, {"key": "b@mx", "until_at": 6.0}
        own = {"key": "a@v1", "until_at": 1.0}
        engine.answers = Answers(
            {0: {"rules": rules, "reactions": [near]}, 1: {"rules": rules, "reactions": [far, own]}}, {}
        )
        status, answer = await client.get("/rules?domain=x.example&vmta=v1")
        assert (status, answer["reactions"]) == (200, [own, far])
        assert [(row["matched"], row["fired"]) for row in answer["rules"]] == [(2, 0), (4, 4)]
        engine.answers = Answers({0: {"error": "no domain"}}, {})
        assert (await client.get("/rules?domain=x"))[0] == 422
        engine.answers = Answers({}, {0: "down"})
        assert (await client.get("/rules"))[0] == 503

    ask(engine, scenario)
    assert engine.asked[0] == ("rules", {"domain": "x.example", "vmta": "v1"}, 1)


def test_cancelling_a_rule_asks_every_shard(ask: Ask) -> None:
    engine = FakeEngine()

    async def scenario(client: Client) -> None:
        engine.answers = Answers({0: {"cancelled": 1}, 1: {"cancelled": 1}}, {})
        answer = await client.post("/rules/cancel", json={"key": "a@v1"})
        assert answer == (200, {"key": "a@v1", "cancelled": 2})
        engine.answers = Answers({0: {"cancelled": 0}}, {})
        assert (await client.post("/rules/cancel", json={"key": "a@v1"}))[0] == 404
        engine.answers = Answers({0: {"cancelled": 0}}, {1: "down"})
        assert (await client.post("/rules/cancel", json={"key": "a@v1"}))[0] == 503
        assert (await client.post("/rules/cancel", json={}))[0] == 400

    ask(engine, scenario)
    assert engine.asked == [("cancel_rule", {"key": "a@v1"}, 0)] * 3
