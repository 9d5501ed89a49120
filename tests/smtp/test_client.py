"""Transactions of the sending side: which reply answers what, in every unhappy order."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import LocalProtocolError, RemoteProtocolError
from engine.smtp.client import ClientConversation, Outcome
from engine.smtp.wire import ReplyReader, stuff

FROM, TO = "a@acme.example", "b@x.example"
OK = b"250 2.1.0 Ok\r\n"
GO = b"354 go\r\n"
GROUP = b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"


def conversation(*, pipelining: bool = True) -> ClientConversation:
    return ClientConversation(pipelining=pipelining)


def codes(outcome: Outcome | None, recipients: int = 1) -> list[int]:
    assert outcome is not None
    decided = [outcome.reply_for(i) for i in range(recipients)]
    return [reply.code if reply else 0 for reply in decided]


def test_parameters_stand_behind_their_paths() -> None:
    written = conversation().begin(
        FROM, [TO, FROM], mail_parameters=" RET=HDRS", rcpt_parameters=[" NOTIFY=NEVER", ""]
    )
    assert written == (
        b"MAIL FROM:<a@acme.example> RET=HDRS\r\nRCPT TO:<b@x.example> NOTIFY=NEVER\r\n"
        b"RCPT TO:<a@acme.example>\r\nDATA\r\n"
    )


def test_envelope_is_one_group() -> None:
    """RFC 2920 section 3.1."""
    assert conversation().begin(FROM, [TO]) == GROUP


def test_null_sender_and_several_recipients_are_one_group() -> None:
    written = conversation().begin("", [TO, "c@x.example"])
    assert written == b"MAIL FROM:<>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n"


def test_next_envelope_goes_behind_the_dot() -> None:
    """RFC 2920 section 3.1."""
    conv = conversation()
    conv.begin(FROM, [TO], token=1)
    assert conv.waiting_for == "mail"
    assert not conv.may_begin
    assert conv.receive(OK + OK) == b""
    assert conv.waiting_for == "data"
    assert conv.receive(GO) == b""
    assert conv.wants_content
    assert conv.content_token == 1
    assert conv.waiting_for is None
    assert conv.content(b"hello\r\n.\r\n", conv.begin(FROM, [TO], token=2)) == b"hello\r\n.\r\n" + GROUP
    assert conv.waiting_for == "final"
    conv.receive(b"250 2.0.0 queued\r\n" + OK + OK + GO)
    outcome = conv.pop_outcome()
    assert outcome is not None
    assert (outcome.token, outcome.final and outcome.final.text) == (1, "queued")
    assert conv.wants_content
    assert conv.content_token == 2
    conv.content(b".\r\n")
    conv.receive(b"550 5.7.1 no\r\n")
    assert codes(conv.pop_outcome()) == [550]
    assert conv.pop_outcome() is None
    assert conv.is_idle
    assert conv.may_begin


def test_begin_behind_written_content_before_its_reply() -> None:
    conv = conversation()
    conv.begin(FROM, [TO])
    conv.receive(OK + OK + GO)
    conv.content(b".\r\n")
    assert conv.may_begin
    assert conv.begin(FROM, [TO]) == GROUP


def test_mail_refused_while_recipients_in_flight() -> None:
    """RFC 5321 section 3.3."""
    conv = conversation()
    conv.begin(FROM, [TO, TO])
    conv.receive(b"550 5.7.1 no\r\n503 5.5.1 MAIL first\r\n503 5.5.1 x\r\n")
    assert conv.pop_outcome() is None
    conv.receive(b"503 5.5.1 no valid recipients\r\n")
    assert codes(conv.pop_outcome(), 2) == [550, 550]
    assert not conv.needs_reset
    assert conv.begin(FROM, [TO]) == GROUP


@pytest.mark.parametrize("rcpt", [b"250 Ok\r\n", b"503 5.5.1 bad sequence\r\n"])
def test_mail_refused_but_data_got_354_takes_a_lone_dot(rcpt: bytes) -> None:
    """RFC 2920 section 3.1."""
    conv = conversation()
    conv.begin(FROM, [TO])
    assert conv.receive(b"450 4.7.1 no\r\n" + rcpt + GO) == b".\r\n"
    assert not conv.wants_content
    assert conv.waiting_for == "final"
    conv.receive(b"250 whatever\r\n")
    assert codes(conv.pop_outcome()) == [450]
    assert conv.begin(FROM, [TO]) == GROUP


def test_all_recipients_refused_but_data_got_354_takes_a_lone_dot() -> None:
    """RFC 2920 section 3.1."""
    conv = conversation()
    conv.begin(FROM, [TO, TO])
    assert conv.receive(OK + b"550 5.1.1 no\r\n450 4.2.1 later\r\n" + GO) == b".\r\n"
    assert conv.may_begin
    conv.begin(FROM, [TO])
    conv.receive(b"554 5.5.1 no valid recipients\r\n" + OK)
    assert codes(conv.pop_outcome(), 2) == [550, 450]
    assert conv.waiting_for == "rcpt"


def test_all_recipients_refused_and_data_too_resets_before_the_next() -> None:
    conv = conversation()
    conv.begin(FROM, [TO])
    conv.receive(OK + b"550 5.1.1 no\r\n554 5.5.1 no valid recipients\r\n")
    assert codes(conv.pop_outcome()) == [550]
    assert conv.begin(FROM, [TO]) == b"RSET\r\n" + GROUP
    assert conv.waiting_for == "rset"
    conv.receive(b"250 2.0.0 Ok\r\n" + OK + OK + GO)
    assert conv.wants_content


def test_data_refused_decides_only_accepted_recipients() -> None:
    """RFC 5321 section 4.1.1.4."""
    conv = conversation()
    conv.begin(FROM, [TO, TO])
    conv.receive(OK + b"550 5.1.1 no\r\n" + OK + b"451 4.3.0 later\r\n")
    assert codes(conv.pop_outcome(), 2) == [550, 451]
    assert conv.needs_reset


def test_some_recipients_refused_and_the_rest_delivered() -> None:
    """RFC 5321 section 3.3."""
    conv = conversation()
    conv.begin(FROM, [TO, TO, TO])
    conv.receive(OK + OK + b"452 4.5.3 too many\r\n251 forwarded\r\n" + GO)
    conv.content(b".\r\n")
    conv.receive(b"250 done\r\n")
    assert codes(conv.pop_outcome(), 3) == [250, 452, 250]


def test_reset_refused_leaves_the_message_untried() -> None:
    """RFC 5321 section 4.1.1.5."""
    conv = conversation()
    conv.begin(FROM, [TO])
    conv.receive(OK + OK + b"451 4.3.0 later\r\n")
    conv.pop_outcome()
    conv.begin(FROM, [TO], token=2)
    conv.receive(b"502 5.5.1 what\r\n250 Ok\r\n")
    outcome = conv.pop_outcome()
    assert outcome is not None
    assert outcome.is_untried
    assert outcome.token == 2
    assert conv.is_closing


ANSWERS_421 = [
    (b"", [421, 421]),
    (OK, [421, 421]),
    (OK + b"550 5.1.1 no\r\n", [550, 421]),
    (OK + OK + OK, [421, 421]),
    (OK + OK + OK + GO, [421, 421]),
]


@pytest.mark.parametrize(("before", "decided"), ANSWERS_421)
def test_421_hits_the_transaction_that_it_answers(before: bytes, decided: list[int]) -> None:
    """RFC 5321 section 3.8: 421 may come "in response to any command"."""
    conv = conversation()
    conv.begin(FROM, [TO, TO])
    conv.receive(before + b"421 4.3.2 closing\r\n")
    assert conv.is_closing
    assert not conv.wants_content
    assert codes(conv.pop_outcome(), 2) == decided
    assert conv.lost() == []


def test_421_to_content_leaves_the_one_behind_untried() -> None:
    """RFC 5321 section 3.8."""
    conv = conversation()
    conv.begin(FROM, [TO], token=1)
    conv.receive(OK + OK + GO)
    conv.content(b".\r\n", conv.begin(FROM, [TO], token=2))
    conv.receive(b"421 4.3.2 closing\r\n")
    first, second = conv.pop_outcome(), conv.pop_outcome()
    assert codes(first) == [421]
    assert first is not None
    assert not first.is_uncertain
    assert second is not None
    assert (second.token, second.is_untried, second.mail) == (2, True, None)


def test_421_out_of_the_blue_closes() -> None:
    """RFC 5321 section 3.8."""
    conv = conversation()
    conv.receive(b"421 4.4.2 idle\r\n")
    assert conv.is_closing
    assert not conv.may_begin
    assert conv.lost() == []


def test_lost_behind_the_dot_is_uncertain_and_the_next_untried() -> None:
    """RFC 1047."""
    conv = conversation()
    conv.begin(FROM, [TO], token=1)
    conv.receive(OK + OK + GO)
    conv.content(b".\r\n", conv.begin(FROM, [TO], token=2))
    first, second = conv.lost()
    assert (first.token, first.is_uncertain, first.is_untried) == (1, True, False)
    assert first.reply_for(0) is None
    assert (second.token, second.is_uncertain, second.is_untried) == (2, False, True)


@pytest.mark.parametrize(("unsent_bytes", "is_uncertain"), [(0, True), (8, True), (9, False), (5000, False)])
def test_lost_before_the_end_of_the_content_has_left_is_certain(
    unsent_bytes: int, is_uncertain: bool
) -> None:
    """RFC 1047: the peer can't have a message whose end is still here; the next envelope went behind it."""
    conv = conversation()
    conv.begin(FROM, [TO])
    conv.receive(OK + OK + GO)
    behind = conv.begin(FROM, [TO])
    conv.content(b"x" * 4000 + b"\r\n.\r\n", behind)
    first, second = conv.lost(len(behind) - 8 + unsent_bytes)
    assert (first.is_uncertain, second.is_untried) == (is_uncertain, True)


