"""Links over a real socketpair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.control.bus import MAX_PENDING, Link, connect_link, open_link, serve_links
from engine.core.errors import NetworkError, StoreFull

Scenario = Callable[[Link, Link], Awaitable[None]]


def run(scenario: Scenario, **handlers: Any) -> list[dict[str, Any]]:
    """Run a scenario over (asker, answerer); return what the loop's exception handler heard of."""
    heard: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
        ours, theirs = socket.socketpair()
        asker = await open_link(ours, Link({}, name="shard 0"))
        answerer = await open_link(theirs, Link(handlers, name="supervisor"))
        await scenario(asker, answerer)
        asker.close()
        answerer.close()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return heard


def test_a_request_is_answered_by_a_value_or_a_coroutine_or_a_future() -> None:
    async def slow(body: int) -> int:
        await asyncio.sleep(0)
        return body + 1

    def future(body: int) -> asyncio.Future[int]:
        made = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(made.set_result, body + 2)
        return made

    async def scenario(asker: Link, _answerer: Link) -> None:
        assert await asker.request("value", 1) == 1
        assert await asker.request("slow", 1) == 2
        assert await asker.request("future", 1) == 3

    assert run(scenario, value=lambda body: body, slow=slow, future=future) == []


def test_requests_are_answered_in_any_order() -> None:
    gates: dict[str, asyncio.Future[str]] = {}

    def wait(body: str) -> asyncio.Future[str]:
        gates[body] = asyncio.get_running_loop().create_future()
        if len(gates) == 2:
            gates["second"].set_result("second")
            asyncio.get_running_loop().call_soon(gates["first"].set_result, "first")
        return gates[body]

    async def scenario(asker: Link, _answerer: Link) -> None:
        order: list[str] = []
        done = asyncio.Event()

        def note(result: str, _error: NetworkError | None) -> None:
            order.append(result)
            if len(order) == 2:
                done.set()

        asker.send("wait", "first", note)
        asker.send("wait", "second", note)
        await done.wait()
        assert order == ["second", "first"]

    run(scenario, wait=wait)


def test_a_refusal_reaches_the_asker_only() -> None:
    def refuse(_body: None) -> None:
        raise StoreFull("no room")

    async def scenario(asker: Link, answerer: Link) -> None:
        with pytest.raises(NetworkError, match="StoreFull: no room") as refused:
            await asker.request("refuse")
        assert refused.value.phase == "request"
        assert answerer.is_open

    assert run(scenario, refuse=refuse) == []


def test_a_bug_in_a_handler_reaches_the_asker_and_the_loop() -> None:
    async def fail(_body: None) -> None:
        raise AssertionError("a bug")

    async def scenario(asker: Link, _answerer: Link) -> None:
        with pytest.raises(NetworkError, match="a bug"):
            await asker.request("fail")

    heard = run(scenario, fail=fail)
    assert [type(context["exception"]) for context in heard] == [AssertionError]


def test_a_failed_notification_is_not_swallowed() -> None:
    def refuse(_body: None) -> None:
        raise StoreFull("nobody asked")

    async def scenario(asker: Link, _answerer: Link) -> None:
        asker.notify("refuse")
        assert await asker.request("value", 1) == 1  # it was handled by then

    heard = run(scenario, refuse=refuse, value=lambda body: body)
    assert [type(context["exception"]) for context in heard] == [StoreFull]


def test_a_request_that_nobody_answers_is_refused_by_name() -> None:
    async def scenario(asker: Link, _answerer: Link) -> None:
        with pytest.raises(NetworkError, match="nobody here answers 'sing'"):
            await asker.request("sing")

    run(scenario)


def test_what_is_pending_fails_when_the_link_is_lost_and_all_that_follows() -> None:
    async def scenario(asker: Link, answerer: Link) -> None:
        pending = asyncio.ensure_future(asker.request("never"))
        await asyncio.sleep(0)
        answerer.close()
        with pytest.raises(NetworkError, match="lost") as lost:
            await pending
        assert lost.value.phase == "link"
        with pytest.raises(NetworkError, match="closed"):
            await asker.request("never")
        asker.notify("never")

    run(scenario, never=lambda _body: asyncio.get_running_loop().create_future())


def test_loss_is_told_once_after_pending_requests_have_failed() -> None:
    async def main() -> None:
        told: list[str] = []
        ours, theirs = socket.socketpair()
        lost = asyncio.Event()

        def on_lost(link: Link) -> None:
            told.append("lost")
            assert not link.is_open
            lost.set()

        asker = await open_link(ours, Link({}, on_lost=on_lost))
        asker.send("never", None, lambda _result, error: told.append(str(error and error.phase)))
        theirs.close()
        await lost.wait()
        assert told == ["link", "lost"]

    asyncio.run(main())


def test_nonsense_ends_the_link() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        link = await open_link(ours, Link({}))
        pending = asyncio.ensure_future(link.request("x"))
        await asyncio.sleep(0)
        theirs.send(b"\x00\x00\x00\x01\xc1")
        with pytest.raises(NetworkError, match="not a frame"):
            await pending
        theirs.close()

    asyncio.run(main())


def test_a_reply_that_nobody_asked_for_ends_the_link() -> None:
    async def scenario(asker: Link, answerer: Link) -> None:
        answerer._write("", 77, None)
        with pytest.raises(NetworkError, match="request 77"):
            await asker.request("never")

    run(scenario, never=lambda _body: asyncio.get_running_loop().create_future())


def test_a_request_past_its_time_fails_and_its_late_reply_is_dropped() -> None:
    gate: list[asyncio.Future[str]] = []

    def wait(_body: None) -> asyncio.Future[str]:
        gate.append(asyncio.get_running_loop().create_future())
        return gate[0]

    async def scenario(asker: Link, answerer: Link) -> None:
        with pytest.raises(NetworkError, match="did not answer 'wait'") as late:
            await asker.request("wait", None, timeout_s=0.01)
        assert late.value.phase == "timeout"
        gate[0].set_result("late")
        assert await asker.request("value", 1) == 1

    assert run(scenario, wait=wait, value=lambda body: body) == []


def test_pending_requests_are_bounded() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        link = await open_link(ours, Link({}))
        errors: list[NetworkError | None] = []
        for _ in range(MAX_PENDING + 1):
            link.send("x", None, lambda _result, error: errors.append(error))
        assert len(errors) == 1
        assert "pending" in str(errors[0])
        link.close()
        theirs.close()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_link_whose_peer_does_not_read_says_that_it_is_congested() -> None:
    async def scenario(asker: Link, answerer: Link) -> None:
        answerer._transport.pause_reading()  # type: ignore[union-attr]
        asker.send("value", bytes(8_000_000), lambda _result, _error: None)
        assert asker.is_congested
        answerer._transport.resume_reading()  # type: ignore[union-attr]
        await asker.request("value", 1)
        assert not asker.is_congested

    run(scenario, value=lambda _body: None)


def test_a_path_where_nobody_listens_is_a_network_error(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(NetworkError, match="No such file"):
            await connect_link(str(tmp_path / "none.sock"), Link({}))

    asyncio.run(main())


def test_a_served_path_is_private_and_replaces_what_a_dead_process_left(tmp_path: Path) -> None:
    path = tmp_path / "shard.sock"

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        accepted: list[Link] = []

        def make() -> Link:
            accepted.append(Link({"value": lambda body: body}))
            return accepted[-1]

        server = await serve_links(str(path), make)
        assert path.stat().st_mode & 0o777 == 0o600
        link = await connect_link(str(path), Link({}))
        assert await link.request("value", 5) == 5
        link.close()
        accepted[0].close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
