"""Connections of the injection socket: framing kept or lost, many in flight, every bound with its reply."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.inject.room import Room
from engine.inject.socket import SocketListener
from engine.inject.socket_session import (
    FRAME_TIMEOUT_S,
    LARGE_FRAME_BYTES,
    MAX_PENDING,
    MAX_PENDING_BYTES,
    STALL_S,
    UNREAD_S,
    SocketSession,
)
from tests.fakes.feeds import (
    Repeats,
    SocketTransport,
    connect_socket,
    frame,
    make_socket,
    serving_socket,
)


@pytest.fixture
def session_and_transport(intake: Any) -> tuple[SocketSession, SocketTransport]:
    return connect_socket(make_socket(intake))


# -- submissions ------------------------------------------------------------------------------------------


def test_submission_is_answered_after_its_commit(intake: Any) -> None:
    intake.reply = None
    session, transport = connect_socket(make_socket(intake))
    session.data_received(frame(id="abc"))
    assert transport.answers() == []
    intake.answer(text="Ok: queued")
    assert transport.answers() == [
        {"id": "abc", "code": 250, "enhanced": "2.0.0", "text": "Ok: queued", "message_ids": ["0123"]}
    ]


def test_many_in_flight_are_answered_in_any_order(intake: Any) -> None:
    intake.reply = None
    session, transport = connect_socket(make_socket(intake))
    session.data_received(b"".join(frame(id=number) for number in range(5)))
    assert len(intake.taken) == 5
    intake.waiting.reverse()
    intake.answer()
    assert transport.codes() == [(number, 250) for number in (4, 3, 2, 1, 0)]


def test_frames_octet_by_octet(intake: Any) -> None:
    session, transport = connect_socket(make_socket(intake))
    stream = frame(id=1) + frame(id=2)
    for at in range(len(stream)):
        session.data_received(stream[at : at + 1])
    assert transport.codes() == [(1, 250), (2, 250)]


def test_envelope_and_context_reach_the_acceptor(intake: Any) -> None:
    session, _ = connect_socket(make_socket(intake))
    session.data_received(frame(job="spring", tags={"list": "a"}, message="ü\n".encode()))
    sender, recipients, message, is_8bit, context = intake.taken[0]
    assert (sender, recipients, message, is_8bit) == (
        "a@acme.example",
        ["b@x.example"],
        "ü\r\n".encode(),
        True,
    )
    assert (context.feed, context.customer, context.job, context.tags) == (
        "socket",
        "acme",
        "spring",
        {"list": "a"},
    )


def test_idempotent_submission_goes_to_the_keeper_of_ids(intake: Any) -> None:
    listener = make_socket(intake)
    session, _ = connect_socket(listener)
    session.data_received(frame(idempotent=True))
    assert intake.taken == []
    assert isinstance(listener.repeats, Repeats)
    assert [offer.context.idempotency for offer in listener.repeats.offers] == ["i1"]


def test_faulty_submission_is_refused_by_its_id_and_the_connection_goes_on(intake: Any) -> None:
    session, transport = connect_socket(make_socket(intake))
    session.data_received(frame(id=1, colour="red") + frame(id=2, recipients=[]) + frame(id=3))
    assert transport.codes() == [(1, 501), (2, 501), (3, 250)]
    first = transport.answers()[0]
    assert first["enhanced"] == "5.5.4"
    assert "unknown field `colour`" in first["text"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"\xc1",
        b"\x93\x01\x02\x03",
        b"\x80",
        b"\x82\xa2id\x01\xa4tags" + b"\x91" * 1500 + b"\x01",
    ],
)
def test_payload_without_an_id_ends_the_connection(intake: Any, payload: bytes) -> None:
    session, transport = connect_socket(make_socket(intake))
    session.data_received(frame(payload) + frame(id=3))
    assert transport.codes() == [(None, 501)]
    assert transport.is_closed
    assert intake.taken == []


def test_what_is_in_flight_is_answered_before_a_broken_connection_closes(intake: Any) -> None:
    intake.reply = None
    session, transport = connect_socket(make_socket(intake))
    session.data_received(frame(id=7) + frame(b"\xc1"))
    assert transport.codes() == [(None, 501)]
    assert not transport.is_closed
    assert not transport.is_reading_now
    intake.answer()
    assert transport.codes() == [(None, 501), (7, 250)]
    assert transport.is_closed


def test_frame_over_the_bound_is_refused_before_it_is_read(intake: Any) -> None:
    listener = make_socket(intake)
    session, transport = connect_socket(listener)
    session.data_received(frame(id=1) + (listener.max_frame_bytes + 1).to_bytes(4, "big"))
    assert transport.codes() == [(1, 250), (None, 552)]
    assert transport.is_closed


def test_message_over_the_bound_in_a_frame_within_it_keeps_the_connection(intake: Any) -> None:
    session, transport = connect_socket(make_socket(intake, max_message_size_bytes=100))
    session.data_received(frame(id=1, message=b"x" * 101) + frame(id=2))
    assert transport.codes() == [(1, 552), (2, 250)]


def test_answers_to_a_client_that_is_gone_are_dropped(intake: Any) -> None:
    intake.reply = None
    session, transport = connect_socket(make_socket(intake))
    session.data_received(frame())
    session.connection_lost(None)
    intake.answer()
    assert transport.written == b""


def test_client_that_sends_no_more_gets_its_answers(intake: Any) -> None:
    intake.reply = None
    session, transport = connect_socket(make_socket(intake))
    session.data_received(frame(id=4))
    assert session.eof_received() is True
    assert not transport.is_closed
    intake.answer()
    assert transport.codes() == [(4, 250)]
    assert transport.is_closed


# -- bounds -----------------------------------------------------------------------------------------------


def test_too_many_in_flight_are_not_read_until_half_are_answered(intake: Any) -> None:
    intake.reply = None
    session, transport = connect_socket(make_socket(intake))
    session.data_received(b"".join(frame(id=number) for number in range(MAX_PENDING)))
    assert not transport.is_reading_now
    rest = intake.waiting[MAX_PENDING // 2 - 1 :]
    del intake.waiting[MAX_PENDING // 2 - 1 :]
    intake.answer()
    assert not transport.is_reading_now
    intake.waiting = rest
    intake.answer()
    assert transport.is_reading_now


def test_too_many_octets_in_flight_are_not_read(intake: Any) -> None:
    intake.reply = None
    session, transport = connect_socket(make_socket(intake))
    session.data_received(frame(message=(b"x" * 998 + b"\r\n") * (MAX_PENDING_BYTES // 1000)))
    session.data_received(frame(message=(b"x" * 998 + b"\r\n") * 100))
    assert not transport.is_reading_now
    intake.answer()
    assert transport.is_reading_now


def test_client_that_does_not_read_is_not_read_and_at_last_cut_off(
    session_and_transport: tuple[SocketSession, SocketTransport],
) -> None:
    session, transport = session_and_transport
    session.pause_writing()
    assert not transport.is_reading_now
    session.resume_writing()
    assert transport.is_reading_now
    session.pause_writing()
    for _ in range(UNREAD_S):
        session.tick()
    assert not transport.is_closed
    session.tick()
    assert transport.is_closed


def test_half_frame_that_stands_still_times_out(
    session_and_transport: tuple[SocketSession, SocketTransport],
) -> None:
    session, transport = session_and_transport
    session.data_received(frame()[:7])
    for _ in range(STALL_S):
        session.tick()
    assert not transport.is_closed
    session.tick()
    assert transport.codes() == [(None, 421)]
    assert transport.is_closed


def test_frame_that_trickles_times_out(session_and_transport: tuple[SocketSession, SocketTransport]) -> None:
    session, transport = session_and_transport
    session.data_received((1 << 20).to_bytes(4, "big"))
    for _ in range(FRAME_TIMEOUT_S):
        session.data_received(b"x")
        session.tick()
    assert not transport.is_closed
    session.data_received(b"x")
    session.tick()
    assert transport.codes() == [(None, 421)]


def test_idle_connection_stays(session_and_transport: tuple[SocketSession, SocketTransport]) -> None:
    session, transport = session_and_transport
    session.data_received(frame())
    for _ in range(10 * STALL_S):
        session.tick()
    assert not transport.is_closed


def test_large_frames_wait_for_room_and_are_read_in_turn(intake: Any) -> None:
    listener = make_socket(intake)
    listener.room = Room(LARGE_FRAME_BYTES * 2)
    large = frame(message=(b"x" * 998 + b"\r\n") * (LARGE_FRAME_BYTES // 800))
    (one, one_transport), (two, two_transport) = connect_socket(listener), connect_socket(listener)
    one.data_received(large[:100])
    two.data_received(large[:100])
    assert one_transport.is_reading_now
    assert not two_transport.is_reading_now
    for _ in range(STALL_S + 1):
        two.tick()
    assert not two_transport.is_closed
    one.data_received(large[100:])
    assert one_transport.codes() == [(1, 250)]
    assert two_transport.is_reading_now
    two.data_received(large[100:])
    assert two_transport.codes() == [(1, 250)]
    assert listener.room.reserved_bytes == 0


def test_room_comes_back_from_connections_that_are_lost(intake: Any) -> None:
    listener = make_socket(intake)
    listener.room = Room(LARGE_FRAME_BYTES * 2)
    head = (LARGE_FRAME_BYTES * 2).to_bytes(4, "big") + b"part"
    sessions = [connect_socket(listener) for _ in range(3)]
    for session, _ in sessions:
        session.data_received(head)
    assert [transport.is_reading_now for _, transport in sessions] == [True, False, False]
    sessions[1][0].connection_lost(None)
    sessions[0][0].connection_lost(None)
    assert sessions[2][1].is_reading_now
    sessions[2][0].connection_lost(None)
    assert listener.room.reserved_bytes == 0


# -- on a real socket -------------------------------------------------------------------------------------


@asynccontextmanager
async def talking(
    intake: Any, path: Path
) -> AsyncIterator[tuple[SocketListener, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve, with one client."""
    async with serving_socket(make_socket(intake), path) as listener:
        reader, writer = await asyncio.open_unix_connection(os.fspath(path))
        yield listener, reader, writer
        writer.close()
        await writer.wait_closed()