def test_lost_before_the_end_of_a_chunk_has_left_is_certain() -> None:
    """RFC 1047, RFC 3030 section 4.2: of two chunks the first has left, the second not all."""
    conv = conversation()
    for token in (1, 2):
        conv.begin(FROM, [TO], is_chunked=True, token=token)
        conv.chunk(b"x" * 4000)
    first, second = conv.lost(1)
    assert (first.is_uncertain, second.is_uncertain, second.is_untried) == (True, False, True)


def test_lost_before_content_is_certain() -> None:
    conv = conversation()
    conv.begin(FROM, [TO, TO])
    conv.receive(OK + b"550 5.1.1 no\r\n" + OK + GO)
    [outcome] = conv.lost()
    assert not outcome.is_uncertain
    assert not outcome.is_untried
    assert codes(outcome, 2) == [550, 0]


def test_lost_hands_out_outcomes_not_popped_yet() -> None:
    conv = conversation()
    conv.begin(FROM, [TO], token=1)
    conv.receive(OK + OK + GO)
    conv.content(b".\r\n")
    conv.receive(b"250 done\r\n")
    [outcome] = conv.lost()
    assert codes(outcome) == [250]
    assert not outcome.is_uncertain


OUT_OF_STEP = [
    b"250 nobody asked\r\n",
    b"354 go\r\n",
]
IN_FLIGHT_OUT_OF_STEP = [
    b"354 go\r\n",
    OK + b"334 what\r\n",
    OK + OK + b"250 to DATA\r\n",
    OK + OK + b"334 to DATA\r\n",
    OK + OK + GO + b"250 before content\r\n",
    b"nonsense\r\n",
]


