"""Replies of a conversation: what is counted, what ends it."""

from __future__ import annotations

import pytest

from engine.core.errors import Refused
from engine.core.reply import make_reply
from engine.smtp.hello import ServerLimits
from engine.smtp.replies import IDLE_REPLIES, Replies
from engine.smtp.server import ServerConversation

LIMITS = ServerLimits("mta1.example.net", max_errors=2, max_idle_commands=2)


def test_codes_above_399_are_kept_for_the_shell_to_count() -> None:
    replies = Replies(LIMITS)
    for code in (250, 450, 550):
        replies._reply(make_reply(code, "", "x"))
    assert replies.refusals == [450, 550]
    assert not replies.is_closing


def test_421_is_the_last_word() -> None:
    """RFC 5321 3.8: the server closes after it."""
    replies = Replies(LIMITS)
    replies._reply(make_reply(421, "4.3.2", "x"))
    assert replies.is_closing


def test_more_errors_than_allowed_end_the_session() -> None:
    replies = Replies(LIMITS)
    said = [replies._error(make_reply(500, "5.5.2", "x")) for _ in range(3)]
    assert [piece.count(b"\r\n") for piece in said] == [1, 1, 2]
    assert replies.is_closing


def test_more_idle_commands_than_allowed_are_refused() -> None:
    replies = Replies(LIMITS)
    replies._count_idle()
    replies._count_idle()
    with pytest.raises(Refused, match="421"):
        replies._count_idle()


def test_help_names_every_verb_that_is_always_there() -> None:
    assert {b"EHLO", b"DATA", b"BDAT"} <= set(IDLE_REPLIES[b"HELP"].split())


def test_replies_are_ascii_whatever_is_quoted_in_them():
    """RFC 6531 section 3.7.4.2: a client that has not asked for UTF-8 can't read it."""
    conversation = ServerConversation(ServerLimits("mta1.example.net"))
    said = conversation.receive("EHLO x\r\nMAIL FROM:<a@ü..x>\r\n".encode())
    assert said.isascii()
    assert b"\\xfc" in said