def test_kernel_names_the_client(intake: Any, tmp_path: Path, run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        async with talking(intake, tmp_path / "s") as (_, reader, writer):
            writer.write(frame())
            await reader.readexactly(4)
        assert intake.taken[0][4].peer == f"uid {os.geteuid()} pid {os.getpid()}"

    run(scenario())


def test_client_that_shuts_its_side_gets_all_answers_and_the_end(
    intake: Any, tmp_path: Path, run: Callable[..., Any], until: Callable[..., Any]
) -> None:
    intake.reply = None

    async def scenario() -> None:
        async with talking(intake, tmp_path / "s") as (_, reader, writer):
            writer.write(frame(id=1) + frame(id=2))
            writer.write_eof()
            await until(lambda: len(intake.waiting) == 2)
            intake.answer()
            octets = await reader.read()
            assert octets.count(b"Ok") == 2

    run(scenario())


def test_stop_answers_what_was_submitted_and_lets_a_begun_frame_end(
    intake: Any, tmp_path: Path, run: Callable[..., Any], until: Callable[..., Any]
) -> None:
    intake.reply = None

    async def scenario() -> None:
        async with serving_socket(make_socket(intake), tmp_path / "s") as listener:
            path = os.fspath(tmp_path / "s")
            idle, busy, half = [await asyncio.open_unix_connection(path) for _ in range(3)]
            busy[1].write(frame(id=1))
            half[1].write(frame(id=2)[:9])
            await until(lambda: len(intake.waiting) == 1 and len(listener.sessions) == 3)
            await asyncio.sleep(0.01)
            stopping = asyncio.ensure_future(listener.stop(10.0))
            assert await idle[0].read() == b""
            half[1].write(frame(id=2)[9:])
            await until(lambda: len(intake.waiting) == 2)
            intake.answer()
            assert b"Ok" in await busy[0].read()
            assert b"Ok" in await half[0].read()
            await stopping
            for _, writer in (idle, busy, half):
                writer.close()
                await writer.wait_closed()

    run(scenario())


def test_stop_ends_with_its_grace(
    intake: Any, tmp_path: Path, run: Callable[..., Any], until: Callable[..., Any]
) -> None:
    intake.reply = None

    async def scenario() -> None:
        async with talking(intake, tmp_path / "s") as (listener, reader, writer):
            writer.write(frame())
            await until(lambda: len(intake.waiting) == 1)
            await listener.stop(0.01)
            assert await reader.read() == b""

    run(scenario())


def test_answer_of_an_unread_frame_arrives_though_octets_are_left(
    intake: Any, tmp_path: Path, run: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with serving_socket(make_socket(intake, max_message_size_bytes=1000), tmp_path / "s"):
            reader, writer = await asyncio.open_unix_connection(os.fspath(tmp_path / "s"))
            writer.write((1 << 30).to_bytes(4, "big") + b"x" * 100_000)
            head = await reader.readexactly(4)
            answer = msgspec.msgpack.decode(await reader.readexactly(int.from_bytes(head, "big")))
            assert (answer["id"], answer["code"]) == (None, 552)
            writer.close()

    run(scenario())
