from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.rig.receiver import Receiver, SinkState
from engine.rig.script import Script

EHLO = b"EHLO me.example\r\n"
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<u@d.example>\r\nDATA\r\n"
CONTENT = b"X-Test-Id: t-1\r\nX-Sent: 1.5\r\nSubject: s\r\n\r\nhello\r\n.\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.2", 2600), "peername": ("127.0.0.9", 40000)}.get(name, default)


def talk(chunks: list[bytes], state: SinkState | None = None, wait_s: float = 0.0) -> tuple[Wire, SinkState]:
    """Feed chunks to one connection and return what it wrote, without the greeting."""
    shared = state or SinkState()

    async def run() -> Wire:
        receiver, wire = Receiver(shared), Wire()
        receiver.connection_made(wire)
        for chunk in chunks:
            if not wire.closed:
                receiver.data_received(chunk)
        await asyncio.sleep(wait_s)
        return wire

    wire = asyncio.run(run())
    return wire, shared


def codes(wire: Wire) -> list[int]:
    return [int(line[:3]) for line in wire.written.splitlines() if line[3:4] == b" "]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_dialogue_is_the_same_in_pieces_of_any_size(size: int) -> None:
    stream = EHLO + (ENVELOPE + CONTENT) * 2 + b"QUIT\r\n"
    wire, state = talk([stream[at : at + size] for at in range(0, len(stream), size)])
    assert codes(wire) == [220, 250, *[250, 250, 354, 250] * 2, 221]
    assert wire.closed
    assert (state.tally.messages, state.tally.duplicate_count) == (2, 1)


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_chunks_carry_a_message_whole(size: int) -> None:
    message = CONTENT[:-3]
    bdat = b"BDAT 20\r\n" + message[:20] + b"BDAT %d LAST\r\n" % (len(message) - 20) + message[20:]
    stream = EHLO + ENVELOPE[:-6] + bdat + b"QUIT\r\n"
    wire, state = talk([stream[at : at + size] for at in range(0, len(stream), size)])
    assert codes(wire) == [220, 250, 250, 250, 250, 250, 221]
    assert state.tally.seen == {b"t-1 u@d.example"}


def test_lone_dot_ends_an_empty_message() -> None:
    wire, state = talk([EHLO, ENVELOPE, b".\r\n", b"QUIT\r\n"])
    assert codes(wire)[-2:] == [250, 221]
    assert state.tally.unidentified == 1


def test_id_in_a_quoted_message_does_not_count() -> None:
    _, state = talk([EHLO, ENVELOPE, b"Subject: bounce\r\n\r\n", CONTENT])
    assert state.tally.unidentified == 1


def test_scripted_refusal_takes_no_message_but_counts_for_the_rate() -> None:
    state = SinkState(script=Script([{"at": "final", "reply": "452 4.2.2 full"}]))
    wire, state = talk([EHLO, ENVELOPE, CONTENT], state, 0.02)
    assert codes(wire)[-1] == 452
    assert state.tally.messages == 0
    assert state.tally.refused == {452: 1}
    assert [len(flow.instants) for flow in state.tally.flows.values()] == [1]


def test_refused_recipient_leaves_nobody_for_data() -> None:
    state = SinkState(script=Script([{"at": "rcpt", "reply": "550 5.1.1 unknown"}]))
    wire, _ = talk([EHLO, ENVELOPE], state, 0.02)
    assert codes(wire)[-3:] == [250, 550, 503]


def test_scripted_close_follows_its_reply() -> None:
    state = SinkState(script=Script([{"at": "mail", "reply": "421 4.3.2 busy", "close": True}]))
    wire, state = talk([EHLO, ENVELOPE], state, 0.02)
    assert codes(wire)[-1] in (421, 503)
    assert wire.closed
    assert state.tally.now_open == 0


def test_stalled_connection_says_nothing_more() -> None:
    state = SinkState(script=Script([{"at": "mail", "stall": True}]))
    wire, _ = talk([EHLO, ENVELOPE, CONTENT], state, 0.02)
    assert codes(wire) == [220, 250]


def test_delays_of_pipelined_commands_overlap() -> None:
    state = SinkState(delay_s=0.05)
    wire, _ = talk([EHLO + ENVELOPE], state, 0.09)
    assert codes(wire) == [220, 250, 250, 250, 354]


def test_a_chunk_without_recipients_is_forgotten() -> None:
    first, second = CONTENT[:-3], CONTENT[:-3].replace(b"t-1", b"t-2")
    refused = b"BDAT %d LAST\r\n" % len(first) + first
    taken = ENVELOPE[:-6] + b"BDAT %d LAST\r\n" % len(second) + second
    wire, state = talk([EHLO + refused + taken])
    assert codes(wire) == [220, 250, 503, 250, 250, 250]
    assert state.tally.seen == {b"t-2 u@d.example"}
