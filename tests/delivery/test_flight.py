"""flight: whom the next transaction is for, how deep it may go on, what the rates are told."""

from __future__ import annotations

import pytest

from engine.core.reply import make_reply
from engine.delivery.flight import Flight, next_depth, observe_end, recipients_to_try
from engine.policy.model import Destination
from engine.queue.path import Path, PathLimits
from engine.smtp.client import Outcome
from tests.fakes.delivery_rig import make_delivery, make_policies

OK = make_reply(250, "2.0.0", "ok")
LATER = make_reply(451, "4.3.0", "later")
NO = make_reply(550, "5.1.1", "no")
GONE = make_reply(503, "5.5.1", "no recipients")


@pytest.mark.parametrize(("deferred", "most", "tried"), [(0, 9, 5), (0, 2, 2), (2, 9, 3), (4, 1, 1)])
def test_recipients_deferred_in_this_attempt_are_not_tried_again(
    deferred: int, most: int, tried: int
) -> None:
    delivery = make_delivery(recipients=5)
    delivery.deferred = deferred
    assert recipients_to_try(delivery, most) == delivery.recipients[:tried]


@pytest.mark.parametrize(
    ("mail", "recipient", "final", "depth"),
    [(OK, OK, OK, 4), (OK, OK, LATER, 1), (LATER, NO, NO, 1), (OK, NO, GONE, 2), (None, OK, None, 1)],
)
def test_depth_follows_mail_and_content_only(
    mail: object, recipient: object, final: object, depth: int
) -> None:
    outcome = Outcome(None, mail, [recipient], final)  # type: ignore[arg-type, list-item]
    assert next_depth(outcome, 2, 4) == depth


def test_the_word_on_the_message_counts_whoever_was_refused_before_it() -> None:
    assert next_depth(Outcome(None, OK, [NO, OK], LATER), 2, 4) == 1


def test_a_transaction_refused_before_its_content_counts_in_the_rates() -> None:
    policy = make_policies('[default]\nmax_message_rate = "1/min"').effective(
        Destination("x", "site", "", "")
    )
    path = Path("v1", "x", "", policy, PathLimits(-1e6), ())
    delivery = make_delivery()
    flight = Flight(delivery, delivery.recipients, None, 5.0, path.reserve_message(5.0))  # type: ignore[arg-type]
    observe_end(flight, path, 6.0)
    assert path.message_ready_at(7.0) > 60.0