@pytest.mark.parametrize("octets", OUT_OF_STEP)
def test_reply_that_nothing_asked_for_raises(octets: bytes) -> None:
    conv = conversation()
    with pytest.raises(RemoteProtocolError):
        conv.receive(octets)
    assert conv.is_closing
    assert not conv.may_begin


@pytest.mark.parametrize("octets", IN_FLIGHT_OUT_OF_STEP)
def test_peer_that_loses_step_never_gets_content(octets: bytes) -> None:
    """RFC 2920 section 3.1."""
    conv = conversation()
    conv.begin(FROM, [TO])
    with pytest.raises(RemoteProtocolError):
        conv.receive(octets)
    [outcome] = conv.lost()
    assert not outcome.is_uncertain
    assert codes(outcome) == [0]


def test_nonsense_behind_a_421_is_nobodys_fault() -> None:
    for pieces in ([b"421 4.3.2 closing\r\nnonsense\r\n"], [b"421 4.3.2 closing\r\n", b"nonsense\r\n"]):
        conv = conversation()
        conv.begin(FROM, [TO])
        for piece in pieces:
            assert conv.receive(piece) == b""
        assert codes(conv.pop_outcome()) == [421]


def test_outcome_before_nonsense_survives_it() -> None:
    conv = conversation()
    conv.begin(FROM, [TO])
    conv.receive(OK + OK + GO)
    conv.content(b".\r\n")
    with pytest.raises(RemoteProtocolError):
        conv.receive(b"250 queued\r\nblah\r\n")
    assert codes(conv.pop_outcome()) == [250]


