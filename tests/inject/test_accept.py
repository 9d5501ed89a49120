"""accept: whose mail is taken, what it becomes, where it goes, and what its injector is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from engine.core.envelope import Delivery, Envelope, MessageIds, accepted_at
from engine.core.errors import PerhapsStored, StoreError, StoreFull, StoreUnhealthy
from engine.core.reply import Reply
from engine.core.terms import Terms
from engine.inject.accept import (
    DRAINING,
    MAX_RECEIVED,
    MAX_RECIPIENTS_PER_DELIVERY,
    NO_CUSTOMER,
    NO_POOL,
    PERHAPS,
    TOO_MANY_HOPS,
    Acceptor,
    make_deliveries,
)
from engine.inject.context import FeedContext
from engine.settings.model import Customer, DkimKey
from engine.store.memory import MemoryStore
from engine.telemetry.events import Event, Peer
from engine.telemetry.metrics import Counters

UNIX_NOW = 1_700_000_000.0
HERE, THERE = 0, 3
SENDER = "news@acme.example"
TO = ["ann@x.example"]
MESSAGE = b"From: news@acme.example\r\nSubject: hello\r\n\r\nhello\r\n"
ACME = FeedContext("smtp", "in", "acme", peer="192.0.2.7", helo="app.acme.example")
TRUSTED = FeedContext("smtp", "in", is_trusted=True)
EIGHT_BIT = "Subject: x\r\n\r\nGrüße\r\n".encode()
DKIM = (DkimKey(domain="acme.example", selector="s", key="k"),)
CUSTOMERS = {
    "acme": Customer(name="acme", pool="bulk", senders=("*@acme.example", "ann@friend.example")),
    "encoding": Customer(name="encoding", pool="bulk", senders=("*",), dkim=DKIM, encode_8bit="always"),
    "signed": Customer(name="signed", pool="bulk", senders=("*",), dkim=DKIM),
}

Done = Callable[[StoreError | None], None]


class Door:
    """An acceptor with its collaborators; `shard` is where the next message is placed."""

    def __init__(self) -> None:
        self.store = MemoryStore(clock=lambda: UNIX_NOW)
        self.shard = HERE
        self.placed: list[str] = []
        self.forwarded: list[tuple[int, list[Delivery], bytes, Done]] = []
        self.arrived: list[Delivery] = []
        self.signed: list[tuple[str, str, bytes, float]] = []
        self.events: list[Event] = []
        self.told: list[tuple[Reply, list[str]]] = []
        self.counters = Counters()
        self.acceptor = Acceptor(
            shard=HERE,
            ids=MessageIds(HERE, b"test"),
            store=self.store,
            place=self._place,
            forward=lambda *forwarded: self.forwarded.append(forwarded),
            arrived=self.arrived.append,
            sign=self._sign,
            add_event=self.events.append,
            counters=self.counters,
            unix_clock=lambda: UNIX_NOW,
        )
        self.acceptor.use("mta.acme.example", CUSTOMERS, {"bulk": None, "fast": None})

    def _place(self, pool: str) -> int:
        self.placed.append(pool)
        return self.shard

    def _sign(self, customer: str, domain: str, message: bytes, unix_now: float) -> bytes:
        self.signed.append((customer, domain, message, unix_now))
        return b"DKIM-Signature: of-a-test\r\n"

    def offer(
        self,
        context: FeedContext = ACME,
        *,
        message: bytes = MESSAGE,
        sender: str = SENDER,
        recipients: list[str] = TO,
    ) -> None:
        self.acceptor.accept(
            sender,
            list(recipients),
            message,
            not message.isascii(),
            context,
            lambda reply, message_ids: self.told.append((reply, message_ids)),
        )

    def take(self, context: FeedContext = ACME, **what: Any) -> Delivery:
        """Offer what is taken here, commit it and return its first delivery."""
        self.offer(context, **what)
        self.store.commit()
        assert self.reply.code == 250, self.reply
        return self.arrived[0]

    def answer_forward(self, error: StoreError | None) -> list[Delivery]:
        """The other shard answers, or its link does; return what was forwarded."""
        _, deliveries, _, done = self.forwarded.pop()
        done(error)
        return deliveries

    @property
    def reply(self) -> Reply:
        """What the one injector was told."""
        assert len(self.told) == 1
        return self.told[0][0]

    def count(self, name: str, **labels: str) -> float:
        return self.counters.counter(name, **labels)[0]


@pytest.fixture
def door() -> Door:
    return Door()


# -- promises -------------------------------------------------------------------------------------


def test_nothing_is_promised_before_the_commit(door: Door) -> None:
    """RFC 5321 section 6.1."""
    door.offer()
    assert (door.told, door.arrived) == ([], [])
    door.store.commit()
    reply, message_ids = door.told[0]
    assert (reply.code, reply.enhanced) == (250, "2.0.0")
    assert reply.text == f"Ok: queued as {message_ids[0]}"
    assert [delivery.message_id.hex() for delivery in door.arrived] == message_ids


def test_what_arrives_is_what_is_stored(door: Door) -> None:
    delivery = door.take()
    assert delivery.message.endswith(MESSAGE)
    kept = door.store.load(delivery.key)
    assert kept is not None
    assert (kept.message, kept.recipients, kept.domain, kept.held) == (
        delivery.message,
        TO,
        "x.example",
        "",
    )
    assert (kept.is_remembered, kept.due_at) == (False, UNIX_NOW)
    envelope = kept.envelope
    assert (envelope.sender, envelope.customer, envelope.pool) == (SENDER, "acme", "bulk")
    assert (envelope.size_bytes, envelope.feed, envelope.peer) == (len(kept.message), "smtp", "192.0.2.7")
    assert accepted_at(delivery.message_id) == UNIX_NOW


def test_a_full_store_is_452(door: Door) -> None:
    door.store.full_reason = "the disk is full"
    door.offer()
    assert (door.reply.code, door.reply.enhanced, door.told[0][1]) == (452, "4.3.1", [])
    assert door.events == []


def test_an_unhealthy_store_is_451(door: Door) -> None:
    door.store.failure = StoreUnhealthy("a page is damaged")
    door.offer()
    assert (door.reply.code, door.reply.enhanced) == (451, "4.3.0")


@pytest.mark.parametrize(("error", "code"), [(StoreFull("map"), 452), (StoreUnhealthy("disk"), 451)])
def test_a_commit_that_fails_refuses(door: Door, error: StoreError, code: int) -> None:
    door.offer()
    door.store.commit(error)
    assert door.reply.code == code
    assert door.arrived == []
    assert door.count("mailrail_injections_total", feed="smtp", listener="in", result="refused") == 1


def test_what_a_peer_reads_does_not_tell_of_the_disk(door: Door) -> None:
    door.store.full_reason = "/var/lib has 1 % left"
    door.offer()
    assert "/var/lib" not in door.reply.text


# -- who may ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", [SENDER, "any.one@acme.example", "ann@friend.example", ""])
def test_a_sender_that_a_pattern_names_may_be_used(door: Door, sender: str) -> None:
    assert door.acceptor.check_sender(ACME, sender) is None
    door.take(sender=sender)


@pytest.mark.parametrize(
    "sender", ["bob@friend.example", "a@sub.acme.example", "a@notacme.example", "a@acme.example.net"]
)
def test_another_sender_is_refused_early_and_late(door: Door, sender: str) -> None:
    early = door.acceptor.check_sender(ACME, sender)
    door.offer(sender=sender)
    assert early == door.reply
    assert (door.reply.code, door.reply.enhanced) == (550, "5.7.1")
    assert sender in door.reply.text
    door.store.commit()
    assert door.store.count() == 0


def test_an_unknown_customer_is_refused_early_and_late(door: Door) -> None:
    stranger = FeedContext("smtp", "in", "nobody")
    assert door.acceptor.check_sender(stranger, SENDER) == NO_CUSTOMER
    door.offer(stranger)
    assert door.reply == NO_CUSTOMER


def test_a_trusted_feed_that_names_no_customer_is_refused_only_with_the_message(door: Door) -> None:
    assert door.acceptor.check_sender(TRUSTED, "any@where.example") is None
    door.offer(TRUSTED)
    assert door.reply == NO_CUSTOMER


def test_draining_refuses_with_421_early_and_late(door: Door) -> None:
    door.acceptor.is_draining = True
    assert door.acceptor.check_sender(ACME, SENDER) == DRAINING
    door.offer()
    assert door.reply == DRAINING
    assert (DRAINING.code, DRAINING.enhanced) == (421, "4.3.2")
    assert door.events == []


@pytest.mark.parametrize(("fields", "code"), [(MAX_RECEIVED, 250), (MAX_RECEIVED + 1, 554)])
def test_a_loop_is_known_by_its_received_fields(door: Door, fields: int, code: int) -> None:
    """RFC 5321 section 6.3."""
    door.offer(message=b"Received: by mx.x.example\r\n" * fields + MESSAGE)
    door.store.commit()
    assert door.reply.code == code
    if code == 554:
        assert door.reply == TOO_MANY_HOPS


# -- control fields ---------------------------------------------------------------------------------

CONTROLS = (
    b"X-Mailrail-Customer: acme\r\nX-Mailrail-Pool: fast\r\nX-Mailrail-Job: spring\r\n"
    b"X-Mailrail-Tag: run=7\r\n"
)


def test_a_trusted_feed_names_customer_and_pool(door: Door) -> None:
    delivery = door.take(TRUSTED, message=CONTROLS + MESSAGE)
    envelope = delivery.envelope
    assert (envelope.customer, envelope.pool, envelope.job) == ("acme", "fast", "spring")
    assert envelope.tags == {"run": "7"}
    assert door.placed == ["fast"]
    assert b"x-mailrail" not in delivery.message.lower()


def test_others_name_a_job_only_and_their_fields_leave_all_the_same(door: Door) -> None:
    fields = CONTROLS.replace(b"Customer: acme", b"Customer: signed")
    delivery = door.take(message=fields + MESSAGE)
    envelope = delivery.envelope
    assert (envelope.customer, envelope.pool, envelope.job) == ("acme", "bulk", "spring")
    assert b"x-mailrail" not in delivery.message.lower()


def test_the_customer_of_a_listener_stands_against_a_trusted_field(door: Door) -> None:
    context = FeedContext("spool", "drop", "acme", is_trusted=True)
    fields = CONTROLS.replace(b"Customer: acme", b"Customer: signed")
    assert door.take(context, message=fields + MESSAGE).envelope.customer == "acme"


def test_what_the_feed_says_holds_where_no_field_does(door: Door) -> None:
    context = FeedContext("socket", "in", "acme", pool="fast", job="autumn", tags={"a": "b"})
    envelope = door.take(context).envelope
    assert (envelope.pool, envelope.job, envelope.tags) == ("fast", "autumn", {"a": "b"})


def test_a_trusted_feed_may_not_use_a_sender_of_another_customer(door: Door) -> None:
    door.offer(TRUSTED, message=CONTROLS + MESSAGE, sender="a@other.example")
    assert (door.reply.code, door.reply.enhanced) == (550, "5.7.1")


def test_a_pool_that_there_is_not_is_refused(door: Door) -> None:
    door.offer(TRUSTED, message=CONTROLS.replace(b"fast", b"faster") + MESSAGE)
    assert door.reply == NO_POOL


# -- completing and signing ---------------------------------------------------------------------------


def test_the_message_is_completed(door: Door) -> None:
    delivery = door.take()
    head = delivery.message[: -len(MESSAGE)]
    assert head.startswith(b"Received: ")
    name = delivery.message_id.hex().encode()
    for part in (b"app.acme.example", b"192.0.2.7", b"mta.acme.example", name, b"\r\nDate: "):
        assert part in head
    assert b"Message-ID: <" + name + b"@mta.acme.example>\r\n" in head


def test_one_recipient_is_named_in_received_and_several_are_not(door: Door) -> None:
    """RFC 5321 section 7.2."""
    assert b"ann@x.example" in door.take().message
    door.told.clear()
    door.arrived.clear()
    message = door.take(recipients=["ann@x.example", "bob@x.example"]).message
    assert b"ann@" not in message
    assert b"bob@" not in message


def test_signatures_stand_in_front_of_the_completed_message(door: Door) -> None:
    delivery = door.take(FeedContext("smtp", "in", "signed"))
    customer, domain, message, unix_now = door.signed[0]
    assert (customer, domain, unix_now) == ("signed", "acme.example", UNIX_NOW)
    assert message.startswith(b"Received: ")
    assert delivery.message == b"DKIM-Signature: of-a-test\r\n" + message
    assert delivery.envelope.size_bytes == len(delivery.message)


def test_from_with_a_blank_before_its_colon_is_signed(door: Door) -> None:
    """RFC 5322 section 4.5."""
    message = b"From : n@acme.example\r\n\r\nx\r\n"
    delivery = door.take(FeedContext("smtp", "in", "signed"), message=message)
    assert door.signed[0][1] == "acme.example"
    assert delivery.message.startswith(b"DKIM-Signature: ")


def test_a_customer_without_keys_is_not_signed_for(door: Door) -> None:
    door.take()
    assert door.signed == []


# -- deliveries ---------------------------------------------------------------------------------------


def groups_of(recipients: list[str]) -> list[tuple[int, str, list[str]]]:
    envelope = Envelope(SENDER, "acme", "bulk", UNIX_NOW, 1, "smtp")
    made = make_deliveries(bytes(12), envelope, recipients)
    assert all(delivery.due_at == UNIX_NOW for delivery in made)
    return [(delivery.index, delivery.domain, delivery.recipients) for delivery in made]


def test_recipients_are_grouped_by_domain_and_named_once() -> None:
    assert groups_of(["a@x.example", "b@y.example", "c@x.example", "a@x.example"]) == [
        (0, "x.example", ["a@x.example", "c@x.example"]),
        (1, "y.example", ["b@y.example"]),
    ]


def test_a_domain_with_many_recipients_gets_several_deliveries() -> None:
    recipients = [f"u{number}@x.example" for number in range(2 * MAX_RECIPIENTS_PER_DELIVERY + 1)]
    groups = groups_of([*recipients, "a@y.example"])
    assert [(index, domain, len(group)) for index, domain, group in groups] == [
        (0, "x.example", 100),
        (1, "x.example", 100),
        (2, "x.example", 1),
        (3, "y.example", 1),
    ]
    assert [recipient for _, domain, group in groups if domain == "x.example" for recipient in group] == (
        recipients
    )


# -- other shards -------------------------------------------------------------------------------------


def test_a_message_placed_elsewhere_is_promised_when_that_shard_has_it(door: Door) -> None:
    door.shard = THERE
    door.offer()
    shard, deliveries, message, _ = door.forwarded[0]
    assert (shard, deliveries[0].recipients, message.endswith(MESSAGE)) == (THERE, TO, True)
    assert door.told == []
    door.answer_forward(None)
    assert door.reply.code == 250
    door.store.commit()
    assert (door.store.count(), door.arrived) == (0, [])
    assert door.events == []  # that shard tells it, with its own commit


def test_a_plain_refusal_by_the_other_shard_is_stored_here_unheld(door: Door) -> None:
    door.shard = THERE
    door.offer()
    door.answer_forward(StoreUnhealthy("request: full"))
    assert door.told == []
    door.store.commit()
    assert door.reply.code == 250
    assert [delivery.held for delivery in door.arrived] == [""]
    assert [event.event for event in door.events] == ["accepted"]


def test_what_a_dead_shard_perhaps_has_is_stored_here_and_held_for_it(door: Door) -> None:
    door.shard = THERE
    door.offer(recipients=["a@x.example", "b@y.example"])
    door.answer_forward(PerhapsStored(THERE, "link lost"))
    assert door.told == []
    door.store.commit()
    assert door.reply.code == 250
    assert [delivery.held for delivery in door.arrived] == [f"{PERHAPS}{THERE}"] * 2
    kept = [door.store.load(delivery.key) for delivery in door.arrived]
    assert [delivery.held for delivery in kept if delivery is not None] == ["shard 3", "shard 3"]


def test_where_neither_shard_has_room_the_injector_is_told_so(door: Door) -> None:
    door.shard = THERE
    door.offer()
    door.store.full_reason = "map"
    door.answer_forward(StoreUnhealthy("request: full"))
    assert door.reply.code == 452


@pytest.mark.parametrize(
    "context",
    [FeedContext("spool", "drop", "acme", claim="c-1"), FeedContext("socket", "in", "acme", idempotency="i")],
)
def test_what_is_kept_with_its_claim_or_id_is_not_placed(door: Door, context: FeedContext) -> None:
    door.shard = THERE
    delivery = door.take(context)
    assert (door.placed, door.forwarded) == ([], [])
    if context.claim:
        assert door.store.claim_of("c-1") == delivery.message_id
    else:
        assert door.store.idempotent("acme", "i") == delivery.message_id


def admit(door: Door, *, is_new: bool) -> list[StoreError | None]:
    envelope = Envelope(SENDER, "acme", "bulk", UNIX_NOW, len(MESSAGE), "smtp", peer="192.0.2.7")
    results: list[StoreError | None] = []
    delivery = Delivery(bytes(11) + b"x", 0, envelope, "x.example", TO, UNIX_NOW, MESSAGE)
    door.acceptor.admit([delivery], MESSAGE, results.append, is_new=is_new)
    return results


def test_what_another_shard_placed_here_is_stored_remembered_and_told(door: Door) -> None:
    results = admit(door, is_new=True)
    assert (results, door.arrived) == ([], [])
    door.store.commit()
    assert results == [None]
    assert [delivery.is_remembered for delivery in door.arrived] == [True]
    assert [event.event for event in door.events] == ["accepted"]


def test_what_is_handed_over_was_told_before(door: Door) -> None:
    admit(door, is_new=False)
    door.store.commit()
    assert door.events == []
    assert len(door.arrived) == 1


def test_what_is_handed_over_again_arrives_once(door: Door) -> None:
    admit(door, is_new=False)
    door.store.commit()
    results = admit(door, is_new=False)
    assert [str(result) for result in results] == ["known"]
    assert len(door.arrived) == 1


def test_another_shard_hears_that_nothing_was_staged(door: Door) -> None:
    door.store.full_reason = "map"
    with pytest.raises(StoreFull):
        admit(door, is_new=True)
    assert door.events == []


# -- telling ------------------------------------------------------------------------------------------


def test_one_accepted_event_for_each_accepted_message(door: Door) -> None:
    recipients = ["a@x.example", "b@y.example", "c@x.example"]
    door.offer(recipients=recipients)
    event = door.events[0]  # with the message's own commit: it is there before that
    door.store.commit()
    assert len(door.events) == 1
    assert (event.event, event.customer, event.pool, event.sender) == ("accepted", "acme", "bulk", SENDER)
    assert sorted(event.recipients) == recipients
    assert (event.feed, event.listener, event.shard) == ("smtp", "in", HERE)
    assert event.peer == Peer("app.acme.example", "192.0.2.7")
    assert event.id == door.told[0][1][0]


def test_a_refused_message_is_no_event(door: Door) -> None:
    door.offer(sender="a@other.example")
    door.offer(FeedContext("smtp", "in", "nobody"))
    assert door.events == []


def test_messages_count_by_recipient_and_injections_by_message(door: Door) -> None:
    size_bytes = door.take(recipients=["a@x.example", "b@y.example"]).envelope.size_bytes
    assert door.count("mailrail_messages_total", event="accepted", customer="acme", destination="") == 2
    assert door.count("mailrail_injections_total", feed="smtp", listener="in", result="accepted") == 1
    assert door.count("mailrail_injected_bytes_total", feed="smtp", listener="in") == size_bytes


# -- terms ----------------------------------------------------------------------------------------


def test_plain_message_has_no_terms(door: Door) -> None:
    assert door.take().envelope.terms is None


def test_terms_of_smtp_go_into_the_envelope_and_received_says_utf8(door: Door) -> None:
    """RFC 6531 4.3: "with UTF8SMTP"."""
    terms = Terms(is_utf8=True, envid="7")
    delivery = door.take(structs.replace(ACME, terms=terms), recipients=["jü@x.example"])
    assert delivery.envelope.terms == terms
    assert b" with UTF8SMTP id " in delivery.message


def test_smtputf8_that_nothing_needs_is_forgotten(door: Door) -> None:
    delivery = door.take(structs.replace(ACME, terms=Terms(is_utf8=True)))
    assert delivery.envelope.terms is None
    assert b" with ESMTP id " in delivery.message


def test_control_fields_and_fields_of_the_socket_ask_for_the_same(door: Door) -> None:
    door.take(
        message=b"X-Mailrail-Notify: never\r\nX-Mailrail-Hold-Until: 1970-01-01T00:00:00Z\r\n" + MESSAGE
    )
    assert b"X-Mailrail" not in door.arrived[0].message
    door.told.clear()
    door.offer(FeedContext("socket", "in", "acme", asked={"notify": "never"}))
    door.store.commit()
    assert [delivery.envelope.terms for delivery in door.arrived] == [Terms(notify="NEVER")] * 2


def test_term_that_can_not_be_read_refuses_the_message(door: Door) -> None:
    door.offer(message=b"X-Mailrail-Deliver-By: soon\r\n" + MESSAGE)
    assert str(door.reply).startswith("501 5.5.4 deliver_by: expected seconds")


def test_held_message_is_due_at_its_instant(door: Door) -> None:
    """RFC 4865 4: released at the time asked for."""
    context = structs.replace(ACME, terms=Terms(hold_until=UNIX_NOW + 60))
    delivery = door.take(context, recipients=["a@x.example", "b@y.example"])
    assert [each.due_at for each in door.arrived] == [UNIX_NOW + 60] * 2
    assert delivery.envelope.accepted_at == UNIX_NOW


def test_8bit_message_of_a_customer_who_asks_is_encoded_before_it_is_signed(door: Door) -> None:
    """RFC 6152 3 with RFC 6376 5.3: what is signed is what is sent."""
    delivery = door.take(FeedContext("smtp", "in", "encoding"), message=EIGHT_BIT)
    assert delivery.message.isascii()
    assert not delivery.envelope.is_8bit
    ((_, _, signed, _),) = door.signed
    assert b"Content-Transfer-Encoding: quoted-printable\r\n" in signed


def test_8bit_message_of_others_stays_as_it_is(door: Door) -> None:
    delivery = door.take(message=EIGHT_BIT)
    assert delivery.message.endswith(EIGHT_BIT)
    assert delivery.envelope.is_8bit


def test_recipients_that_need_smtputf8_are_a_delivery_of_their_own() -> None:
    envelope = Envelope(SENDER, "acme", "bulk", UNIX_NOW, 1, "smtp", terms=Terms(is_utf8=True))
    deliveries = make_deliveries(bytes(12), envelope, ["a@x.example", "\u00fc@x.example", "b@x.example"])
    assert [delivery.recipients for delivery in deliveries] == [
        ["a@x.example", "b@x.example"],
        ["\u00fc@x.example"],
    ]


def test_tls_required_no_is_kept_with_the_message(door: Door) -> None:
    """RFC 8689 section 4.1."""
    delivery = door.take(message=b"TLS-Required: No\r\n" + MESSAGE)
    kept = door.store.load(delivery.key)
    assert kept is not None
    assert kept.envelope.is_tls_optional
