"""The shipped policy's times, beside those of RFC 5321."""

from __future__ import annotations

import pytest

from engine.policy.model import Destination
from tests.delivery.test_chunking import DONE, around
from tests.delivery.test_session import OK, virtual
from tests.fakes.delivery_rig import make_delivery, make_policies

POLICY = make_policies().effective(Destination("x", "site", "", ""))
MINUTE_S, DAY_S = 60.0, 86_400.0


@pytest.mark.parametrize(
    ("timer", "minutes"),
    [
        ("greeting", 5),  # RFC 5321 section 4.5.3.2.1
        ("ehlo", 5),  # no clause of its own
        ("mail", 5),  # RFC 5321 section 4.5.3.2.2
        ("rcpt", 5),  # RFC 5321 section 4.5.3.2.3
        ("data", 2),  # RFC 5321 section 4.5.3.2.4
        ("content", 3),  # RFC 5321 section 4.5.3.2.5
        ("final", 10),  # RFC 5321 section 4.5.3.2.6
    ],
)
def test_timers_are_those_of_the_standard(timer: str, minutes: float) -> None:
    """RFC 5321 sections 4.5.3.2.1 to 4.5.3.2.6: a minimum each, and nobody ships less."""
    assert getattr(POLICY, f"{timer}_timeout_s") >= minutes * MINUTE_S


@virtual
async def test_a_chunk_has_the_time_of_the_final_dot() -> None:
    """RFC 5321 section 4.5.3.2.6: BDAT LAST is the end of data, and as easily sent twice."""
    it = around(make_delivery())
    it.transport.say(OK + OK)
    await it.wait(10 * MINUTE_S - 1.0)
    assert not it.settled
    await it.wait(2.0)
    ((_, outcome),) = it.settled
    assert outcome.is_uncertain


@virtual
async def test_an_answered_chunk_starts_the_next_ones_time() -> None:
    """RFC 5321 section 4.5.3.2: the timer is for a command, not for a session."""
    it = around(make_delivery(), make_delivery())
    await it.wait(4 * MINUTE_S)
    it.transport.say(DONE)
    await it.wait(4 * MINUTE_S)
    assert len(it.settled) == 1
    await it.wait(2 * MINUTE_S)
    assert len(it.settled) == 2


def test_mail_is_tried_for_days_and_not_every_minute() -> None:
    """RFC 5321 section 4.5.4.1: half an hour between tries, give up after four to five days at least."""
    assert min(POLICY.retry_s[2:]) >= 30 * MINUTE_S
    assert list(POLICY.retry_s) == sorted(POLICY.retry_s)
    assert POLICY.expire_after_s >= 4 * DAY_S
