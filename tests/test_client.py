"""The clients of the injection socket, against the real listener and against one that breaks the rules."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from engine.client import AsyncSocketClient, ConnectionLost, SocketClient, Submission
from engine.core.reply import Reply, make_reply
from engine.inject.context import FeedContext
from engine.inject.socket import SocketListener
from engine.inject.submission import Offer
from engine.settings.model import ListenerSettings
from engine.telemetry.metrics import Counters
from tests.fakes.feeds import serving_socket

MESSAGE = b"Subject: x\r\n\r\nbody\r\n"
ENVELOPE = ("a@acme.example", ["b@x.example"])

Done = Callable[[Reply, list[str]], None]


class Intake:
    """Accepts everything but what is for refused.example; answers in the next turns, the last first."""

    def __init__(self) -> None:
        self.taken: list[FeedContext] = []
        self.waiting: list[tuple[Done, str]] = []

    def accept(
        self, sender: str, recipients: list[str], message: bytes, is_8bit: bool, context: Any, done: Done
    ) -> None:
        self.taken.append(context)
        if recipients[0].endswith("@refused.example"):
            done(make_reply(550, "5.7.1", "not here"), [])
            return
        if not self.waiting:
            asyncio.get_running_loop().call_later(0.001, self.answer)
        self.waiting.append((done, f"{len(self.taken):04}"))

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for done, message_id in reversed(waiting):
            done(make_reply(250, "2.0.0", "Ok"), [message_id])

    def submit(self, offer: Offer, done: Done) -> None:
        self.accept(offer.sender, offer.recipients, offer.message, offer.is_8bit, offer.context, done)


@asynccontextmanager
async def serving(path: Path, intake: Intake, **changes: Any) -> AsyncIterator[SocketListener]:
    settings = ListenerSettings(name="socket", protocol="socket", trusted=True)
    listener = SocketListener(msgspec.structs.replace(settings, **changes), intake, intake, Counters())
    async with serving_socket(listener, path):
        yield listener


@contextmanager
def serving_thread(path: Path, intake: Intake, **changes: Any) -> Iterator[None]:
    """Serve in a thread, for the client that blocks."""
    is_up, end = threading.Event(), []

    async def serve() -> None:
        async with serving(path, intake, **changes):
            over = asyncio.Event()
            end.append((asyncio.get_running_loop(), over))
            is_up.set()
            await over.wait()

    thread = threading.Thread(target=lambda: run(serve()))
    thread.start()
    assert is_up.wait(10)
    try:
        yield
    finally:
        loop, over = end[0]
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Answer the first octets of the first client with `answer`, then close."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))
        sock.listen()

        def serve() -> None:
            peer, _ = sock.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(coroutine, 30))


def frame(**fields: Any) -> bytes:
    payload = msgspec.msgpack.encode(fields)
    return len(payload).to_bytes(4, "big") + payload


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


# -- blocking ---------------------------------------------------------------------------------------------


def test_one_message(path: Path) -> None:
    intake = Intake()
    with serving_thread(path, intake), SocketClient(str(path)) as client:
        reply = client.submit(*ENVELOPE, MESSAGE, customer="acme", pool="p", job="j", tags={"a": "b"})
        assert (reply.is_accepted, reply.code, reply.message_ids) == (True, 250, ["0001"])
        (context,) = intake.taken
        assert (context.customer, context.pool, context.job, context.tags) == ("acme", "p", "j", {"a": "b"})


def test_refusal_is_a_reply(path: Path) -> None:
    with serving_thread(path, Intake()), SocketClient(str(path)) as client:
        reply = client.submit("a@acme.example", ["b@refused.example"], MESSAGE)
        assert (reply.is_accepted, reply.is_temporary, str(reply.code)) == (False, False, "550")
        assert client.submit(*ENVELOPE, MESSAGE).is_accepted


def test_many_in_flight_all_answered(path: Path) -> None:
    intake = Intake()
    with serving_thread(path, intake), SocketClient(str(path), max_in_flight=50) as client:
        rows = (Submission(sender=ENVELOPE[0], recipients=ENVELOPE[1], message=MESSAGE) for _ in range(500))
        replies = list(client.submit_all(rows))
        assert sorted(reply.id for reply in replies) == list(range(1, 501))  # type: ignore[type-var]
        assert len({reply.message_ids[0] for reply in replies}) == 500


def test_idempotent_message_carries_its_id(path: Path) -> None:
    intake = Intake()
    with serving_thread(path, intake), SocketClient(str(path)) as client:
        reply = client.submit(*ENVELOPE, MESSAGE, id="news-7", idempotent=True, customer="acme")
        assert reply.id == "news-7"
        assert intake.taken[0].idempotency == "snews-7"
        with pytest.raises(ValueError, match="needs an id"):
            client.submit(*ENVELOPE, MESSAGE, idempotent=True)


def test_id_twice_in_flight_is_the_callers_mistake(path: Path) -> None:
    with serving_thread(path, Intake()), SocketClient(str(path)) as client:
        row = Submission(id=1, sender=ENVELOPE[0], recipients=ENVELOPE[1], message=MESSAGE)
        with pytest.raises(ValueError, match="in flight already"):
            list(client.submit_all([row, row]))


def test_frame_over_the_bound_tells_why_the_connection_is_lost(path: Path) -> None:
    with (
        serving_thread(path, Intake(), max_message_size_bytes=1000, max_recipients=1),
        SocketClient(str(path)) as client,
        pytest.raises(ConnectionLost, match=r"552 5\.3\.4 frame of \d+ octets") as raised,
    ):
        client.submit(*ENVELOPE, b"x" * 10_000_000, id="big")
    assert raised.value.unanswered == ["big"]


def test_nobody_listens(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SocketClient(str(path))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n",
        frame(id=1, code="x"),
        frame(id=None, code=421, enhanced="", text=""),
        (20_004).to_bytes(4, "big") + b"\x81\xa1x" + b"\x91" * 20_000 + b"\x01",
    ],
)
def test_what_is_no_answer_loses_the_connection_with_the_open_ids(path: Path, answer: bytes) -> None:
    with answering(path, answer), SocketClient(str(path)) as client:
        with pytest.raises(ConnectionLost) as raised:
            client.submit(*ENVELOPE, MESSAGE)
        assert raised.value.unanswered == [1]
        with pytest.raises(ConnectionLost):
            client.submit(*ENVELOPE, MESSAGE)


def test_no_reply_in_time_loses_the_connection(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))
        sock.listen()
        with (
            SocketClient(str(path), timeout_s=0.01) as client,
            pytest.raises(ConnectionLost, match="no reply in time"),
        ):
            client.submit(*ENVELOPE, MESSAGE)


# -- asyncio ----------------------------------------------------------------------------------------------


def test_tasks_submit_at_once(path: Path) -> None:
    intake = Intake()

    async def scenario() -> None:
        async with serving(path, intake), AsyncSocketClient(str(path), max_in_flight=20) as client:
            replies = await asyncio.gather(*[client.submit(*ENVELOPE, MESSAGE) for _ in range(300)])
            assert all(reply.is_accepted for reply in replies)
            assert len({reply.message_ids[0] for reply in replies}) == 300

    run(scenario())


def test_refusal_reaches_its_own_task(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path, Intake()), AsyncSocketClient(str(path)) as client:
            good, bad = await asyncio.gather(
                client.submit(*ENVELOPE, MESSAGE), client.submit("a@acme.example", [], MESSAGE)
            )
            assert (good.code, bad.code) == (250, 501)

    run(scenario())


def test_large_messages_wait_for_the_engine_to_read(path: Path) -> None:
    large = MESSAGE + (b"x" * 70 + b"\r\n") * 50_000

    async def scenario() -> None:
        async with serving(path, Intake()), AsyncSocketClient(str(path)) as client:
            replies = await asyncio.gather(*[client.submit(*ENVELOPE, large) for _ in range(8)])
            assert all(reply.is_accepted for reply in replies)

    run(scenario())


def test_everything_in_flight_fails_when_the_engine_goes(path: Path) -> None:
    intake = Intake()

    async def scenario() -> None:
        async with serving(path, intake) as listener, AsyncSocketClient(str(path)) as client:
            tasks = [asyncio.ensure_future(client.submit(*ENVELOPE, MESSAGE, id=n)) for n in range(3)]
            while len(intake.taken) < 3:
                await asyncio.sleep(0)
            listener.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [ConnectionLost] * 3
            assert [result.unanswered for result in results] == [[0], [1], [2]]
            with pytest.raises(ConnectionLost):
                await client.submit(*ENVELOPE, MESSAGE)

    run(scenario())


def test_reason_of_the_engine_is_told(path: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(path, Intake(), max_message_size_bytes=1000, max_recipients=1),
            AsyncSocketClient(str(path)) as client,
        ):
            with pytest.raises(ConnectionLost, match="552"):
                await client.submit(*ENVELOPE, b"x" * 1_000_000)

    run(scenario())


def test_submit_before_open_is_refused(path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(ConnectionLost, match="not connected"):
            await AsyncSocketClient(str(path)).submit(*ENVELOPE, MESSAGE)

    run(scenario())
