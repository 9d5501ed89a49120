"""judging: category, attempts and code make a disposition."""

from __future__ import annotations

import pytest

from engine.core.reply import Reply, make_reply
from engine.delivery.judging import Judge, Judgement
from engine.telemetry.events import Event
from tests.fakes.delivery_rig import make_delivery, make_policies

FAST = Reply(550, "5.7.1", "too many messages, slow down")
LARGE = Reply(452, "4.3.4", "message too large")


def judge(reply: Reply, attempts: int = 1, policy: str = "") -> Judgement:
    return Judge(make_policies(policy)).judge(reply, "", attempts, is_permanent=reply.is_permanent)


@pytest.mark.parametrize(
    ("reply", "action", "disposition"),
    [
        (FAST, "retry_slower", "deferred"),
        (LARGE, "give_up", "bounced"),
        (Reply(550, "5.1.1", "user unknown"), "suppress", "bounced"),
        (Reply(421, "4.7.0", "blocked using zen.spamhaus.org"), "other_vmta", "deferred"),
        (Reply(451, "4.7.1", "greylisted"), "retry", "deferred"),
        (Reply(550, "", "hm"), "give_up", "bounced"),
        (Reply(450, "4.1.1", "hm"), "retry", "deferred"),
        (make_reply(451, "4.4.1", "user unknown"), "retry", "deferred"),
        (make_reply(552, "5.3.4", "too large"), "give_up", "bounced"),
    ],
)
def test_table_says_what_is_done(reply: Reply, action: str, disposition: str) -> None:
    found = judge(reply)
    assert (found.action, found.disposition) == (action, disposition)


def test_4xx_that_does_not_heal_ends_with_its_patience() -> None:
    unknown = Reply(450, "4.1.1", "user unknown")
    assert [judge(unknown, attempts).disposition for attempts in (5, 6)] == ["deferred", "bounced"]


def test_operator_changes_the_table_and_the_rules() -> None:
    assert judge(FAST, policy='[category.rate-limited]\npermanent = "give_up"').action == "give_up"
    rule = '[[classify]]\nname = "mine"\nmatch = "slow down"\ncategory = "other"\nsamples = ["550 slow down"]'
    assert judge(FAST, policy=rule)[:2] == ("other", "mine")


def test_policies_of_a_reload_hold_from_then_on() -> None:
    judge = Judge(make_policies())
    judge.use(make_policies('[category.rate-limited]\npermanent = "give_up"'))
    assert judge.judge(FAST, "", 1, is_permanent=True).action == "give_up"


def test_wait_is_lengthened_only_where_the_action_says_so() -> None:
    assert judge(FAST).wait_factor == 2
    assert judge(FAST, policy="[category.rate-limited]\nwait_factor = 7").wait_factor == 7
    assert judge(FAST, policy='[category.rate-limited]\npermanent = "retry"').wait_factor == 1


def test_what_is_settled_already_stays_so() -> None:
    settled = Judge(make_policies()).judge_settled
    refused = Reply(554, "5.7.1", "blocked using zen.spamhaus.org")
    assert settled("deferred", refused, "", 1)[:3:2] == ("spam-block", "retry")
    assert settled("deferred", Reply(421, "", "too many connections"), "", 1).action == "retry_slower"
    assert settled("bounced", make_reply(556, "5.1.10", "null MX"), "", 1)[:3:2] == ("bad-domain", "give_up")


def test_event_and_delivery_are_marked() -> None:
    event = Event("deferred", 0.0, "", "acme", "pool", "", 0.0, 0, vmta="v1")
    delivery = make_delivery()
    Judgement("spam-block", "listed", "other_vmta", 1).mark(event, delivery)
    assert (event.category, event.rule, event.action) == ("spam-block", "listed", "other_vmta")
    assert delivery.avoid == "v1"
    Judgement("rate-limited", "rate", "retry_slower", 3).mark(event, delivery)
    Judgement("other", "", "retry", 1).mark(event, delivery)
    assert (delivery.avoid, delivery.wait_factor) == ("", 3)
