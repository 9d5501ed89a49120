"""Shards that talk to shards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.control.peers import BULK_BYTES, PeerLinks
from engine.core.errors import NetworkError


def run(tmp_path: Path, scenario: Callable[[PeerLinks, PeerLinks], Awaitable[None]], handlers: Any) -> None:
    async def main() -> None:
        zero, one = PeerLinks(0, tmp_path, {}), PeerLinks(1, tmp_path, handlers)
        await zero.open()
        await one.open()
        try:
            await scenario(zero, one)
        finally:
            zero.close()
            one.close()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def wait_up(links: PeerLinks, shard: int) -> None:
    while not links.is_up(shard):
        await asyncio.sleep(0.001)


def test_a_handler_learns_which_shard_asks(tmp_path: Path) -> None:
    async def scenario(zero: PeerLinks, _one: PeerLinks) -> None:
        zero.set_peer(1, b"abcd")
        await wait_up(zero, 1)
        assert zero.up == [1]
        assert await zero.request(1, "who", "hello") == [0, "hello"]
        assert await zero.request(1, "who", "bulk", size_bytes=BULK_BYTES + 1) == [0, "bulk"]

    run(tmp_path, scenario, {"who": lambda shard, body: [shard, body]})


def test_a_peer_that_is_not_up_fails_requests_at_once(tmp_path: Path) -> None:
    async def scenario(zero: PeerLinks, _one: PeerLinks) -> None:
        errors: list[NetworkError | None] = []
        zero.send(1, "who", None, lambda _result, error: errors.append(error))
        assert "shard 1 is down" in str(errors[0])
        with pytest.raises(NetworkError, match="shard 1 is down"):
            await zero.request(1, "who")
        zero.notify(1, "who")

    run(tmp_path, scenario, {})


def test_what_is_pending_fails_when_the_peer_is_said_to_be_down(tmp_path: Path) -> None:
    async def scenario(zero: PeerLinks, _one: PeerLinks) -> None:
        zero.set_peer(1, b"abcd")
        await wait_up(zero, 1)
        pending = asyncio.ensure_future(zero.request(1, "never"))
        await asyncio.sleep(0)
        zero.set_peer(1, None)
        with pytest.raises(NetworkError):
            await pending
        assert not zero.is_up(1)

    run(tmp_path, scenario, {"never": lambda _shard, _body: asyncio.get_running_loop().create_future()})


def test_a_small_body_overtakes_a_large_one(tmp_path: Path) -> None:
    arrived: list[int] = []

    async def scenario(zero: PeerLinks, _one: PeerLinks) -> None:
        zero.set_peer(1, b"abcd")
        await wait_up(zero, 1)
        large = asyncio.ensure_future(zero.request(1, "take", bytes(50_000_000), size_bytes=50_000_000))
        await asyncio.sleep(0)
        await zero.request(1, "take", b"small", size_bytes=5)
        await large
        assert arrived == [5, 50_000_000]

    run(tmp_path, scenario, {"take": lambda _shard, body: arrived.append(len(body))})


def test_a_restarted_peer_is_connected_anew(tmp_path: Path) -> None:
    async def scenario(zero: PeerLinks, one: PeerLinks) -> None:
        zero.set_peer(1, b"abcd")
        await wait_up(zero, 1)
        one.close()
        again = PeerLinks(1, tmp_path, {"who": lambda _shard, _body: "again"})
        await again.open()
        zero.set_peer(1, None)
        zero.set_peer(1, b"efgh")
        await wait_up(zero, 1)
        assert await zero.request(1, "who") == "again"
        again.close()

    run(tmp_path, scenario, {})


def test_a_lost_link_to_a_peer_that_lives_is_opened_again(tmp_path: Path) -> None:
    async def scenario(zero: PeerLinks, one: PeerLinks) -> None:
        zero.set_peer(1, b"abcd")
        await wait_up(zero, 1)
        before = zero._peers[1].small
        for link in list(one._incoming):
            link.close()
        while zero._peers[1].small is before:
            await asyncio.sleep(0.001)
        await wait_up(zero, 1)
        assert await zero.request(1, "who") == "here"
        assert await zero.request(1, "who", size_bytes=BULK_BYTES + 1) == "here"

    run(tmp_path, scenario, {"who": lambda _shard, _body: "here"})


def test_our_own_shard_is_no_peer(tmp_path: Path) -> None:
    async def scenario(zero: PeerLinks, _one: PeerLinks) -> None:
        zero.set_peer(0, b"abcd")
        assert zero.up == []

    run(tmp_path, scenario, {})
