"""Too many recipients, told from a full mailbox."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.reply import Reply
from engine.delivery.crowding import crowded_out, limit_seen
from engine.smtp.client import Outcome
from engine.smtp.wire import parse_reply_line

OK = "250 2.1.5 ok"
MANY = "452 4.5.3 too many recipients"
FULL = "452 4.2.2 mailbox full"


def outcome(*lines: str, mail: str = "250 ok") -> Outcome:
    replies = [parse_reply_line(line.encode()) for line in lines]
    return Outcome(None, parse_reply_line(mail.encode()), replies, Reply(250, "2.0.0", "ok"))


@pytest.mark.parametrize(
    ("lines", "crowded"),
    [
        ([OK, OK, MANY], {2}),
        ([OK, FULL, OK], set()),
        ([OK, FULL, MANY, MANY], {2, 3}),
        ([OK, "552 too many recipients", "552 too many recipients"], {1, 2}),
        ([OK, "452 too many", "452 too many"], {1, 2}),
        ([OK, "452 full", OK], set()),
        ([OK, "452 full", OK, "452 too many"], {3}),
        ([OK, "452 4.3.1 disk full"], set()),
        ([OK, "451 4.5.3 too many"], {1}),
        ([OK, "550 5.5.3 too many"], {1}),
        ([OK, "550 5.1.1 unknown"], set()),
        ([MANY, MANY], set()),
        ([OK], set()),
        ([], set()),
    ],
)
def test_who_is_refused_for_the_others_sake(lines: list[str], crowded: set[int]) -> None:
    """RFC 5321 section 4.5.3.1.10: 452, or 552, is "too many recipients"; RFC 3463: X.5.3 is, X.2.2 is not.

    Where nobody was taken it is no limit on how many: that would be tried for ever.
    """
    assert crowded_out(outcome(*lines)) == crowded


def test_refused_mail_crowds_nobody_out() -> None:
    assert not crowded_out(outcome(OK, MANY, mail="451 4.3.0 later"))


def test_the_limit_is_how_many_were_taken() -> None:
    assert limit_seen(outcome(OK, OK, "550 5.1.1 no", MANY)) == 2
    assert limit_seen(outcome(OK, FULL)) == 0


@given(st.lists(st.sampled_from([OK, MANY, FULL, "452 what", "552 what", "550 no"]), min_size=2))
def test_a_transaction_that_crowds_out_has_taken_somebody(lines: list[str]) -> None:
    found = outcome(*lines)
    crowded = crowded_out(found)
    assert all(found.recipients[index].code >= 400 for index in crowded)
    assert not crowded or limit_seen(found) > 0