def test_lockstep_sends_one_command_at_a_time() -> None:
    """RFC 2920 section 3.1."""
    conv = conversation(pipelining=False)
    assert conv.begin(FROM, [TO, "c@x.example"]) == b"MAIL FROM:<a@acme.example>\r\n"
    assert conv.receive(OK) == b"RCPT TO:<b@x.example>\r\n"
    assert conv.receive(b"550 5.1.1 no\r\n") == b"RCPT TO:<c@x.example>\r\n"
    assert conv.receive(OK) == b"DATA\r\n"
    assert conv.receive(GO) == b""
    assert conv.wants_content
    conv.content(b".\r\n")
    assert not conv.may_begin
    conv.receive(b"250 done\r\n")
    assert codes(conv.pop_outcome(), 2) == [550, 250]


def test_lockstep_stops_at_the_first_refusal_that_matters() -> None:
    conv = conversation(pipelining=False)
    conv.begin(FROM, [TO])
    assert conv.receive(b"450 4.7.1 later\r\n") == b""
    assert codes(conv.pop_outcome()) == [450]
    assert conv.begin(FROM, [TO]) == b"MAIL FROM:<a@acme.example>\r\n"
    conv.receive(OK)
    assert conv.receive(b"550 5.1.1 no\r\n") == b""
    assert codes(conv.pop_outcome()) == [550]
    assert conv.begin(FROM, [TO]) == b"RSET\r\n"
    assert conv.receive(OK) == b"MAIL FROM:<a@acme.example>\r\n"


def test_quit_is_answered_or_not() -> None:
    """RFC 5321 section 4.1.1.10."""
    conv = conversation()
    assert conv.quit() == b"QUIT\r\n"
    assert conv.waiting_for == "quit"
    conv.receive(b"221 2.0.0 Bye\r\n")
    assert conv.is_closing
    assert conv.waiting_for is None


def test_quit_after_a_421() -> None:
    conv = conversation()
    conv.begin(FROM, [TO])
    conv.receive(b"421 4.3.2 closing\r\n")
    conv.quit()
    conv.receive(b"221 bye\r\n")
    assert conv.waiting_for is None


@pytest.mark.parametrize("address", ["a@x\r\nRSET", "a\n@x", "a\r@x"])
def test_address_with_a_line_end_is_never_written(address: str) -> None:
    """RFC 5321 sections 4.1.1.2 and 4.1.1.3."""
    with pytest.raises(LocalProtocolError):
        conversation().begin(address, [TO])
    with pytest.raises(LocalProtocolError):
        conversation().begin(FROM, [TO, address])


