"""One session of the source against a peer whose words the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engine.rig.load import Load, Target
from engine.rig.sender import Sender
from engine.rig.source import make_parser

TARGET = Target("127.0.0.1", 2525, "a@b.example")
PIPELINING = b"220 mx\r\n250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n"
LOCKSTEP = b"220 mx\r\n250 mx\r\n"
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<u%d-0@d0.bench.example>\r\nDATA\r\n"
OK, GO, NO = b"250 ok\r\n", b"354 go\r\n", b"550 no\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written, an entry a write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def talk(scenario: Callable[[Sender, Wire], None], *options: str) -> tuple[dict[str, Any], Wire]:
    """Run a scenario over an open connection; return the load's account and what was written."""

    async def main() -> tuple[dict[str, Any], Wire]:
        parsed = make_parser().parse_args(["--to", "127.0.0.1:2525", "--run", "r", "--size", "50", *options])
        load = Load(parsed, None)
        sender, wire = Sender(load, TARGET, parsed), Wire()
        sender.connection_made(wire)
        scenario(sender, wire)
        return load.report(), wire

    return asyncio.run(main())


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_next_envelope_goes_behind_the_content(size: int) -> None:
    def scenario(sender: Sender, wire: Wire) -> None:
        stream = PIPELINING + OK + OK + GO + OK + OK + OK + GO + OK
        for at in range(0, len(stream), size):
            sender.data_received(stream[at : at + size])
        sender.connection_lost(None)
        assert not sender.was_lost

    account, wire = talk(scenario, "--messages", "2")
    assert wire.writes[0] == b"EHLO source.example\r\n"
    assert wire.writes[1] == ENVELOPE % 0
    assert wire.writes[2].endswith(b"\r\n.\r\n" + ENVELOPE % 1)
    assert wire.writes[3].endswith(b"\r\n.\r\n")
    assert wire.writes[4:] == [b"QUIT\r\n"]
    assert (account["accepted"], account["codes"]) == (2, {"250": 2})


def test_nothing_goes_behind_the_content_where_that_is_not_wanted() -> None:
    account, wire = talk(
        lambda sender, _: sender.data_received(PIPELINING + OK + OK + GO + OK),
        "--messages",
        "2",
        "--no-behind",
    )
    assert wire.writes[2].endswith(b"\r\n.\r\n")
    assert wire.writes[3] == ENVELOPE % 1
    assert account["accepted"] == 1


def test_a_chunk_goes_in_the_write_of_its_envelope() -> None:
    account, wire = talk(
        lambda sender, _: sender.data_received(PIPELINING + OK + OK + OK), "--messages", "1", "--bdat"
    )
    head, _, chunk = wire.writes[1].partition(b" LAST\r\n")
    assert head == ENVELOPE.removesuffix(b"DATA\r\n") % 0 + b"BDAT %d" % len(chunk)
    assert account["accepted"] == 1


def test_a_peer_without_pipelining_gets_one_command_at_a_time() -> None:
    written: list[int] = []

    def scenario(sender: Sender, wire: Wire) -> None:
        for reply in (LOCKSTEP, OK, OK, GO, OK):
            sender.data_received(reply)
            written.append(len(wire.writes))

    account, wire = talk(scenario, "--messages", "1", "--bdat")
    assert b"".join(wire.writes[1:4]) == ENVELOPE % 0
    assert written == [2, 3, 4, 5, 6]
    assert wire.writes[5] == b"QUIT\r\n"
    assert account["accepted"] == 1


def test_a_refused_recipient_is_a_refused_message_and_the_session_goes_on() -> None:
    refused = OK + NO + b"503 no recipients\r\n"
    account, wire = talk(lambda sender, _: sender.data_received(PIPELINING + refused), "--messages", "2")
    assert account["codes"] == {"550": 1}
    assert wire.writes[2] == ENVELOPE % 1


def test_the_reply_to_a_lone_dot_is_nobodys() -> None:
    """The peer says 354 though it has refused every recipient."""

    def scenario(sender: Sender, wire: Wire) -> None:
        sender.data_received(PIPELINING + OK + NO + GO)
        assert wire.writes[2:] == [b".\r\n", ENVELOPE % 1]
        sender.data_received(b"554 no recipients\r\n" + OK + OK + GO)
        assert wire.writes[4].endswith(b"\r\n.\r\n")
        sender.data_received(OK)

    account, _ = talk(scenario, "--messages", "2")
    assert (account["accepted"], account["codes"]) == (1, {"550": 1, "250": 1})


def test_a_refused_content_is_told_by_its_code() -> None:
    account, wire = talk(
        lambda sender, _: sender.data_received(PIPELINING + OK + OK + GO + b"452 full\r\n"), "--messages", "1"
    )
    assert account["codes"] == {"452": 1}
    assert wire.writes[-1] == b"QUIT\r\n"


def test_a_connection_lost_behind_the_content_leaves_it_uncertain_and_what_is_behind_refused() -> None:
    def scenario(sender: Sender, _wire: Wire) -> None:
        sender.data_received(PIPELINING + OK + OK + GO)
        sender.connection_lost(None)
        assert sender.was_lost
        assert sender.closed.done()

    account, _ = talk(scenario, "--messages", "2")
    assert account["uncertain_ids"] == ["r-0"]
    assert (account["refused"], account["codes"]) == (1, {"0": 1})


@pytest.mark.parametrize(
    "said", [b"554 go away\r\n", b"220 mx\r\n502 what\r\n", PIPELINING + b"421 idle\r\n" + OK]
)
def test_a_peer_that_refuses_the_session_is_left_and_its_words_kept(said: bytes) -> None:
    def scenario(sender: Sender, wire: Wire) -> None:
        sender.data_received(said)
        if not wire.is_closed:
            sender.data_received(OK)  # of an envelope that 421 answered: nothing is left to ask for
        assert sender.last_reply[:3] in (b"554", b"502", b"421")

    talk(scenario, "--messages", "1")


def test_a_session_ends_after_as_many_messages_as_it_may_carry() -> None:
    account, wire = talk(
        lambda sender, _: sender.data_received(PIPELINING + OK + OK + GO + OK),
        "--messages",
        "5",
        "--per-session",
        "1",
    )
    assert wire.writes[-1] == b"QUIT\r\n"
    assert (account["offered"], account["accepted"]) == (1, 1)


def test_starttls_comes_before_anything_is_sent() -> None:
    _, wire = talk(lambda sender, _: sender.data_received(PIPELINING), "--messages", "1", "--tls")
    assert wire.writes == [b"EHLO source.example\r\n", b"STARTTLS\r\n"]
