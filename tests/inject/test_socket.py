"""The injection socket: who may connect, what is counted, how large a frame may be."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.inject.socket import FRAME_OVERHEAD_BYTES, RECIPIENT_BYTES, SocketListener
from engine.telemetry.metrics import Counters
from tests.fakes.feeds import SOCKET_SETTINGS, Repeats, connect_socket, frame, make_socket


def test_a_frame_may_hold_the_largest_message_and_all_its_recipients(intake: Any) -> None:
    listener = make_socket(intake)
    listener.use(msgspec.structs.replace(SOCKET_SETTINGS, max_message_size_bytes=1000, max_recipients=3))
    assert listener.max_frame_bytes == 1000 + 3 * RECIPIENT_BYTES + FRAME_OVERHEAD_BYTES


def test_too_many_connections_are_told(intake: Any) -> None:
    listener = make_socket(intake, max_connections=1)
    connect_socket(listener)
    _, transport = connect_socket(listener)
    assert transport.codes() == [(None, 421)]
    assert transport.is_closed


def test_refusals_are_counted_by_code(intake: Any) -> None:
    counters = Counters()
    listener = SocketListener(SOCKET_SETTINGS, intake, Repeats(), counters)
    listener.now = lambda: 0.0
    session, _ = connect_socket(listener)
    session.data_received(frame(recipients=[]) + frame(colour=1))
    assert counters.counter("mailrail_refusals_total", feed="socket", code="501") == [2]