replies = st.sampled_from(
    [
        OK,
        GO,
        b"250-a\r\n250 b\r\n",
        b"450 4.2.0 later\r\n",
        b"550 5.1.1 no\r\n",
        b"421 4.3.2 bye\r\n",
        b"junk\r\n",
    ]
)


def _play(octets: list[bytes], count: int, pipelining: bool) -> tuple[list[Outcome], bytes]:
    """Drive three transactions through one scripted peer; return the outcomes and what was written."""
    conv = conversation(pipelining=pipelining)
    outcomes: list[Outcome] = []
    written, token = conv.begin(FROM, [TO] * count, token=0), 1
    try:
        for chunk in octets:
            written += conv.receive(chunk)
            if conv.wants_content:
                written += conv.content(b"body\r\n.\r\n")
            while (outcome := conv.pop_outcome()) is not None:
                outcomes.append(outcome)
            if token < 3 and conv.may_begin:
                written += conv.begin(FROM, [TO] * count, token=token)
                token += 1
    except RemoteProtocolError:
        pass
    outcomes += conv.lost()
    assert [outcome.token for outcome in outcomes] == list(range(token))
    return outcomes, written


@given(st.lists(replies, max_size=25), st.integers(1, 3), st.booleans())
def test_every_transaction_has_one_outcome_in_order(
    script: list[bytes], count: int, pipelining: bool
) -> None:
    """RFC 2920 section 3.1."""
    outcomes, written = _play(script, count, pipelining)
    assert written.count(b"body") == sum(
        1 for o in outcomes if o.is_uncertain or (o.final is not None and len(o.recipients) == count)
    ) or any(o.final is not None and o.final.code >= 400 for o in outcomes)
    assert all(not (o.is_uncertain and o.is_untried) for o in outcomes)
    for outcome in outcomes:
        if outcome.final is not None and outcome.final.code < 300:
            assert b"body" in written


@given(st.lists(replies, max_size=20), st.integers(1, 3))
def test_same_outcomes_byte_by_byte(script: list[bytes], count: int) -> None:
    bytewise = [octets[i : i + 1] for octets in script for i in range(len(octets))]
    assert _play(script, count, True) == _play(bytewise, count, True)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_nothing_but_remote_protocol_error_escapes(chunks: list[bytes]) -> None:
    _play(chunks, 1, True)


# -- strangers --------------------------------------------------------------------------------------------


def exchange(sock: socket.socket, conv: ClientConversation, out: bytes) -> None:
    """Write, then read until it is our turn."""
    sock.sendall(out)
    while conv.waiting_for is not None:
        data = sock.recv(65536)
        assert data
        sock.sendall(conv.receive(data))


