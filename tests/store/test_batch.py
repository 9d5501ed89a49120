"""What one commit will change."""

from __future__ import annotations

from engine.store.batch import Batch
from engine.store.records import schedule_key_of


def test_amended_twice_leaves_one_place(make):
    batch, delivery = Batch(), make()
    first = schedule_key_of(delivery)
    batch.amend(delivery, 1_700_000_100.0)
    second = schedule_key_of(delivery)
    batch.amend(delivery, 1_700_000_200.0)
    assert batch.schedule == {first: False, second: False, schedule_key_of(delivery): True}
    assert list(batch.deliveries) == [delivery.key]


def test_amended_to_the_same_time_stays(make):
    batch, delivery = Batch(), make()
    batch.amend(delivery, delivery.due_at)
    assert batch.schedule == {schedule_key_of(delivery): True}


def test_put_and_removed_leaves_nothing(make):
    batch, delivery = Batch(), make()
    batch.put([delivery], delivery.message)
    assert batch.is_fresh(delivery.key)
    assert batch.remove(delivery) is False
    assert (batch.bodies, batch.deliveries, batch.schedule, batch.fresh) == ({}, {}, {}, {})
    assert (batch.operations, batch.size_bytes) == (0, 0)


def test_put_amended_and_removed_leaves_nothing(make):
    batch, delivery = Batch(), make()
    batch.put([delivery], delivery.message)
    batch.amend(delivery, delivery.due_at + 60)
    batch.remove(delivery)
    assert (batch.bodies, batch.deliveries, batch.schedule) == ({}, {}, {})


def test_message_stays_while_one_of_its_deliveries_does(make):
    batch = Batch()
    first = make("x.example")
    second = make("y.example", sibling_of=first, index=1)
    batch.put([first, second], first.message)
    batch.remove(first)
    assert list(batch.bodies) == [first.message_id]
    assert list(batch.deliveries) == [second.key]


def test_removal_of_what_an_earlier_batch_put_is_a_change(make):
    batch, delivery = Batch(), make()
    assert batch.remove(delivery) is True
    assert batch.deliveries == {delivery.key: None}
    assert batch.schedule == {schedule_key_of(delivery): False}


def test_relief_takes_what_is_stored_and_leaves_the_puts(make):
    batch = Batch()
    stored, moved, new, newer = make(), make(), make(), make()
    batch.put([new], new.message)
    batch.put([newer], newer.message)
    batch.claim(b"new", new.message_id)
    batch.forget_claim(b"old")
    batch.answer(b"reply", b"r")
    batch.remember(stored.key, b"seen")
    batch.remove(stored)
    old = schedule_key_of(moved)
    batch.amend(moved, moved.due_at + 60)
    batch.amend(newer, newer.due_at + 60)
    relief = batch.relieve()
    assert relief.deliveries.keys() == {stored.key, moved.key}
    assert relief.schedule == {schedule_key_of(stored): False, old: False, schedule_key_of(moved): True}
    assert relief.claims == {b"old": None}
    assert relief.seen == {stored.key: b"seen"}
    assert relief.operations > 0
    assert (relief.bodies, relief.replies, relief.fresh) == ({}, {}, {})
    assert batch.deliveries.keys() == {new.key, newer.key}
    assert batch.schedule == {schedule_key_of(new): True, schedule_key_of(newer): True}
    assert batch.claims == {b"new": new.message_id}


def test_join_is_staging_in_order(make):
    one, other = Batch(), Batch()
    stored, put, moved = make(), make(), make()
    one.put([put], put.message)
    one.put([moved], moved.message)
    other.remove(put)
    other.amend(moved, moved.due_at + 60)
    other.remove(stored)
    other.waiting.append(lambda error: None)
    one.join(other)
    assert one.deliveries.keys() == {moved.key, stored.key}
    assert one.schedule == {schedule_key_of(moved): True, schedule_key_of(stored): False}
    assert one.bodies.keys() == {moved.message_id}
    assert len(one.waiting) == 1
    assert one.operations > 0


def test_what_another_store_remembers_goes_where_this_one_keeps_it():
    batch = Batch()
    for kind in ("claim", "seen", "reply"):
        batch.restore(kind, kind.encode(), b"record")
    assert batch.claims == {b"claim": b"record"}
    assert batch.seen == {b"seen": b"record"}
    assert batch.replies == {b"reply": b"record"}
    assert batch.operations == 3
