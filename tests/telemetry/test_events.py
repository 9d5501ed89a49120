"""Events and their lines."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import Reply
from engine.telemetry.events import EVENTS, Event, Peer, format_events


def make_event(**changes: Any) -> Event:
    facts: dict[str, Any] = {
        "event": "delivered",
        "time": 1000.25,
        "id": "00" * 12,
        "customer": "acme",
        "pool": "acme",
        "sender": "news@acme.example",
        "accepted_at": 1000.0,
        "size": 10_240,
        "recipient": "user@example.net",
        "peer": Peer("mx.example.net", "192.0.2.1", 25),
        "reply": Reply(250, "2.0.0", "Ok"),
        "attempt": 1,
    }
    return Event(**{**facts, **changes})


def line_of(event: Event) -> bytes:
    return format_events([event])


def read(line: bytes) -> Event:
    return msgspec.json.decode(line, type=Event)


def test_line_holds_what_an_operator_asks_for() -> None:
    line = json.loads(line_of(make_event(vmta="acme-1", source="192.0.2.9", session="0-1")))
    assert line["event"] == "delivered"
    assert line["peer"] == {"host": "mx.example.net", "address": "192.0.2.1", "port": 25}
    assert line["reply"]["code"] == 250
    assert (line["vmta"], line["source"], line["session"]) == ("acme-1", "192.0.2.9", "0-1")
    assert (line["time"], line["accepted_at"], line["size"], line["attempt"]) == (1000.25, 1000.0, 10_240, 1)


def test_every_event_of_the_table_can_be_read_back() -> None:
    for name in EVENTS:
        assert read(line_of(make_event(event=name))).event == name


def test_fields_at_their_default_are_left_out() -> None:
    assert b"tags" not in line_of(make_event())
    assert b'"tags":{"a":"b"}' in line_of(make_event(tags={"a": "b"}))


def test_each_event_is_one_line() -> None:
    events = [make_event(attempt=n, reply=Reply(451, "", "one\ntwo\r\nthree")) for n in range(1, 4)]
    lines = format_events(events).splitlines(keepends=True)
    assert [read(line).attempt for line in lines] == [1, 2, 3]


text = st.text(st.characters(codec=None), max_size=20)


@given(text, text, st.dictionaries(text, text, max_size=3))
def test_any_text_makes_a_line_that_can_be_read(sender: str, reply: str, tags: dict[str, str]) -> None:
    event = make_event(sender=sender, reply=Reply(550, "", reply), tags=tags, recipients=[sender])
    line = format_events([event])
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    back = read(line)
    assert back.sender == sender.encode("utf-8", "replace").decode()