def deliver(address: tuple[str, int], messages: list[bytes], *, pipelining: bool) -> list[int]:
    """Send all messages in one session, each envelope behind the dot where the peer pipelines."""
    with socket.create_connection(address, timeout=10) as sock:
        reader = ReplyReader()
        while not reader.feed(sock.recv(65536)):
            pass
        sock.sendall(b"EHLO client.example\r\n")
        while not (replies := reader.feed(sock.recv(65536))):
            pass
        assert ("PIPELINING" in replies[0].text) or not pipelining
        conv = conversation(pipelining=pipelining)
        found: list[int] = []
        out = b""
        for message in messages:
            if out == b"" or not pipelining:
                out = conv.begin(FROM, [TO])
            exchange(sock, conv, out)
            assert conv.wants_content
            out = conv.content(stuff(message))
            if pipelining and message is not messages[-1]:
                out += conv.begin(FROM, [TO])
            else:
                exchange(sock, conv, out)
            while (outcome := conv.pop_outcome()) is not None:
                found += codes(outcome)
        exchange(sock, conv, conv.quit())
        return found + [code for outcome in conv.lost() for code in codes(outcome)]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def smtp_sink(stranger: Callable[[str], str]) -> Iterator[Callable[..., tuple[str, int]]]:
    """Return a function that starts smtp-sink with more arguments, and returns its address."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> tuple[str, int]:
        port = free_port()
        # Root may not be smtp-sink's user: it gives itself another.
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        running.append(
            subprocess.Popen([stranger("smtp-sink"), *user, *arguments, f"127.0.0.1:{port}", "100"])
        )
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return "127.0.0.1", port
            time.sleep(0.01)  # for a foreign process to listen
        raise AssertionError("smtp-sink does not listen")

    yield start
    for process in running:
        process.kill()
        process.wait()


MESSAGES = [
    b"Subject: %d\r\n\r\n.dots\r\n..\r\n.\r\n" % i + (b"y" * 70 + b"\r\n") * 200 * i for i in range(5)
]


@pytest.mark.stranger("postfix")
@pytest.mark.parametrize("pipelining", [True, False])
def test_smtp_sink_takes_messages_in_one_session(
    smtp_sink: Callable[..., tuple[str, int]], pipelining: bool
) -> None:
    """RFC 5321 section 4.5.2, RFC 2920 section 3.1."""
    assert deliver(smtp_sink(), MESSAGES, pipelining=pipelining) == [250] * 5


class Keeper:
    """An aiosmtpd handler that keeps what it got."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:
        assert isinstance(envelope.original_content, bytes)
        self.messages.append(envelope.original_content)
        return "250 2.0.0 kept"


