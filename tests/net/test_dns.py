"""The seam to c-ares, against a server that tells the truth, fails and lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.core.errors import ResolveTemporary
from engine.net import dns as net_dns
from engine.net.dns import Answer, DNSClient
from tests.fakes.dns import GARBAGE, REFUSED, SERVFAIL, SILENT, TRUNCATED, FakeDNS


@asynccontextmanager
async def client_of(server: FakeDNS) -> AsyncIterator[DNSClient]:
    async with server:
        client = DNSClient(["127.0.0.1"], server.port)
        try:
            yield client
        finally:
            client.close()


async def ask(server: FakeDNS, name: str, record_type: str) -> Answer:
    async with client_of(server) as client:
        return await client.ask(name, record_type)


def test_mx_records_come_with_preference_and_lowest_ttl(run):
    """RFC 2181 section 5.2."""
    server = FakeDNS({("a.example", "MX"): ["10 MX1.A.Example.", "a.example. 90 MX 5 mx2.a.example."]})
    answer = run(ask(server, "a.example", "MX"))
    assert sorted(answer.records) == [(5, "mx2.a.example"), (10, "mx1.a.example")]
    assert answer.ttl_s == 90
    assert not answer.is_missing


@pytest.mark.parametrize(("record_type", "address"), [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")])
def test_addresses_are_text(run, record_type, address):
    server = FakeDNS({("mx.example", record_type): [address]})
    assert run(ask(server, "mx.example", record_type)).records == ((0, address),)


def test_missing_name_and_missing_type_are_told_apart(run):
    """RFC 5321 section 5.1."""

    async def scenario() -> None:
        async with client_of(FakeDNS({("a.example", "A"): ["192.0.2.1"]})) as client:
            assert await client.ask("a.example", "MX") == Answer()
            assert await client.ask("b.example", "MX") == Answer(is_missing=True)

    run(scenario())


@pytest.mark.parametrize("behavior", [SERVFAIL, REFUSED, GARBAGE, SILENT])
def test_failures_are_temporary(run, monkeypatch, behavior):
    """RFC 5321 section 5.1."""
    monkeypatch.setattr(net_dns, "_TIMEOUT_S", 0.02)
    monkeypatch.setattr(net_dns, "_TRIES", 2)
    with pytest.raises(ResolveTemporary, match="MX: "):
        run(ask(FakeDNS({("a.example", "MX"): behavior}), "a.example", "MX"))


def test_server_that_is_not_there_is_temporary(run):
    async def scenario() -> None:
        async with FakeDNS({}) as server:
            port = server.port
        client = DNSClient(["127.0.0.1"], port)
        with pytest.raises(ResolveTemporary):
            await client.ask("a.example", "MX")
        client.close()

    run(scenario())


def test_no_answer_by_the_deadline_is_temporary(run, monkeypatch):
    monkeypatch.setattr(net_dns, "_DEADLINE_S", 0.05)
    with pytest.raises(ResolveTemporary, match=r"no answer in 0\.05 s"):
        run(ask(FakeDNS({("a.example", "MX"): SILENT}), "a.example", "MX"))


def test_slow_answer_is_waited_for_where_others_were_fast(run):
    async def scenario() -> None:
        script = {(name, "A"): ["192.0.2.1"] for name in ("fast.example", "slow.example")}
        async with client_of(FakeDNS(script, delay_s={"slow.example": 1.2})) as client:
            for _ in range(3):
                await client.ask("fast.example", "A")
            assert (await client.ask("slow.example", "A")).records

    run(scenario())


def test_truncated_answer_is_asked_for_again_over_tcp(run):
    """RFC 7766 section 5."""
    key = ("big.example", "MX")
    hosts = [f"{number} mx{number}.big.example." for number in range(200)]
    answer = run(ask(FakeDNS({key: TRUNCATED}, over_tcp={key: hosts}), *key))
    assert len(answer.records) == 200


def test_cname_chain_is_followed_to_its_end(run):
    """RFC 5321 section 5.1, RFC 1034 section 3.6.2."""
    script = {
        ("a.example", "A"): [
            "a.example. 300 CNAME b.example.",
            "b.example. 20 CNAME c.example.",
            "c.example. 300 A 192.0.2.1",
        ]
    }
    answer = run(ask(FakeDNS(script), "a.example", "A"))
    assert answer == Answer(((0, "192.0.2.1"),), 20.0)


@pytest.mark.parametrize(
    "lies",
    [
        ["other.example. 300 A 192.0.2.66"],
        ["a.example. 300 CNAME b.example.", "c.example. 300 A 192.0.2.66"],
        ["a.example. 300 CNAME b.example.", "a.example. 300 A 192.0.2.66"],
        ["a.example. 300 CNAME b.example.", "b.example. 300 CNAME a.example."],
        ["a.example. 300 CNAME a.example."],
        ['a.example. 300 TXT "192.0.2.66"'],
        ["a.example. 300 AAAA 2001:db8::66"],
    ],
    ids=["owner", "behind alias", "beside alias", "loop", "own loop", "type", "family"],
)
def test_records_that_do_not_belong_to_the_question_are_ignored(run, lies):
    assert run(ask(FakeDNS({("a.example", "A"): lies}), "a.example", "A")).records == ()


@pytest.mark.parametrize("name", ["x" * 64 + ".example", "a..example", ".".join(["x" * 60] * 5)])
def test_name_that_dns_cannot_hold_is_missing(run, name):
    assert run(ask(FakeDNS({}), name, "MX")) == Answer(is_missing=True)


def test_questions_beyond_the_limit_wait_for_a_slot(run, monkeypatch):
    monkeypatch.setattr(net_dns, "_MAX_YOUNG", 4)

    async def scenario() -> None:
        names = [f"{number}.example" for number in range(20)]
        async with client_of(FakeDNS({(name, "A"): ["192.0.2.1"] for name in names})) as client:
            answers = await asyncio.gather(*(client.ask(name, "A") for name in names))
            assert all(answer.records for answer in answers)

    run(scenario())


def test_channel_is_renewed_without_losing_a_question(run, monkeypatch):
    monkeypatch.setattr(net_dns, "_QUESTIONS_PER_CHANNEL", 3)

    async def scenario() -> None:
        server = FakeDNS({("a.example", "A"): ["192.0.2.1"]})
        async with client_of(server) as client:
            answers = await asyncio.gather(*(client.ask("a.example", "A") for _ in range(10)))
            assert all(answer.records for answer in answers)
            assert server.count("a.example", "A") >= 4  # a new channel knows nothing

    run(scenario())


def test_closing_gives_up_what_is_under_way(run):
    async def scenario() -> None:
        async with client_of(FakeDNS({("a.example", "A"): SILENT})) as client:
            question: asyncio.Task[Any] = asyncio.ensure_future(client.ask("a.example", "A"))
            while not client._asked:
                await asyncio.sleep(0)
            client.close()
            with pytest.raises(ResolveTemporary, match="cancelled"):
                await question

    run(scenario())
