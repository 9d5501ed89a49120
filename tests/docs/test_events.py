"""docs/events.md has every field of an event, and every kind of event."""

from __future__ import annotations

from engine.core.reply import Reply
from engine.telemetry.events import EVENTS, Event, Peer
from tests.docs.pages import read_names, read_page, section

PAGE = read_page("events")


def test_every_field_of_an_event_its_peer_and_its_reply_has_a_row() -> None:
    text = section(PAGE, "## Every field")
    head, peer, reply = (
        text.partition("`peer`, an object:")[::2][0],
        *(part for part in text.partition("`peer`, an object:")[2].split("`reply`, an object:")),
    )
    names = read_names(head)
    assert len(names) == len(set(names))
    assert set(names) == set(Event.__struct_fields__)
    assert read_names(peer) == list(Peer.__struct_fields__)
    assert read_names(reply) == list(Reply.__struct_fields__)


def test_every_kind_of_event_is_named() -> None:
    assert all(f"`{event}`" in PAGE for event in EVENTS)