def test_aiosmtpd_reads_exactly_what_was_sent() -> None:
    """RFC 5321 section 4.5.2, RFC 2920 section 3.1."""
    keeper = Keeper()
    controller = Controller(keeper, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        assert deliver(("127.0.0.1", controller.port), MESSAGES, pipelining=False) == [250] * 5
    finally:
        controller.stop()
    assert keeper.messages == MESSAGES


# -- chunked (RFC 3030) -----------------------------------------------------------------------------------

CHUNKED = b"MAIL FROM:<a@acme.example>\r\nRCPT TO:<b@x.example>\r\n"


def chunked(conv: ClientConversation, count: int = 1, token: object = None) -> bytes:
    return conv.begin(FROM, [TO] * count, is_chunked=True, token=token)


def test_a_chunked_message_goes_out_with_its_envelope() -> None:
    """RFC 3030 section 4.2 and RFC 2920 section 3.1: BDAT may be pipelined behind MAIL and RCPT."""
    conv = conversation()
    assert chunked(conv, token=1) + conv.chunk(b"hi\r\n.\r\n") == CHUNKED + b"BDAT 7 LAST\r\nhi\r\n.\r\n"
    assert conv.waiting_for == "mail"
    conv.receive(OK + OK)
    assert conv.waiting_for == "final"
    assert not conv.wants_content
    conv.receive(b"250 2.0.0 queued\r\n")
    assert codes(conv.pop_outcome()) == [250]
    assert conv.is_idle
    assert not conv.needs_reset


def test_several_chunked_transactions_are_outstanding() -> None:
    """RFC 3030 section 4.2, RFC 2920 section 3.1."""
    conv = conversation()
    for token in range(3):
        chunked(conv, token=token)
        conv.chunk(b"x\r\n")
        assert conv.may_begin
    assert conv.in_flight == 3
    conv.receive((OK + OK + OK + OK) * 2 + OK + OK + b"451 4.3.0 later\r\n")
    outcomes = [conv.pop_outcome() for _ in range(3)]
    assert [codes(outcome) for outcome in outcomes] == [[250], [250], [451]]
    assert [outcome.token for outcome in outcomes if outcome] == [0, 1, 2]


def test_reset_goes_ahead_of_what_is_behind_a_chunk_that_may_be_refused() -> None:
    """RFC 3030 section 2: else a peer that keeps MAIL takes the next message for that sender's."""
    conv = conversation()
    chunked(conv, token=1)
    conv.chunk(b"x\r\n")
    assert chunked(conv, token=2) == b"RSET\r\n" + CHUNKED
    conv.chunk(b"y\r\n")
    conv.receive(OK + b"550 5.1.1 no\r\n503 5.5.1 no recipients\r\n" + OK + OK + OK + OK)
    first, second = conv.pop_outcome(), conv.pop_outcome()
    assert codes(first) == [550]
    assert codes(second) == [250]
    assert second is not None
    assert not second.is_misunderstood


def test_a_chunk_that_waits_is_asked_for_once_a_recipient_stands() -> None:
    conv = conversation()
    assert chunked(conv, 2) == CHUNKED + b"RCPT TO:<b@x.example>\r\n"
    assert not conv.may_begin
    conv.receive(OK + b"550 5.1.1 no\r\n")
    assert not conv.wants_content
    conv.receive(OK)
    assert conv.wants_content
    assert conv.chunk(b"x\r\n") == b"BDAT 3 LAST\r\nx\r\n"
    conv.receive(b"250 done\r\n")
    assert codes(conv.pop_outcome(), 2) == [550, 250]


@pytest.mark.parametrize(
    ("replies", "code", "needs_reset"),
    [(OK + b"550 5.1.1 no\r\n", 550, True), (b"450 4.7.1 later\r\n503 5.5.1 MAIL first\r\n", 450, False)],
)
def test_a_chunk_that_waits_is_never_sent_in_vain(replies: bytes, code: int, needs_reset: bool) -> None:
    conv = conversation()
    chunked(conv)
    conv.receive(replies)
    assert codes(conv.pop_outcome()) == [code]
    assert not conv.may_chunk
    assert conv.needs_reset is needs_reset


def test_a_chunk_sent_in_vain_is_answered_and_reset() -> None:
    """RFC 3030 section 2: the state behind a failed BDAT is indeterminate, RSET clears it."""
    conv = conversation()
    chunked(conv)
    conv.chunk(b"x\r\n")
    conv.receive(OK + b"550 5.1.1 no\r\n")
    assert conv.pop_outcome() is None
    conv.receive(b"503 5.5.1 no recipients\r\n")
    outcome = conv.pop_outcome()
    assert codes(outcome) == [550]
    assert outcome is not None
    assert not outcome.is_misunderstood
    assert chunked(conv).startswith(b"RSET\r\nMAIL")


def test_mail_refused_with_the_chunk_on_its_way() -> None:
    conv = conversation()
    chunked(conv)
    conv.chunk(b"x\r\n")
    conv.receive(b"450 4.7.1 later\r\n503 5.5.1 x\r\n503 5.5.1 x\r\n")
    assert codes(conv.pop_outcome()) == [450]
    assert not conv.needs_reset


@pytest.mark.parametrize("code", [b"500", b"502", b"503"])
def test_bdat_that_the_peer_does_not_know_is_no_attempt(code: bytes) -> None:
    """RFC 3030 section 2, RFC 5321 section 4.2.4."""
    conv = conversation()
    chunked(conv, token=1)
    conv.chunk(b"x\r\n")
    chunked(conv, token=2)
    conv.chunk(b"y\r\n")
    conv.receive(OK + OK + code + b" 5.5.1 what\r\n")
    first, second = conv.pop_outcome(), conv.pop_outcome()
    assert first is not None
    assert first.is_misunderstood
    assert second is not None
    assert second.is_untried
    assert conv.is_closing


def test_mail_behind_the_dot_that_the_peer_takes_for_nested_is_no_attempt() -> None:
    """RFC 2920 section 3.1 allows the group; a peer that answers 503 to its MAIL does not."""
    conv = conversation()
    conv.begin(FROM, [TO], token=1)
    conv.receive(OK + OK + GO)
    conv.content(b".\r\n", conv.begin(FROM, [TO], token=2))
    conv.receive(OK + b"503 5.5.1 nested MAIL\r\n503 5.5.1 x\r\n503 5.5.1 x\r\n")
    assert codes(conv.pop_outcome()) == [250]
    second = conv.pop_outcome()
    assert second is not None
    assert second.is_misunderstood


def test_lost_with_chunks_on_their_way_leaves_all_of_them_uncertain() -> None:
    """RFC 1047, RFC 3030 section 4.2."""
    conv = conversation()
    for token in range(2):
        chunked(conv, token=token)
        conv.chunk(b"x\r\n")
    conv.receive(OK)
    assert [outcome.is_uncertain for outcome in conv.lost()] == [True, True]


def test_lost_behind_refused_recipients_is_certain_although_the_chunk_went() -> None:
    conv = conversation()
    chunked(conv)
    conv.chunk(b"x\r\n")
    conv.receive(OK + b"550 5.1.1 no\r\n")
    [outcome] = conv.lost()
    assert not outcome.is_uncertain
    assert codes(outcome) == [550]


def test_421_to_a_chunk_leaves_those_behind_untried() -> None:
    conv = conversation()
    for token in range(2):
        chunked(conv, token=token)
        conv.chunk(b"x\r\n")
    conv.receive(OK + OK + b"421 4.3.2 closing\r\n")
    first, second = conv.pop_outcome(), conv.pop_outcome()
    assert codes(first) == [421]
    assert second is not None
    assert second.is_untried


def _play_chunked(octets: list[bytes], count: int) -> tuple[list[Outcome], bytes]:
    """Three chunked transactions, as deep as it goes."""
    conv = conversation()
    outcomes: list[Outcome] = []
    written, token = chunked(conv, count, token=0) + conv.chunk(b"body\r\n"), 1
    try:
        for octet in octets:
            written += conv.receive(octet)
            while (outcome := conv.pop_outcome()) is not None:
                outcomes.append(outcome)
            if token < 3 and conv.may_begin:
                written += chunked(conv, count, token=token) + conv.chunk(b"body\r\n")
                token += 1
    except RemoteProtocolError:
        pass
    outcomes += conv.lost()
    assert [outcome.token for outcome in outcomes] == list(range(token))
    return outcomes, written


@given(st.lists(replies, max_size=25), st.integers(1, 3))
def test_every_chunked_transaction_has_one_outcome_in_order(script: list[bytes], count: int) -> None:
    for outcome in _play_chunked(script, count)[0]:
        assert not (outcome.is_uncertain and outcome.is_untried)
        if outcome.final is not None and outcome.final.code < 300 and not outcome.is_misunderstood:
            assert len(outcome.recipients) == count


def test_a_chunk_is_counted_and_not_stuffed() -> None:
    """RFC 3030 section 2: octets exactly, no transparency, no final dot."""
    conv = conversation()
    chunked(conv)
    message = b".\r\n..\r\n\xff\r\n"
    assert conv.chunk(message) == b"BDAT 10 LAST\r\n" + message


@given(st.lists(st.tuples(st.booleans(), replies), max_size=30))
def test_a_transaction_has_data_or_bdat_and_never_both(script: list[tuple[bool, bytes]]) -> None:
    """RFC 3030 section 2: "DATA and BDAT commands cannot be used in the same transaction"."""
    conv = conversation()
    written = b""
    with contextlib.suppress(RemoteProtocolError):
        for is_chunked, octets in script:
            if conv.may_begin:
                written += conv.begin(FROM, [TO], is_chunked=is_chunked)
                if is_chunked:
                    written += conv.chunk(b"body\r\n")
            written += conv.receive(octets)
            if conv.wants_content:
                written += conv.content(b"body\r\n.\r\n")
    for transaction in written.split(b"MAIL FROM")[1:]:
        assert (b"DATA\r\n" in transaction) != (b"BDAT" in transaction)
