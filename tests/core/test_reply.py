"""A reply is a value."""

from __future__ import annotations

import pytest

from engine.core.reply import Reply, make_reply


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        (250, (True, False, False)),
        (354, (True, False, False)),
        (421, (False, True, False)),
        (550, (False, False, True)),
    ],
)
def test_the_first_digit_tells_the_kind(code, kinds):
    reply = Reply(code, "", "text")
    assert (reply.is_positive, reply.is_temporary, reply.is_permanent) == kinds


def test_a_reply_reads_as_it_was_said():
    assert str(Reply(550, "5.1.1", "no such user")) == "550 5.1.1 no such user"
    assert str(Reply(250, "", "ok")) == "250 ok"


def test_what_we_made_ourselves_is_marked():
    assert make_reply(451, "4.4.1", "no route").synthetic
    assert not Reply(451, "4.4.1", "no route").synthetic
