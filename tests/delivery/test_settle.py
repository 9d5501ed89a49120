"""settle: replies to dispositions, events, retries, bounces."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.envelope import Delivery
from engine.core.reply import Reply, make_reply
from engine.core.terms import Terms
from engine.delivery.flight import Flight, Met, SessionFacts
from engine.delivery.judging import Judge
from engine.delivery.notices import DELAY
from engine.delivery.settle import MAX_REPLY_CHARS, Dispositions, disposition_of
from engine.delivery.site_queue import SiteQueue
from engine.message.dsn import Failure
from engine.net.extensions import NO_EXTENSIONS, parse_extensions
from engine.net.site import Host, make_site
from engine.policy.model import Destination
from engine.smtp.client import Outcome
from engine.smtp.lmtp import LmtpOutcome
from engine.store.memory import MemoryStore
from engine.telemetry.events import Event, Peer
from engine.telemetry.labels import DestinationLabels
from engine.telemetry.metrics import Counters
from tests.fakes.delivery_rig import UNIX_START, make_delivery, make_policies

OK = Reply(250, "2.0.0", "ok")
LATER = Reply(451, "4.3.0", "later")
NEVER = Reply(550, "5.1.1", "no such user")
GMAIL = Destination("gmail", "provider", "gmail", "")
FACTS = SessionFacts("7", "v1", "192.0.2.9", "v1.acme.example", Peer("mx.example", "192.0.2.1", 25), "")


class Desk:
    """Dispositions over a store in memory; what others hear is noted."""

    def __init__(self, policy: str = "", jitter: float = 0.5) -> None:
        self.now = UNIX_START + 10.0
        self.watch: Callable[[], None] = lambda: None
        self.store = MemoryStore(clock=lambda: self.now)
        self.events: list[Event] = []
        self.heard: list[tuple[str, Delivery]] = []
        self.bounces: list[tuple[Delivery, list[Failure], str]] = []
        self.counters = Counters()
        self.policies = make_policies(policy)
        self.dispositions = Dispositions(
            self.store,
            self.add_event,
            self.counters,
            DestinationLabels(),
            self,
            lambda *bounce: self.bounces.append(bounce),
            judge=Judge(self.policies),
            shard=3,
            unix_clock=lambda: self.now,
            jitter=lambda: jitter,
        )
        self.site_queue = SiteQueue(
            "pool",
            GMAIL,
            make_site([Host("mx.example")]),
            "",
            lambda customer: self.policies.effective(GMAIL, customer),
            lambda customer: 1,
        )
        self.session: Any = SimpleNamespace(facts=FACTS, now=105.0, extensions=NO_EXTENSIONS)

    def add_event(self, event: Event) -> None:
        self.watch()
        self.events.append(event)

    def deferred(self, delivery: Delivery) -> None:
        self.heard.append(("deferred", delivery))

    def ended(self, delivery: Delivery) -> None:
        self.heard.append(("ended", delivery))

    def ready_again(self, delivery: Delivery, site_queue: SiteQueue) -> None:
        assert site_queue is self.site_queue
        self.heard.append(("ready again", delivery))

    def stored(self, **facts: Any) -> Delivery:
        delivery = make_delivery(**facts)
        self.store.put([delivery], delivery.message, lambda error: None)
        self.store.commit()
        return delivery

    def settle(
        self,
        delivery: Delivery,
        *recipients: Reply,
        mail: Reply = OK,
        final: Reply | None = OK,
        is_uncertain: bool = False,
    ) -> None:
        """End a transaction of as many recipients as there are replies."""
        flight = Flight(delivery, delivery.recipients[: len(recipients)], self.site_queue, 100.0, 100.0)
        outcome = Outcome(flight, mail, list(recipients), final, is_uncertain)
        self.dispositions.settle(flight, outcome, self.session)
        self.store.commit()

    def fates(self) -> list[tuple[str, str]]:
        return [(each.recipient, each.event) for each in self.events]


def test_delivered_leaves_the_store_with_an_event_that_says_all() -> None:
    desk = Desk()
    delivery = desk.stored()
    desk.settle(delivery, OK)
    assert desk.store.count() == 0
    assert desk.heard == [("ended", delivery)]
    (event,) = desk.events
    assert event.event == "delivered"
    assert (event.id, event.recipient, event.domain) == (
        delivery.message_id.hex(),
        "u0@x.example",
        "x.example",
    )
    assert (event.customer, event.pool, event.sender) == ("acme", "pool", "news@acme.example")
    assert (event.vmta, event.source, event.hostname) == ("v1", "192.0.2.9", "v1.acme.example")
    assert (event.peer, event.session, event.shard) == (FACTS.peer, "7", 3)
    assert (event.destination, event.provider, event.site) == ("gmail", "gmail", "mx.example")
    assert (event.reply, event.attempt, event.attempt_s, event.queue_s) == (OK, 1, 5.0, 10.0)


def test_refusal_before_a_transaction_names_the_peer_and_has_a_status() -> None:
    """RFC 5248: derived where the peer gives none; RFC 5321 section 3.1 for 554."""
    desk = Desk()
    peer = Peer("mx.example", "192.0.2.1", 25)
    for reply, phase, status in (
        (Reply(554, "", "no"), "greeting", "5.3.2"),
        (Reply(421, "", "later"), "ehlo", "4.3.2"),
        (Reply(535, "", "no"), "auth", "5.7.8"),
        (Reply(421, "4.7.0", "later"), "greeting", "4.7.0"),
    ):
        desk.dispositions.defer(desk.stored(), desk.site_queue, reply, "v1", Met(peer, phase))
        event = desk.events[-1]
        assert (event.event, event.status, event.peer, event.vmta) == ("deferred", status, peer, "v1")


def test_the_event_is_given_before_the_store_learns_of_the_removal() -> None:
    desk = Desk()
    delivery = desk.stored()
    seen: list[bool] = []
    desk.watch = lambda: seen.append(desk.store.is_stored(delivery.key))
    desk.settle(delivery, OK)
    assert seen == [True]


def test_deferred_is_due_again_by_the_retry_curve() -> None:
    """RFC 5321 section 4.5.4.1."""
    desk = Desk('[default]\nretry = ["5m", "1h"]')
    delivery = desk.stored()
    desk.settle(delivery, OK, final=LATER)
    stored = desk.store.load(delivery.key)
    assert stored is not None
    assert (stored.attempts, stored.due_at, stored.last_reply) == (1, desk.now + 300.0, "451 4.3.0 later")
    assert desk.heard == [("deferred", delivery)]
    desk.settle(delivery, OK, final=LATER)
    assert delivery.due_at == desk.now + 3600.0
    desk.settle(delivery, OK, final=LATER)
    assert (delivery.attempts, delivery.due_at) == (3, desk.now + 3600.0)


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 270.0), (0.75, 315.0)])
def test_retries_are_spread_by_a_tenth(jitter: float, seconds: float) -> None:
    desk = Desk(jitter=jitter)
    delivery = desk.stored()
    desk.settle(delivery, OK, final=LATER)
    assert delivery.due_at == pytest.approx(desk.now + seconds)


def test_a_retry_is_due_no_later_than_the_expiry() -> None:
    desk = Desk('[default]\nretry = ["1h"]\nexpire_after = "10m"')
    delivery = desk.stored()
    desk.settle(delivery, OK, final=LATER)
    assert delivery.due_at == UNIX_START + 600.0


def test_bounced_leaves_the_store_and_its_sender_is_told() -> None:
    desk = Desk()
    delivery = desk.stored()
    desk.settle(delivery, NEVER, final=Reply(554, "", "no recipients"))
    assert desk.store.count() == 0
    assert desk.fates() == [("u0@x.example", "bounced")]
    assert desk.bounces == [(delivery, [Failure("u0@x.example", NEVER, "mx.example")], "")]


def test_where_policy_says_so_no_bounce_message_is_made() -> None:
    desk = Desk("[default]\nbounce_message = false")
    desk.settle(desk.stored(), NEVER, final=None)
    assert desk.fates() == [("u0@x.example", "bounced")]
    assert not desk.bounces


def test_each_recipient_has_its_own_disposition() -> None:
    """RFC 5321 section 3.3."""
    desk = Desk()
    delivery = desk.stored(recipients=3)
    desk.settle(delivery, OK, LATER, NEVER)
    assert [fate for _, fate in desk.fates()] == ["delivered", "deferred", "bounced"]
    assert [failure.recipient for failure in desk.bounces[0][1]] == ["u2@x.example"]
    stored = desk.store.load(delivery.key)
    assert stored is not None
    assert stored.recipients == ["u1@x.example"]
    assert stored.attempts == 1


def test_refused_mail_and_refused_content_are_for_all_recipients() -> None:
    for refused in ({"mail": NEVER, "final": None}, {"final": NEVER}):
        desk = Desk()
        desk.settle(desk.stored(recipients=2), OK, OK, **refused)  # type: ignore[arg-type]
        assert [fate for _, fate in desk.fates()] == ["bounced", "bounced"]


def test_recipients_that_were_not_tried_yet_are_ready_again_and_the_rest_waits() -> None:
    desk = Desk()
    delivery = desk.stored(recipients=5)
    desk.settle(delivery, OK, LATER)
    assert delivery.recipients == ["u2@x.example", "u3@x.example", "u4@x.example", "u1@x.example"]
    assert desk.heard.pop() == ("ready again", delivery)
    assert delivery.attempts == 0
    desk.settle(delivery, LATER, OK)
    assert delivery.recipients == ["u4@x.example", "u1@x.example", "u2@x.example"]
    assert desk.heard.pop() == ("ready again", delivery)
    desk.settle(delivery, OK)
    assert desk.heard.pop() == ("deferred", delivery)
    assert (delivery.recipients, delivery.attempts, delivery.deferred) == (
        ["u1@x.example", "u2@x.example"],
        1,
        0,
    )
    stored = desk.store.load(delivery.key)
    assert stored is not None
    assert stored.recipients == ["u1@x.example", "u2@x.example"]


def test_parts_that_are_all_delivered_leave_nothing() -> None:
    desk = Desk()
    delivery = desk.stored(recipients=3)
    desk.settle(delivery, OK, OK)
    desk.settle(delivery, OK)
    assert desk.store.count() == 0
    assert [name for name, _ in desk.heard] == ["ready again", "ended"]
    assert len(desk.events) == 3


def test_a_crash_between_parts_sends_no_part_twice() -> None:
    desk = Desk()
    delivery = desk.stored(recipients=3)
    desk.settle(delivery, OK, OK)
    stored = desk.store.load(delivery.key)
    assert stored is not None
    assert stored.recipients == ["u2@x.example"]


def test_uncertain_is_deferred_and_counted() -> None:
    """RFC 1047."""
    desk = Desk()
    delivery = desk.stored(recipients=2)
    lost = make_reply(451, "4.4.2", "no reply to the message, it may have arrived")
    desk.settle(delivery, OK, OK, final=lost, is_uncertain=True)
    assert [fate for _, fate in desk.fates()] == ["deferred", "deferred"]
    assert all(event.is_uncertain for event in desk.events)
    assert desk.counters.counter("mailrail_uncertain_total")[0] == 2


def test_no_reply_at_all_is_a_lost_connection() -> None:
    desk = Desk()
    desk.settle(desk.stored(), OK, final=None)
    assert desk.events[0].reply == make_reply(451, "4.4.2", "connection lost")


def test_long_replies_are_cut_where_they_are_stored() -> None:
    desk = Desk()
    delivery = desk.stored()
    desk.settle(delivery, OK, final=Reply(451, "", "x" * 5000))
    assert len(delivery.last_reply) == MAX_REPLY_CHARS


def test_put_back_is_no_attempt() -> None:
    desk = Desk()
    delivery = desk.stored()
    desk.dispositions.put_back(Flight(delivery, delivery.recipients, desk.site_queue, 0.0, 0.0))
    assert desk.heard == [("ready again", delivery)]
    assert not desk.events
    assert delivery.attempts == 0


def test_an_attempt_without_a_session_defers_every_recipient() -> None:
    desk = Desk()
    delivery = desk.stored(recipients=2)
    desk.dispositions.defer(delivery, desk.site_queue, LATER, "v1")
    assert [(event.event, event.vmta, event.attempt) for event in desk.events] == [("deferred", "v1", 1)] * 2
    assert (delivery.attempts, delivery.due_at) == (1, desk.now + 300.0)
    assert desk.heard == [("deferred", delivery)]


def test_expired_tells_the_last_reply_and_what_it_waited_for() -> None:
    desk = Desk()
    delivery = desk.stored()
    delivery.last_reply = "451 4.3.0 later"
    policy = desk.site_queue.policy_of("acme")
    desk.dispositions.expire(delivery, policy, desk.site_queue, "held: paused")
    desk.store.commit()
    (event,) = desk.events
    assert (event.event, event.attempt, event.reason) == ("expired", 0, "held: paused")
    assert event.reply is not None
    assert event.reply.enhanced == "5.4.7"
    assert event.reply.text.endswith("last reply: 451 4.3.0 later; it waited for: held: paused")
    assert desk.bounces[0][2] == "held: paused"
    assert desk.store.count() == 0
    assert desk.heard == [("ended", delivery)]


def test_what_has_no_site_bounces_under_its_domain() -> None:
    desk = Desk()
    delivery = desk.stored()
    desk.dispositions.bounce(delivery, NEVER, desk.site_queue.policy_of("acme"), None)
    assert desk.fates() == [("u0@x.example", "bounced")]
    assert desk.events[0].destination == ""
    assert len(desk.bounces) == 1


def test_cancelled_makes_no_bounce_message() -> None:
    desk = Desk()
    delivery = desk.stored()
    desk.dispositions.cancel(delivery, "by an operator")
    desk.store.commit()
    assert (desk.events[0].event, desk.events[0].reason) == ("cancelled", "by an operator")
    assert not desk.bounces
    assert desk.store.count() == 0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (OK, "delivered"),
        (LATER, "deferred"),
        (NEVER, "bounced"),
        (Reply(421, "", "bye"), "deferred"),
        (Reply(552, "", "too many"), "bounced"),
        (Reply(354, "", "what"), "deferred"),
    ],
)
def test_the_code_decides(reply: Reply, expected: str) -> None:
    """RFC 5321 section 4.2.1."""
    assert disposition_of(reply, Outcome(None, OK, [OK], reply), 0) == expected


def test_552_to_a_recipient_is_temporary() -> None:
    """RFC 5321 section 4.5.3.1.10."""
    too_many = Reply(552, "", "too many recipients")
    assert disposition_of(too_many, Outcome(None, OK, [OK, too_many], OK), 1) == "deferred"


def test_messages_are_counted_by_event_customer_and_destination() -> None:
    desk = Desk()
    desk.settle(desk.stored(), OK)
    desk.settle(desk.stored(), NEVER, final=None)
    rows = {tuple(row[1]): row[2] for row in desk.counters.snapshot()["counters"] if "messages" in row[0]}
    assert rows == {("delivered", "acme", "gmail"): 1, ("bounced", "acme", "gmail"): 1}


def test_those_beyond_the_peers_limit_are_tried_at_once_without_an_attempt() -> None:
    """RFC 5321 section 4.5.3.1.10: the client sends "another transaction" for the remaining recipients."""
    desk = Desk()
    delivery = desk.stored(recipients=5)
    many = Reply(452, "4.5.3", "too many recipients")
    desk.settle(delivery, OK, Reply(452, "4.2.2", "mailbox full"), many, many)
    assert desk.fates() == [("u0@x.example", "delivered"), ("u1@x.example", "deferred")]
    assert delivery.recipients == ["u2@x.example", "u3@x.example", "u4@x.example", "u1@x.example"]
    assert (delivery.attempts, delivery.deferred) == (0, 1)
    assert desk.heard == [("ready again", delivery)]
    desk.settle(delivery, OK, OK, OK)
    assert delivery.recipients == ["u1@x.example"]
    assert (delivery.attempts, delivery.deferred) == (1, 0)
    assert desk.heard[-1] == ("deferred", delivery)


def test_552_at_rcpt_is_temporary_and_behind_the_message_permanent() -> None:
    """RFC 5321 section 4.5.3.1.10."""
    full = Reply(552, "5.2.2", "mailbox full")
    desk = Desk()
    desk.settle(desk.stored(recipients=2), full, full)
    desk.settle(desk.stored(), OK, final=full)
    assert [event.event for event in desk.events] == ["deferred", "deferred", "bounced"]


@pytest.mark.parametrize(("code", "fate"), [(251, "delivered"), (252, "delivered")])
def test_251_and_252_at_rcpt_are_acceptance(code: int, fate: str) -> None:
    """RFC 5321 section 3.4: 251 "user not local; will forward"; RFC 5321 section 3.5.3: 252 will be tried."""
    desk = Desk()
    desk.settle(desk.stored(), Reply(code, "2.1.5", "will forward"))
    assert [event.event for event in desk.events] == [fate]


def test_status_is_derived_where_the_peer_gives_none_and_the_bounce_says_it() -> None:
    """RFC 3464 section 2.3.4 wants a status; RFC 5248 says which. The reply stays as the peer gave it."""
    desk = Desk()
    desk.settle(desk.stored(recipients=2), Reply(550, "", "unknown"), Reply(550, "5.1.1", "unknown"))
    assert [(event.status, event.reply.enhanced) for event in desk.events if event.reply] == [
        ("5.1.0", ""),
        ("5.1.1", "5.1.1"),
    ]
    ((_, failures, _),) = desk.bounces
    assert [failure.status or failure.reply.enhanced for failure in failures] == ["5.1.0", "5.1.1"]


def test_each_recipient_of_lmtp_is_settled_by_its_own_reply() -> None:
    """RFC 2033 section 4.2; a connection lost between the replies leaves only the unanswered uncertain."""
    desk = Desk()
    delivery = desk.stored(recipients=4)
    flight = Flight(delivery, delivery.recipients, desk.site_queue, 100.0, 100.0)
    lost = make_reply(451, "4.4.2", "no reply to the message, it may have arrived")
    finals = [OK, Reply(452, "4.2.2", "full"), Reply(552, "5.2.2", "full"), None]
    outcome = LmtpOutcome(flight, OK, [OK] * 4, lost, is_uncertain=True, finals=finals)
    desk.dispositions.settle(flight, outcome, desk.session)
    assert [(event.event, event.is_uncertain) for event in desk.events] == [
        ("delivered", False),
        ("deferred", False),
        ("bounced", False),
        ("deferred", True),
    ]


# -- notifications ----------------------------------------------------------------------------------


def test_relaying_to_a_peer_without_dsn_is_told_and_to_one_with_it_is_not() -> None:
    """RFC 3461 5.2.2."""
    desk = Desk()
    delivery = desk.stored(terms=Terms(notify="SUCCESS"))
    desk.settle(delivery, OK)
    assert desk.bounces == [(delivery, [Failure("u0@x.example", OK, "mx.example")], "", "relayed")]
    desk.session.extensions = parse_extensions("DSN")
    desk.settle(desk.stored(terms=Terms(notify="SUCCESS")), OK)
    assert len(desk.bounces) == 1


def test_failure_that_nobody_wants_to_hear_of_is_not_told() -> None:
    """RFC 3461 4.1: NOTIFY=NEVER."""
    desk = Desk()
    desk.settle(desk.stored(terms=Terms(notify="NEVER")), NEVER, final=None)
    policy = desk.site_queue.policy_of("acme")
    desk.dispositions.expire(desk.stored(terms=Terms(notify="SUCCESS")), policy, None)
    assert [event.event for event in desk.events] == ["bounced", "expired"]
    assert not desk.bounces


def test_delay_is_told_once_and_the_delivery_is_tried_at_that_time() -> None:
    """RFC 3461 4.1: DELAY."""
    desk = Desk('[default]\nretry = ["1h"]\ndelay_notice_after = "10m"')
    delivery = desk.stored(terms=Terms(notify="DELAY"))
    desk.settle(delivery, OK, final=LATER)
    assert delivery.due_at == UNIX_START + 600.0
    assert not desk.bounces
    desk.now = UNIX_START + 600.0
    desk.settle(delivery, OK, final=LATER)
    ((_, told, _, action, until),) = desk.bounces
    assert (action, until) == ("delayed", UNIX_START + 4 * 86400)
    assert str(told[0].reply) == "451 4.4.7 not delivered yet; last reply: 451 4.3.0 later"
    stored = desk.store.load(delivery.key)
    assert stored is not None
    assert (stored.told, stored.due_at) == (DELAY, desk.now + 3600.0)
    desk.now += 3600.0
    desk.settle(delivery, OK, final=LATER)
    assert len(desk.bounces) == 1


def test_deadline_that_passes_is_told_where_n_was_asked_for() -> None:
    """RFC 2852 4: by-mode N."""
    desk = Desk('[default]\nretry = ["1h"]')
    delivery = desk.stored(terms=Terms(by_mode="N", deliver_by_at=UNIX_START + 60.0))
    desk.settle(delivery, OK, final=LATER)
    assert delivery.due_at == UNIX_START + 60.0
    desk.now = UNIX_START + 60.0
    desk.settle(delivery, OK, final=LATER)
    assert [bounce[3] for bounce in desk.bounces] == ["delayed"]
    assert delivery.due_at == desk.now + 3600.0


def test_retry_is_due_no_later_than_a_deadline_with_return() -> None:
    """RFC 2852 4: by-mode R."""
    desk = Desk('[default]\nretry = ["1h"]')
    delivery = desk.stored(terms=Terms(by_mode="R", deliver_by_at=UNIX_START + 60.0))
    desk.settle(delivery, OK, final=LATER)
    assert delivery.due_at == UNIX_START + 60.0
    assert not desk.bounces


# -- what a refusal means ----------------------------------------------------------------------------


def test_550_that_means_too_fast_is_tried_again_later_than_usual() -> None:
    desk = Desk('[default]\nretry = ["10m"]')
    delivery = desk.stored()
    desk.settle(delivery, Reply(550, "5.7.1", "too many messages, slow down"))
    (event,) = desk.events
    assert (event.event, event.category, event.action) == ("deferred", "rate-limited", "retry_slower")
    assert event.due_at == delivery.due_at == desk.now + 1200.0
    assert not desk.bounces
    desk.settle(delivery, LATER)
    assert delivery.due_at == desk.now + 600.0


def test_452_that_does_not_heal_bounces_at_once_and_its_sender_is_told() -> None:
    desk = Desk()
    delivery = desk.stored()
    large = Reply(452, "4.3.4", "message exceeds fixed size limit")
    desk.settle(delivery, OK, final=large)
    (event,) = desk.events
    assert (event.event, event.category, event.rule) == ("bounced", "message-too-large", "too-large")
    assert (event.action, event.status, event.reply) == ("give_up", "4.3.4", large)
    assert desk.bounces == [(delivery, [Failure("u0@x.example", large, "mx.example")], "")]
    assert desk.store.count() == 0


def test_each_recipient_is_judged_by_its_own_reply() -> None:
    desk = Desk('[default]\nretry = ["10m"]')
    delivery = desk.stored(recipients=3)
    desk.settle(delivery, OK, Reply(550, "", "too many messages"), NEVER)
    assert [(event.event, event.category) for event in desk.events] == [
        ("delivered", ""),
        ("deferred", "rate-limited"),
        ("bounced", "bad-mailbox"),
    ]
    assert (delivery.recipients, delivery.due_at) == (["u1@x.example"], desk.now + 1200.0)


def test_slower_retry_is_due_no_later_than_the_expiry() -> None:
    desk = Desk('[default]\nretry = ["1h"]\nexpire_after = "90m"')
    delivery = desk.stored()
    desk.settle(delivery, Reply(550, "", "too many messages"))
    assert delivery.due_at == UNIX_START + 5400.0


def test_delivery_that_should_go_by_another_vmta_keeps_that_in_the_store() -> None:
    desk = Desk()
    delivery = desk.stored()
    desk.settle(delivery, Reply(421, "4.7.1", "blocked using zen.spamhaus.org"))
    stored = desk.store.load(delivery.key)
    assert stored is not None
    assert (stored.avoid, desk.events[0].action) == ("v1", "other_vmta")
    desk.settle(delivery, LATER)
    assert delivery.avoid == ""


def test_connection_that_is_refused_bounces_nobody_whatever_its_code() -> None:
    desk = Desk()
    delivery = desk.stored()
    desk.dispositions.defer(delivery, desk.site_queue, Reply(554, "5.7.1", "blocked using a.dnsbl"), "v1")
    assert (desk.events[0].event, desk.events[0].category) == ("deferred", "spam-block")
    assert desk.events[0].action == "retry"


def test_what_has_no_reply_of_a_peer_has_the_category_of_its_kind() -> None:
    desk = Desk()
    desk.settle(desk.stored(), OK, final=None)
    policy = desk.site_queue.policy_of("acme")
    desk.dispositions.bounce(desk.stored(), make_reply(556, "5.1.10", "null MX"), policy, None)
    desk.dispositions.expire(desk.stored(), policy, None)
    assert [event.category for event in desk.events] == ["bad-connection", "bad-domain", ""]


def test_deferrals_and_bounces_are_counted_by_category() -> None:
    desk = Desk()
    desk.settle(desk.stored(), OK)
    desk.settle(desk.stored(), NEVER)
    rows = {tuple(row[1]): row[2] for row in desk.counters.snapshot()["counters"] if "classified" in row[0]}
    assert rows == {("bounced", "bad-mailbox", "gmail"): 1}


def test_whoever_heeds_hears_of_each_transaction_who_was_refused() -> None:
    desk = Desk()
    heard: list[tuple[Reply | None, list[str]]] = []
    desk.dispositions.heed = lambda session, final, refused: heard.append(
        (final, [event.category for event in refused])
    )
    desk.settle(desk.stored(), OK)
    desk.settle(desk.stored(recipients=2), OK, NEVER)
    desk.settle(desk.stored(), OK, final=LATER)
    assert heard == [(OK, []), (OK, ["bad-mailbox"]), (LATER, ["temporary-system"])]
