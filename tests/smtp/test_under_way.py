"""under_way: what is refused is known as soon as it was read, and what it answers."""

from __future__ import annotations

import pytest

from engine.core.reply import Reply
from engine.smtp.client import ClientConversation
from engine.smtp.lmtp import LmtpConversation
from engine.smtp.under_way import Flight, is_misunderstood, phase_of


def phases(
    *replies: str, recipients: int = 2, lmtp: bool = False, chunked: bool = False
) -> list[tuple[str, int]]:
    """Return what is refused of one transaction, in the order in which it was read."""
    it = (LmtpConversation if lmtp else ClientConversation)(pipelining=True)
    it.begin(
        "a@x.example", [f"u{number}@x.example" for number in range(recipients)], is_chunked=chunked, token="t"
    )
    if chunked:
        it.chunk(b"x\r\n")
    for reply in replies:
        it.receive(f"{reply}\r\n".encode())
        if it.wants_content:
            it.content(b"x\r\n.\r\n")
    assert {refusal.token for refusal in it.refusals} <= {"t"}
    return [(refusal.phase, refusal.reply.code) for refusal in it.refusals]


@pytest.mark.parametrize(
    ("replies", "found"),
    [
        (("250 a", "250 b", "250 c", "354 go", "250 d"), []),
        (("250 a", "450 b", "250 c", "354 go", "451 d"), [("rcpt", 450), ("data", 451)]),
        (("250 a", "250 b", "550 c", "451 no"), [("rcpt", 550), ("data", 451)]),
        (("421 a",), [("mail", 421)]),
        (("250 a", "421 b"), [("rcpt", 421)]),
        (("250 a", "250 b", "250 c", "421 d"), [("data", 421)]),
        (("250 a", "250 b", "250 c", "354 go", "421 d"), [("data", 421)]),
    ],
)  # fmt: skip
def test_each_refusal_says_what_it_answers(replies: tuple[str, ...], found: list[tuple[str, int]]) -> None:
    assert phases(*replies) == found


def test_a_lone_dots_reply_is_nobodys() -> None:
    assert phases("250 a", "550 b", "550 c", "354 go", "554 no recipients") == [("rcpt", 550), ("rcpt", 550)]


def test_a_command_that_is_not_known_is_no_refusal_of_a_message() -> None:
    found = phases("250 a", "250 b", "503 what", chunked=True, recipients=1)
    assert found == []


def test_each_recipients_own_reply_of_lmtp_counts() -> None:
    found = phases("250 a", "250 b", "250 c", "354 go", "450 d", "451 e", lmtp=True)
    assert found == [("data", 450), ("data", 451)]


def test_phase_by_how_many_replies_there_were() -> None:
    flight = Flight("t", 2, is_chunked=False, is_behind=False)
    assert [phase_of(flight, answered) for answered in range(5)] == ["mail", "rcpt", "rcpt", "data", "data"]


def test_bad_sequence_behind_a_message_is_a_peer_that_lost_step() -> None:
    flight = Flight("t", 1, is_chunked=False, is_behind=True)
    flight.replies.append(Reply(503, "", "x"))
    assert is_misunderstood(flight)
