"""When a shard takes no new mail: bounds, the way back, what every feed says."""

from __future__ import annotations

import msgspec
import pytest

from engine.inject.shedding import CALM_S, Measure, Shedding, make_measures
from engine.inject.socket import SocketListener
from engine.inject.socket_session import SocketSession
from engine.settings.model import EngineSettings
from engine.telemetry.metrics import Counters
from tests.fakes.feeds import (
    ENVELOPE,
    HELLO,
    MESSAGE,
    SOCKET_SETTINGS,
    Intake,
    Repeats,
    SocketTransport,
    connect_smtp,
    frame,
)
from tests.fakes.submission import SMTP_SETTINGS, make_listener


class Value:
    def __init__(self) -> None:
        self.value = 0.0

    def __call__(self) -> float:
        return self.value


def make(counters: Counters | None = None) -> tuple[Shedding, Value, list[str]]:
    value, told = Value(), []  # type: ignore[var-annotated]
    shedding = Shedding(counters, told.append)
    shedding.measures = [Measure("loop lag", value, 2.0, 1.0)]
    return shedding, value, told


def test_it_begins_at_the_bound_and_ends_after_a_calm_below_the_lower_one() -> None:
    shedding, value, told = make()
    steps = [
        (1.9, 0.0, False),
        (2.0, 1.0, True),
        (1.5, 2.0, True),
        (0.9, 3.0, True),
        (0.9, 3.0 + CALM_S - 0.1, True),
        (1.1, 5.0, True),  # not calm: it begins anew
        (0.9, 6.0, True),
        (0.9, 6.0 + CALM_S, False),
        (1.9, 20.0, False),
    ]
    for amount, now, is_shedding in steps:
        value.value = amount
        shedding.look(now)
        assert (shedding.reply is not None) == is_shedding, now
    assert told == ["loop lag", ""]


def test_the_reason_stays_that_with_which_it_began() -> None:
    shedding, value, told = make()
    other = Value()
    shedding.measures = [*shedding.measures, Measure("connections", other, 10, 9)]
    other.value = 10
    shedding.look(0.0)
    value.value = 5.0
    shedding.look(1.0)
    other.value = 0
    shedding.look(2.0)
    assert (shedding.reason, told) == ("connections", ["connections"])


def test_one_late_step_of_the_loop_is_no_overload() -> None:
    shedding, _, _ = make()
    shedding.heed_lag(5.0)
    assert shedding.lag_s == pytest.approx(1.0)
    for _ in range(20):
        shedding.heed_lag(5.0)
    assert shedding.lag_s > 4.5
    for _ in range(20):
        shedding.heed_lag(-0.1)
    assert shedding.lag_s < 0.1


def test_bounds_are_those_of_the_settings_and_zero_is_none() -> None:
    zero = {"lag_s": Value(), "staged_bytes": Value(), "window_bytes": Value(), "connections": Value()}
    settings = EngineSettings(hostname="a", data_dir="/a", max_inbound_connections=100)
    found = {each.reason: (each.high, each.low) for each in make_measures(settings, **zero)}
    assert found == {
        "loop lag": (2.0, 1.0),
        "octets staged": (64e6, 32e6),
        "memory window": (512e6, 384e6),
        "connections": (100, 90),
    }
    never = msgspec.structs.replace(
        settings, max_loop_lag_s=0.0, max_staged_bytes=0, max_inbound_connections=0
    )
    assert [each.reason for each in make_measures(never, **zero)] == ["memory window"]


def test_every_feed_says_the_same() -> None:
    """RFC 5321 section 3.8: SMTP at connect and MAIL, the socket to a submission; what was begun may end."""
    counters = Counters()
    shedding, value, _ = make(counters)
    intake = Intake()
    smtp = make_listener(intake, SMTP_SETTINGS, shedding)
    socket = SocketListener(SOCKET_SETTINGS, intake, Repeats(), counters, shedding)
    socket.now = lambda: 0.0
    busy, busy_transport = connect_smtp(smtp)
    idle, idle_transport = connect_smtp(smtp)
    busy.data_received(HELLO + ENVELOPE)
    idle.data_received(HELLO)
    session, transport = SocketSession(socket), SocketTransport()
    session.connection_made(transport)
    value.value = 9.0
    shedding.look(0.0)
    said = "421 4.3.2 overloaded (loop lag), try again later"
    _, late = connect_smtp(smtp)
    assert late.written.decode() == f"{said}\r\n"
    idle.data_received(ENVELOPE)
    assert idle_transport.written.decode().endswith(f"{said}\r\n")
    assert idle_transport.is_closed
    busy.data_received(MESSAGE + b".\r\n")
    assert busy_transport.codes()[-1] == 250
    session.data_received(frame(id=7))
    [answer] = transport.answers()
    assert f"{answer['code']} {answer['enhanced']} {answer['text']}" == said
    assert not transport.is_closed
    assert len(intake.taken) == 1
    rows = {
        tuple(labels): n
        for name, labels, n in counters.snapshot()["counters"]
        if name == "mailrail_shed_total"
    }
    assert rows == {("smtp", "loop lag"): 2, ("socket", "loop lag"): 1}


def test_gauge_shows_the_reason_while_it_lasts() -> None:
    counters = Counters()
    shedding, value, _ = make(counters)
    rows = lambda: [r for r in counters.snapshot()["gauges"] if r[0] == "mailrail_shedding"]  # noqa: E731
    assert rows() == []
    value.value = 9.0
    shedding.look(0.0)
    [(_, labels, number)] = rows()
    assert (list(labels), number) == (["loop lag"], 1.0)
